r"""The reverse variance that is best for a given mean, one number a step.

Where x_s given x_t and x_0 is N(c_x x_t + c_d x_0, v_0 I) (`reverse`) and the model's mean is
c_x x_t + c_d d, the Gaussian nearest to the law of x_s given x_t, over all x_t, has the variance

    v = v_0 + c_d^2 E tr Cov[x_0 | x_t] / D,

known beforehand from one measured number a noise level, so that DDPM and DDIM with it are plans.
On isotropic Gaussian data, with the exact denoiser, steps of any length then keep every marginal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from ..form import number_of
from ..plan import Plan
from ..reverse import Step, reverse_step
from ..schedule import Schedule
from ..solvers.solver import made_for
from ..times import check_grid
from ..trace import Trace
from .moments import Moments


def analytic_variance(
    schedule: Schedule,
    step: Step,
    moments: Moments,
    kind: str = "error",
    data_range: tuple[float, float] | None = None,
) -> float:
    """v = v_0 + c_d^2 Var of one step; v_0 <= v, with Var at most ((b - a)/2)^2.

    A plain number: where times carry a gradient, the variance is held fixed.
    """
    bound = math.inf
    if data_range is not None:
        low, high = data_range
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"data_range = {data_range} must be (low, high), low < high")
        bound = ((high - low) / 2) ** 2
    lambda_t = number_of(schedule.half_log_snr(step.t))
    spread = moments.variance(lambda_t, kind, bound)
    return number_of(step.posterior) + number_of(step.on_d) ** 2 * spread


def analytic_dpm(
    schedule: Schedule,
    times: Sequence[float] | Tensor,
    moments: Moments,
    eta: float = 1.0,
    kind: str = "error",
    data_range: tuple[float, float] | None = None,
    denoise: bool = True,
    last_noise: float = math.inf,
) -> Plan:
    """DDPM or DDIM steps with the optimal isotropic variance.

    x_s = c_x x_t + c_d d + sqrt(v) z,    v = v_0 + c_d^2 Var,    Var = E|x_0 - d|^2/D

    with c_x, c_d, v_0 of DDIM(eta); eta = 1 is DDPM. Even at eta = 0 it draws noise.

    Bao, Li, Zhu & Zhang, "Analytic-DPM: an analytic estimate of the optimal reverse variance in
    diffusion probabilistic models", 2022, arXiv:2201.06503, theorem 1. Its bounds are kept: v is
    never below v_0, and with `data_range` Var is never above that of data in [a, b]. (Its code
    also clamps d to that range, which is a matter of the denoiser and is not done here.)

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0.
        moments: of the network that is sampled (`measure_moments`), on levels that cover the grid.
        eta: in [0, 1].
        kind: "error": Var = E|x_0 - d|^2/D, which is also right where the network is not, and at
            alpha = 0; "noise": rho^2 (1 - E|eps_hat|^2/D), as published, a small difference of
            measured numbers where there is much noise: give `data_range` with it.
        data_range: (a, b), where all data lie: (-1, 1) for pictures.
        denoise: leave out the noise of a step to sigma = 0, as published. With it the result has
            the law of the model, and on pictures visible noise.
        last_noise: largest standard deviation in the step before that one; in the paper that of
            two grey levels, sqrt(pi/2) 2 * 2/255 for pictures in [-1, 1].

    Raises:
        TypeError, ValueError: no moments, or not of all levels; eta outside [0, 1].
    """
    if not isinstance(moments, Moments):
        raise TypeError(
            f"moments = {moments!r}: give what measure_moments(denoiser, data, times) returns"
        )
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta} must lie in [0, 1]: 0 is DDIM, 1 is DDPM")
    if not last_noise > 0:
        raise ValueError(f"last_noise = {last_noise} must be positive")
    grid = check_grid(schedule, times)
    cleanest = [s for s in grid[1:] if schedule.sigma(s) > 0][-1:]
    trace = Trace(grid[0])
    x = trace.x
    for t, s in pairwise(grid):
        step = reverse_step(schedule, t, s, eta)
        x, d = trace.denoise(x, t)
        x = step.on_x * x + step.on_d * d
        if schedule.sigma(s) > 0 or not denoise:
            scale = math.sqrt(analytic_variance(schedule, step, moments, kind, data_range))
            scale = min(scale, last_noise) if s in cleanest else scale
            x = x + scale * trace.noise(t, s)
    text = f"analytic_dpm(eta={eta:g}, kind={kind})"
    return made_for(trace.end(x, grid[-1]), schedule, text)
