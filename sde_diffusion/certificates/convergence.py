r"""Orders of convergence, measured: the slope of log error against log steps, once it has settled.

Deterministic samplers are run on a mixture of Gaussians, whose trajectories are known to 1e-9, from
an exact start (the first grid states are replaced by points of the exact trajectory, so that the
first steps of a multistep method cannot hide its order) and from their own. A Gaussian alone would
hide errors. The law of a stochastic sampler on Gaussian data is known without sampling
(`Plan.law`); its exact start is a grid whose first steps grow from tiny ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..form import number_of
from ..plan import Plan
from ..problems import GaussianMixture
from ..run import Point, run
from ..schedule import Schedule

LAMBDA_START, LAMBDA_END = -2.0, 2.0  # noise levels between which every method is regular
MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])
Make = Callable[[Schedule, Tensor], Plan]
Grid = Callable[[Schedule, int], Tensor]

_DATA_MEAN = 0.7
_DATA_VARIANCES = torch.tensor([0.3, 1.0], dtype=torch.float64)
_FLOOR = 5e-9  # errors below it are not only the sampler's: the reference has its own
_SETTLED = 0.04


@dataclass(frozen=True)
class Convergence:
    """Errors at doubled numbers of steps.

    Attributes:
        order: the last slope log2(error(N) / error(2N)) above the floor of the reference.
        steps, errors: what it was measured from.
    """

    order: float
    steps: tuple[int, ...]
    errors: tuple[float, ...]


def converge(error_of: Callable[[int], float], first: int = 20, most: int = 640) -> Convergence:
    """Double the steps until two slopes agree, or the error meets the floor."""
    steps, errors = [first], [error_of(first)]
    slopes: list[float] = []
    while steps[-1] < most:
        n, error = 2 * steps[-1], error_of(2 * steps[-1])
        if error <= _FLOOR and slopes:
            break
        slopes.append(math.log2(errors[-1] / error) if error > 0 else math.inf)
        steps.append(n)
        errors.append(error)
        if error <= 16 * _FLOOR or (len(slopes) > 1 and abs(slopes[-1] - slopes[-2]) < _SETTLED):
            break
    return Convergence(slopes[-1], tuple(steps), tuple(errors))


def even_grid(schedule: Schedule, steps: int) -> Tensor:
    """Even steps in lambda."""
    return _grid(schedule, tuple([1.0] * steps))


def rough_grid(schedule: Schedule, steps: int) -> Tensor:
    """Steps in lambda that alternate 2 : 1, however many there are."""
    return _grid(schedule, tuple([4 / 3, 2 / 3] * (steps // 2)))


def graded_grid(schedule: Schedule, steps: int, order: int) -> Tensor:
    """Even steps in lambda, after some that double from size h^((order + 1)/2) to h.

    A first step of order 1 then costs no more than a later one of the full order.
    """
    doublings = math.ceil((order - 1) / 2 * math.log2(steps)) if order > 1 else 0
    return _grid(schedule, tuple([2.0**-k for k in range(doublings, 0, -1)] + [1.0] * steps))


@lru_cache(maxsize=1024)
def _grid(schedule: Schedule, sizes: tuple[float, ...]) -> Tensor:
    cumulative = torch.tensor([0.0, *sizes], dtype=torch.float64).cumsum(0)
    lambdas = LAMBDA_START + (LAMBDA_END - LAMBDA_START) * cumulative / cumulative[-1]
    times = [float(schedule.time_of(v)) for v in lambdas.tolist()]
    return torch.tensor(times, dtype=torch.float64)


def relative_table(plan: Plan, schedule: Schedule) -> Tensor:
    """lambda of every state asked and of the end, and its row over x_T/alpha_T, the d_j and z_k.

    In x/alpha and lambda all schedules are one process: where a solver makes the same relative
    table for two of them from the same noise levels, it is one sampler, and errs alike.
    """
    times = [*plan.asked_at, plan.times[-1]]
    lambdas = torch.tensor([float(schedule.half_log_snr(t)) for t in times], dtype=torch.float64)
    alphas = torch.tensor([float(schedule.alpha(t)) for t in times], dtype=torch.float64)
    table = plan.matrix() / alphas[:, None]
    table[:, 0] *= float(schedule.alpha(number_of(plan.rows[0].t)))
    return torch.cat([lambdas[:, None], table], 1)


def endpoint_errors(
    make: Make, schedule: Schedule, grid_of: Grid, steps: int
) -> tuple[float, float]:
    """RMS distance of 64 endpoints from the exact ones, on the mixture: from an exact start, own.

    One run does both, each on its half of the batch.
    """
    grid = grid_of(schedule, steps)
    x, end = _ends(schedule)
    plan = make(schedule, grid)
    states = _first_states(schedule, tuple(grid[: plan.history + 2].tolist()))

    def exact(point: Point) -> Tensor | None:
        if point.index >= len(states):
            return None
        return torch.cat([states[point.index], point.x[len(x) :]])

    y = run(plan, MIXTURE.denoiser(schedule), torch.cat([x, x]), callback=exact)
    from_exact, from_own = (y - end.repeat(2, 1)).square().chunk(2)
    return float(from_exact.mean().sqrt()), float(from_own.mean().sqrt())


def law_error(make: Make, schedule: Schedule, grid: Tensor) -> float:
    """How far mean and variance are from the exact ones, on Gaussian data of two variances."""
    mean, variance = make(schedule, grid).law(schedule, _DATA_MEAN, _DATA_VARIANCES)
    alpha_s, sigma_s = schedule(float(grid[-1]))
    exact = alpha_s**2 * _DATA_VARIANCES + sigma_s**2
    miss = (variance / exact - 1).abs().max() + (mean / (alpha_s * _DATA_MEAN) - 1).abs().max()
    return float(miss)


@lru_cache(maxsize=32)
def _ends(schedule: Schedule) -> tuple[Tensor, Tensor]:
    """64 states of the law at the first noise level, and where their trajectories end."""
    t, s = (float(schedule.time_of(v)) for v in (LAMBDA_START, LAMBDA_END))
    x = MIXTURE.sample_marginal(64, *schedule(t), torch.Generator().manual_seed(0))
    return x, MIXTURE.endpoint(x, schedule, t, s)


@lru_cache(maxsize=1024)
def _first_states(schedule: Schedule, times: tuple[float, ...]) -> Tensor:
    return MIXTURE.trajectory(_ends(schedule)[0], schedule, times)
