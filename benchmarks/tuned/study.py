"""Samples of the trained network: any plan run from the same starts and measured, once.

All sets of samples of one seed start from the same points, so that two plans are compared pair by
pair. What was measured is kept on disk by what it was measured of: a run that was stopped goes on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from sde_diffusion import NetworkDenoiser, Plan, run
from sde_diffusion.store import Cell, Store, digest
from sde_diffusion.tuning.pairs import Pairs
from sde_diffusion.tuning.teacher import teach

from ..model import SCHEDULE
from .rulers import RULERS, Rulers

ERRORS = ("rms", "median")
TOLERANCE = 1e-5
_CHUNK = 2048  # starts that the teacher takes at once


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        samples: in a set; 14 for each held-out digit and 7 for each digit of the training.
        seeds: of the sets; the screening, the law and the fits have others.
        law_sets: sets of ends that make up the network's own law.
        screen: samples of a set when settings are screened.
        keep: settings of the screening, by each figure, that are measured in full.
        train, validation: starts of a fit to paths.
        iterations: of it, at most.
        train_sets, validation_sets: starts of a fit to digits, as many times their number.
        steps: of it.
        settings: every so many of the training-free settings are tried.
    """

    samples: int = 8386
    seeds: tuple[int, ...] = (101, 102, 103)
    law_sets: int = 1
    screen: int = 599
    keep: int = 1
    train: int = 1024
    validation: int = 512
    iterations: int = 30
    train_sets: int = 12
    validation_sets: int = 4
    steps: int = 80
    settings: int = 1


QUICK = Sizes(1198, (101, 102), 1, 599, 1, 64, 64, 3, 2, 1, 2, 400)
SCREEN_SEED, LAW_SEED = 0, 100  # the first set of the law, the others count down from it


class Study:
    """The network, its starts and ends, and the figures of plans.

    Args:
        network: a noise predictor for `SCHEDULE`.
        sizes: how much is measured.
        folder: where ends, figures and plans are kept.
    """

    def __init__(self, network: nn.Module, sizes: Sizes, folder: Path) -> None:
        self.denoiser = NetworkDenoiser(network, SCHEDULE)
        self.sizes, self.folder = sizes, folder
        self.store = Store(folder / "cells.json")
        self.shape: tuple[int, ...] = network.event_shape  # type: ignore[assignment]
        probe = torch.linspace(-1, 1, 64).reshape(1, *self.shape)
        answers = [round(v, 4) for v in self.denoiser(probe, 0.5).flatten().tolist()]
        self.key = digest([answers, asdict(sizes)])

    def starts(self, seed: int, count: int) -> Tensor:
        """Points at t_max, N(0, sigma^2 I), float32."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, *self.shape, generator=generator)
        return noise * float(SCHEDULE.sigma(SCHEDULE.t_max))

    def pairs(self, seed: int, count: int) -> Pairs:
        """Starts and the ends of the network's own ODE."""
        return teach(
            self.denoiser,
            self.starts(seed, count),
            teacher="dopri5",
            tolerance=TOLERANCE,
            chunk=_CHUNK,
            label="digits",
            folder=self.folder,
            progress=True,
        )

    @cached_property
    def rulers(self) -> Rulers:
        """The distances to the three targets."""
        seeds = range(LAW_SEED, LAW_SEED - self.sizes.law_sets, -1)
        return Rulers(torch.cat([self.pairs(s, self.sizes.samples).ends for s in seeds]))

    def figures(self, plan: Plan | None, seed: int, count: int) -> Cell:
        """Distances of a plan's samples, and errors of its ends; None: of the ODE's own ends."""
        table = None if plan is None else [plan.matrix().tolist(), plan.asked_at, plan.name]
        settles = [self.key, table, seed, count]
        key = digest(settles)
        cell = self.store.get(key)
        if cell is None:
            pairs = self.pairs(seed, count)
            x = pairs.ends if plan is None else self._run(plan, pairs.starts, seed)
            cell = {**self.rulers(x), **errors(x, pairs.ends)}
            self.store.put(key, cell)
        return cell

    def samples(self, plan: Plan, seed: int) -> Tensor:
        """A set of a plan's samples, as large as those that are measured in full."""
        return self._run(plan, self.starts(seed, self.sizes.samples), seed)

    def _run(self, plan: Plan, starts: Tensor, seed: int) -> Tensor:
        return run(plan, self.denoiser, starts, noise=seed if plan.stochastic else None)

    def in_full(self, plan: Plan | None) -> dict[str, list[float]]:
        """Figure -> its values, one a seed."""
        cells = [self.figures(plan, seed, self.sizes.samples) for seed in self.sizes.seeds]
        return {name: [cell[name] for cell in cells] for name in (*RULERS, *ERRORS)}


def errors(x: Tensor, ends: Tensor) -> dict[str, float]:
    """RMS and median over samples of |x - x*| / |x*|."""
    relative = (x - ends).flatten(1).norm(dim=1) / ends.flatten(1).norm(dim=1)
    return {"rms": float(relative.square().mean().sqrt()), "median": float(relative.median())}
