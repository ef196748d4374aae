r"""Orders of a stochastic sampler on one Brownian path: strong, and weak on a mixture.

Runs of n and of 2n steps see the same path, in each of 50,000 coordinates, samples of their own.
The strong error is the RMS of X_n - X_2n; the weak error is how far the means of some functions of
X_n and X_2n are apart, known to a standard error that the common path makes small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise

import torch
from torch import Tensor

from ..brownian import draw_along, fresh
from ..denoise import FunctionDenoiser
from ..noise import Course, Draw, Noise, PerSampleNoise
from ..problems import GaussianMixture
from ..run import run
from ..schedule import Schedule
from .convergence import LAMBDA_START, Make, even_grid

_COORDINATES = 50_000
_STEPS = (4, 8, 16, 32, 64)
_WEIGHTS, _MEANS, _VARIANCES = (0.3, 0.7), (-1.0, 0.8), (0.09, 0.25)
_MIXTURE = GaussianMixture(_WEIGHTS, [[mean] for mean in _MEANS], _VARIANCES)


@dataclass(frozen=True)
class PathOrders:
    """Slopes of the strong and the weak error, and the standard error of the latter."""

    strong: float
    weak: float
    weak_error: float


def path_orders(make: Make, schedule: Schedule) -> PathOrders:
    """Measure both on a mixture of two Gaussians in one dimension."""
    t = float(schedule.time_of(LAMBDA_START))
    generator = torch.Generator().manual_seed(0)
    x = _MIXTURE.sample_marginal(_COORDINATES, *schedule(t), generator).reshape(1, -1)

    denoiser = FunctionDenoiser(lambda x, t: _denoised(x, *map(float, schedule(t))), schedule)
    path = _KeptPath()
    ends = [run(make(schedule, even_grid(schedule, n)), denoiser, x, noise=path) for n in _STEPS]
    gaps = [float((a - b).square().mean().sqrt()) for a, b in pairwise(ends)]
    weak, weak_error = _weak_slope(ends)
    return PathOrders(math.log2(gaps[-2] / gaps[-1]), weak, weak_error)


class _KeptPath(Noise):
    """`BrownianPath([0])`, its fresh draws kept: all grids and solvers ask for the same ones."""

    def start(self, out: Tensor) -> Tensor:
        return PerSampleNoise([0]).start(out)

    def stream(self, like: Tensor, course: Course) -> Draw:
        kept = lambda name: lambda node, out: out.copy_(_drawn(name, node))
        return draw_along(course, kept, partial(torch.empty_like, like))


@lru_cache(maxsize=128)  # 50 MB: those of two draws a step
def _drawn(name: int, node: int) -> Tensor:
    out = torch.empty(1, _COORDINATES, dtype=torch.float64)
    fresh([0], name)(node, out)
    return out


def _denoised(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """E[x_0 | x] of each number, m_1 + r (m_2 - m_1), r = 1/(1 + exp(-a x^2 - b x - c)).

    It is `_MIXTURE.denoised` for two components in one dimension, several times faster: nearly all
    of the time of a certificate would be spent there.
    """
    (w_1, w_2), (mu_1, mu_2), (c_1, c_2) = _WEIGHTS, _MEANS, _VARIANCES
    v_1, v_2 = alpha**2 * c_1 + sigma**2, alpha**2 * c_2 + sigma**2
    a = (1 / v_1 - 1 / v_2) / 2
    b = alpha * (mu_2 / v_2 - mu_1 / v_1)
    c = math.log(w_2 / w_1 * math.sqrt(v_1 / v_2)) + alpha**2 * (mu_1**2 / v_1 - mu_2**2 / v_2) / 2
    r = torch.addcmul(x * b, x, x, value=a).add_(c).sigmoid_()
    (p_1, q_1), (p_2, q_2) = (
        (mu * sigma**2 / v, alpha * c / v)
        for mu, c, v in ((mu_1, c_1, v_1), (mu_2, c_2, v_2))  # m_k = p_k + q_k x
    )
    return (x * (q_2 - q_1)).add_(p_2 - p_1).mul_(r).add_(p_1).add_(x, alpha=q_1)


def _weak_slope(ends: list[Tensor]) -> tuple[float, float]:
    """(slope, standard error), from the finest three runs whose differences stand out of noise."""
    values = [_functions(x) for x in ends]
    shifts, noises = [], []
    for a, b in pairwise(values):
        gap = a - b
        shifts.append(float(gap.mean(1).norm()))
        noises.append(float((gap.var(1).sum() / gap.shape[1]).sqrt()))
    best = (math.nan, math.inf)
    for i in range(len(shifts) - 1):
        slope = math.log2(shifts[i] / shifts[i + 1])
        error = math.hypot(noises[i] / shifts[i], noises[i + 1] / shifts[i + 1]) / math.log(2)
        if error < 0.25 or error < best[1]:
            best = (slope, error)
    return best


def _functions(x: Tensor) -> Tensor:
    x = x.flatten()
    return torch.stack([x, x.square(), torch.cos(2 * x), torch.sin(3 * x)])
