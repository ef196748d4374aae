r"""Diffusion posterior sampling: the likelihood at the mean, and its gradient through the network.

p(y | x_t) = N(y; A(d), s_t^2 I),    d_y = d + (sigma^2/alpha) J^T A'^T (y - A(d))/s_t^2.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..schedule import Schedule
from ..states import along, inner
from ..times import check_grid
from .measurement import Measurement
from .posterior import Here, Posterior, check_posed, check_setting


def dps(
    denoiser: Denoiser,
    measurement: Measurement,
    variance: float = 0.1,
    zeta: float | None = None,
    times: Sequence[float] | Tensor | None = None,
) -> Posterior:
    """The likelihood at the mean, differentiated through the network; A may be nonlinear.

    d_y = d + (sigma^2/alpha) J^T g/s_t^2,    g = A'^T (y - A(d))

    Chung, Kim, McCann, Klasky & Ye, "Diffusion posterior sampling for general noisy inverse
    problems", 2022, arXiv:2209.14687. Its s_t = sigma_y leaves out how little x_t says of x_0: the
    push is far too strong at first, and unstable in few steps. Here

        s_t^2 = sigma_y^2 + r_t^2 |A'g|^2/|g|^2,    r_t^2 = v sigma^2/(v alpha^2 + sigma^2),

    which adds the variance of A(x_0) along the push for data of variance v; `variance=0` is the
    paper's likelihood. On mixtures of variance 1 samples are closer to the posterior with v = 0.1
    than with 0.3, or as close. Where data vary more than v along the push it would overshoot y, and
    grow from step to step: with v > 0 it is shortened so that A(d_y) is no farther from y than
    A(d).

    The paper's algorithm has another push: zeta grad |y - A(d)| subtracted from each ancestral
    step t -> s, which belongs to a step and not to a time. With `zeta` and the `times` of the run

        d_y = d + (zeta/b) J^T g/|y - A(d)|,    b = alpha_s (1 - alpha_{t|s}^2 sigma_s^2/sigma_t^2),

    where b is the weight of d in that step: "ddim" with eta=1 on these times is that algorithm.
    Twice the steps halve b and double the push, so zeta is tuned for one number of steps (about 1
    at 1000 in the paper), and more steps do not bring samples closer to the posterior.

    Args:
        denoiser: d = E[x_0 | x_t], differentiable in x.
        measurement: y, A and sigma_y; sigma_y > 0 where variance = 0.
        variance: v >= 0, of the data in one coordinate, around one of its modes, or less.
        zeta: the paper's step size, at least 0, in place of the likelihood.
        times: the grid of the run, noisy to clean; what is asked at any other time belongs to
            another run and is an error.

    Raises:
        ValueError: a negative setting; variance = 0 without noise; zeta without times, or times
            without zeta.
    """
    check_posed(denoiser, measurement)
    check_setting("variance", variance)
    if (zeta is None) != (times is None):
        raise ValueError(
            "zeta is a push for each step and needs the grid of the run, and only zeta needs it: "
            "give both, dps(denoiser, measurement, zeta=1.0, times=times), or neither"
        )
    if zeta is not None and times is not None:
        check_setting("zeta", zeta, finite=True)
        push = _push_of_step(denoiser.schedule, times, zeta)
        return Posterior(denoiser, measurement, lambda here: _by_step(here, push))
    if variance == 0 == measurement.noise:
        raise ValueError(
            "variance = 0 and a measurement without noise: the likelihood is infinitely narrow; "
            "give the data's variance (variance=1.0), or zeta and times"
        )
    return Posterior(denoiser, measurement, lambda here: _by_likelihood(here, variance))


def _by_likelihood(here: Here, variance: float) -> Tensor:
    gain = here.gain
    d, pull = here.prior_with_pull()
    around = here.around(d)
    g = around.pull(around.residual)
    precision, _ = here.precision(around, g, variance)
    push = gain * pull(precision * g)
    return d + (around.no_farther(push) if variance else push)


def _by_step(here: Here, push: Callable[[float], float]) -> Tensor:
    t = here.t
    factor = (
        t.detach().cpu().clone().apply_(push).to(t.device) if isinstance(t, Tensor) else push(t)
    )
    d, pull = here.prior_with_pull()
    around = here.around(d)
    length = inner(around.residual, around.residual, like=d).sqrt()
    g = around.pull(around.residual) / torch.where(length > 0, length, torch.ones_like(length))
    return d + along(factor, d) * pull(g)


def _push_of_step(
    schedule: Schedule, times: Sequence[float] | Tensor, zeta: float
) -> Callable[[float], float]:
    """t -> zeta/b of the step of the grid that begins at t."""
    grid = [float(t) for t in check_grid(schedule, times)][::-1]
    rounding = 1e-6 * (grid[-1] - grid[0])  # of times in float32

    def push(t: float) -> float:
        i = bisect_left(grid, t - rounding)
        if not 0 < i < len(grid) or grid[i] > t + rounding:
            raise ValueError(
                f"t = {t:g} begins no step of the {len(grid) - 1} steps that were given with zeta, "
                f"from {grid[-1]:g} to {grid[0]:g}: zeta is a push for each step of one grid. Give "
                "the times of this run, dps(denoiser, measurement, zeta=zeta, times=plan.times), "
                "and a solver that asks nowhere else, such as ddim"
            )
        alpha_ts, _ = schedule.transition(grid[i - 1], grid[i])
        alpha_s, sigma_s = schedule(grid[i - 1])
        return zeta / float(alpha_s * (1 - (alpha_ts * sigma_s / schedule.sigma(grid[i])) ** 2))

    return push
