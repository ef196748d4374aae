r"""The models of the quality benchmark, where paths start and, exactly, where they end.

Three closed-form data distributions and two ranges of noise. In y = x/alpha, rho = sigma/alpha
every schedule is the same problem, dy/drho = (y - E[x_0 | y])/rho, and only the range differs:

    "vp"    beta 0.1 .. 20:  rho from 152 to 0
    "edm"   sigma 80 .. 0:   rho from 80 to 0
    "flow"  alpha = 1 - t:   rho from 1000 (t = 0.999) to 0

Paths start from the exact law at the noisy end (a fixed seed) and end at sigma = 0, where all
three data have a density, so that no sampler is compared with an end of its own: one that stops
at a small sigma > 0 pays for it. The exact end comes from `Problem.endpoint` (DOP853, rtol 1e-11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sde_diffusion import EDM, FlowMatching, Schedule, VPLinear
from sde_diffusion.problem import Problem
from sde_diffusion.problems import DataSet, GaussianMixture, ring, spectrum_mixture

from ..data import digits

POINTS = 512
SEED = 0
SMOOTHING = 0.07
_CHUNK = 128  # samples denoised together: temporaries stay in the cache

SCHEDULES: dict[str, tuple[Schedule, float]] = {  # schedule, and the time of the noisy end
    "vp": (VPLinear(), 1.0),
    "edm": (EDM(), 80.0),
    "flow": (FlowMatching(), 0.999),
}


def uneven() -> GaussianMixture:
    """A mixture for checking: 5 unequal modes of unequal widths in 16 dimensions, off centre."""
    generator = torch.Generator().manual_seed(7)
    means = torch.randn(5, 16, generator=generator, dtype=torch.float64) + 0.5
    variances = 0.02 + 0.4 * torch.rand(5, 16, generator=generator, dtype=torch.float64) ** 2
    return GaussianMixture([0.4, 0.25, 0.2, 0.1, 0.05], means, variances)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "ring": ring,
    "mixture": spectrum_mixture,
    "digits": lambda: DataSet(torch.cat(digits()).double(), SMOOTHING),
    "uneven": uneven,
    "ring of 5": lambda: ring(5, 8, 1.2, 0.3),
}
TITLES = {
    "ring": "2-D ring of 8",
    "mixture": "64-D mixture of 32",
    "digits": "1,797 digits",
    "uneven": "16-D, 5 unequal modes",
    "ring of 5": "8-D ring of 5",
}
MAIN = ("mixture", "digits", "ring")  # what rules are chosen on; the others only check them


@dataclass(frozen=True)
class Case:
    """One model on one range of noise; states in y = x/alpha.

    Attributes:
        model, range: keys of `PROBLEMS`, `SCHEDULES`.
        problem: the data.
        start: y at the noisy end, (points, D), float64.
        end: the exact y = x at sigma = 0.
        seed: what the starts were drawn with.
    """

    model: str
    range: str
    problem: Problem
    start: Tensor
    end: Tensor
    seed: int = SEED

    @property
    def schedule(self) -> Schedule:
        """The schedule that the range of noise belongs to."""
        return SCHEDULES[self.range][0]

    @property
    def t_start(self) -> float:
        """The time of the noisy end in `schedule`."""
        return SCHEDULES[self.range][1]

    @cached_property
    def rho_max(self) -> float:
        """sigma/alpha at the noisy end."""
        return float(self.schedule.rho(self.t_start))

    def denoised(self, y: Tensor, rho: float) -> Tensor:
        """E[x_0 | x_0 + rho z = y]."""
        shape = (-1, *self.problem.event_shape)
        parts = [self.problem.denoised(p.reshape(shape), 1.0, rho) for p in y.split(_CHUNK)]
        return torch.cat(parts).reshape(y.shape)

    def distances(self, y: Tensor) -> Tensor:
        """|y - y*| / |y*|, (points,)."""
        end = self.end[: len(y)]
        return (y.double() - end).norm(dim=1) / end.norm(dim=1)

    def errors(self, y: Tensor) -> dict[str, float]:
        """RMS and median over the points of |y - y*| / |y*|; infinite where y is not finite."""
        relative = self.distances(y)
        if not bool(torch.isfinite(relative).all()):
            return {"rms": float("inf"), "median": float("inf")}
        return {
            "rms": float(relative.square().mean().sqrt()),
            "median": float(np.median(relative.numpy())),
        }

    def small(self, points: int) -> Case:
        """The same with the first points only, for screening many settings."""
        return replace(self, start=self.start[:points], end=self.end[:points])


def load(folder: Path, model: str, range_: str, seed: int = SEED, points: int = POINTS) -> Case:
    """A case; its exact ends are worked out once and kept in the folder."""
    problem = PROBLEMS[model]()
    schedule, t = SCHEDULES[range_]
    alpha, sigma = schedule(t)
    generator = torch.Generator().manual_seed(seed)
    x = problem.sample_marginal(points, alpha, sigma, generator=generator)
    start = x.reshape(points, -1) / alpha
    path = folder / f"exact-{model.replace(' ', '-')}-{range_}-{seed}-{points}.npz"
    if path.exists():
        kept = np.load(path, allow_pickle=False)
        if np.allclose(kept["start"], start.numpy(), rtol=1e-9, atol=1e-9):
            return Case(model, range_, problem, start, torch.from_numpy(kept["end"]), seed)
    end = problem.endpoint(x, schedule, t, 0.0).reshape(points, -1)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, start=start.numpy(), end=end.numpy())
    return Case(model, range_, problem, start, end, seed)
