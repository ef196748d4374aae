"""The models that solvers are run on, each with starting points and the exact end of each path.

Endpoint errors compare with the probability-flow ODE solved from t_max to t_clean, where the ODE
is regular: on the closed-form models by `Problem.endpoint` (DOP853, tolerance 1e-11), on the
network by scipy's DOP853 on the network's own ODE, in float64 (tolerance 1e-9).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sde_diffusion import Denoiser, NetworkDenoiser, Schedule
from sde_diffusion.adaptive import scipy
from sde_diffusion.problem import Problem
from sde_diffusion.problems import DataSet, ring

from .data import digits
from .model import SCHEDULE
from .settings import Settings

SMOOTHING = 0.07
REFERENCE_TOLERANCE = 1e-9
TITLES = {
    "ring": "a ring of 8 Gaussians in the plane, exact denoiser",
    "digits": f"the 1,797 digits smoothed by h = {SMOOTHING}, exact denoiser",
    "network": "the network trained on digits",
}


@dataclass(frozen=True)
class Case:
    """A model, where its paths start, and where they end.

    Attributes:
        name: short name, a key of `TITLES`.
        denoiser: E[x_0 | x_t], float64.
        start: states at t_max, (points, *event), float64.
        solve: start -> the exact states at t_clean.
    """

    name: str
    denoiser: Denoiser
    start: Tensor
    solve: Callable[[Tensor], Tensor]

    @cached_property
    def end(self) -> Tensor:
        """The exact states at t_clean; worked out when first asked for."""
        return self.solve(self.start)

    def errors(self, x: Tensor) -> dict[str, float]:
        """RMS and median over the starting points of |x - x*| / |x*|."""
        end = self.end.flatten(1)
        relative = (x.flatten(1) - end).norm(dim=1) / end.norm(dim=1)
        return {
            "rms": float(relative.square().mean().sqrt()),
            "median": float(relative.median()),
        }


def closed_form(name: str, problem: Problem, schedule: Schedule, points: int, seed: int) -> Case:
    """A case with the problem's exact denoiser; paths start from the exact law at t_max."""
    t, s = schedule.t_max, schedule.t_clean
    generator = torch.Generator().manual_seed(seed)
    start = problem.sample_marginal(points, *schedule(t), generator=generator)
    denoiser = problem.denoiser(schedule)
    return Case(name, denoiser, start, lambda x: problem.endpoint(x, schedule, t, s))


def of_network(network: nn.Module, schedule: Schedule, points: int, seed: int) -> Case:
    """The case of a noise predictor, in float64; paths start from N(0, sigma^2 I)."""
    denoiser = NetworkDenoiser(copy.deepcopy(network).double(), schedule)
    generator = torch.Generator().manual_seed(seed)
    shape = (points, *network.event_shape)  # type: ignore[misc]
    start = torch.randn(shape, generator=generator, dtype=torch.float64)
    start = start * float(schedule.sigma(schedule.t_max))
    times = [schedule.t_max, schedule.t_clean]
    tight: dict[str, Any] = {"rtol": REFERENCE_TOLERANCE, "atol": REFERENCE_TOLERANCE}

    def solve(x: Tensor) -> Tensor:
        return scipy(denoiser, x, times, method="DOP853", **tight).x

    return Case("network", denoiser, start, solve)


def make_cases(
    settings: Settings, network: nn.Module, schedule: Schedule = SCHEDULE
) -> dict[str, Case]:
    """The three cases, by name."""
    points, seed = dict(settings.points), settings.seed
    images = torch.cat(digits()).double()
    return {
        "ring": closed_form("ring", ring(), schedule, points["ring"], seed),
        "digits": closed_form(
            "digits", DataSet(images, SMOOTHING), schedule, points["digits"], seed
        ),
        "network": of_network(network, schedule, points["network"], seed),
    }
