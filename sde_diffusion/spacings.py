r"""Time grids of other papers and toolkits; `times` lists them beside its own.

They keep the conventions of `times`: steps + 1 decreasing float64 times that start at t_max and
end at t_min or at a given t_end, whatever the schedule. A "sigma" of these papers is the
noise-to-signal ratio rho = sigma_t/alpha_t, except for flow matching, where it is the time.

Grids of other names that are one of `times` already: "exponential" (k-diffusion), "lu lambdas"
(diffusers) and "logSNR" (the code of DPM-Solver) are `uniform_lambda`; the first two with its
own end rule where t_clean is their sigma_min, the last with t_end = 1e-3 (and no step to 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from .grid import ends, even_in_noise, pin, time_of_rho
from .names import look_up
from .schedule import Schedule

# Noise levels sigma/alpha of 10 steps: Sabour et al. 2024, arXiv:2404.14507, table 3.
ALIGNED_STEPS = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "deepfloyd": (160.41, 8.081, 3.315, 1.885, 1.207, 0.785, 0.553, 0.293, 0.186, 0.030, 0.006),
    "svd": (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}
_HALF_A_DIGIT = 5.001e-4  # the table has three decimals


def polyexponential(
    schedule: Schedule,
    steps: int,
    t_start: float | None = None,
    t_end: float | None = None,
    power: float = 1.0,
) -> Tensor:
    """log(sigma/alpha) falls as (1 - i/n)^power from its first value to its last.

    k-diffusion's grid of this name (Crowson 2022, there `rho`); power = 1 is its "exponential"
    grid and `uniform_lambda`. Without t_end and where sigma(t_min) = 0: steps - 1 such steps to
    t_clean, then one to t_min.

    Args:
        power: > 0; above 1 the steps in lambda shrink towards the clean end.
    """
    _check_positive("power", power)
    return even_in_noise(schedule, steps, t_start, t_end, math.log, np.exp, power)


def beta(
    schedule: Schedule,
    steps: int,
    t_start: float | None = None,
    t_end: float | None = None,
    a: float = 0.6,
    b: float = 0.6,
) -> Tensor:
    """Quantiles of a Beta(a, b) law in t: t_i = t_end + (t_start - t_end) F^{-1}(1 - i/N).

    Dense at both ends for a, b < 1; a = b = 1 is `uniform`. The quantiles are taken of the time,
    as in ComfyUI; diffusers takes them of sigma/alpha instead, which is another grid.

    Lee et al., "Beta sampling is all you need", 2024, arXiv:2407.12173.

    Args:
        a, b: parameters of the law, > 0; the paper's alpha and beta.
    """
    _check_positive("a", a)
    _check_positive("b", b)
    start, end = ends(schedule, steps, t_start, t_end)
    levels = betaincinv(a, b, np.linspace(1.0, 0.0, steps + 1))
    return pin(torch.from_numpy(end + (start - end) * levels), start, end)


def linear_quadratic(
    schedule: Schedule,
    steps: int,
    t_start: float | None = None,
    t_end: float | None = None,
    threshold: float = 0.025,
    linear_steps: int | None = None,
) -> Tensor:
    """Small even steps in t, then steps that grow evenly; the two meet with one slope.

    After step i of N, with L even steps down to the threshold p, this part of the way is done:

        u_i = p i/L + (1 - p N/L) (max(i - L, 0) / (N - L))^2.

    Polyak et al., "Movie Gen", 2024, arXiv:2410.13720, section on inference, in the closed form
    of the Mochi code. Published for flow matching, whose sigma is t.

    Args:
        threshold: p, the part of the way that the even steps go; in (0, L/N].
        linear_steps: L, from 1 to N - 1; default N // 2.

    Raises:
        ValueError: if `linear_steps` or `threshold` is out of its range.
    """
    start, end = ends(schedule, steps, t_start, t_end)
    if steps == 1:
        return torch.tensor([start, end], dtype=torch.float64)
    even = int(steps) // 2 if linear_steps is None else linear_steps
    if isinstance(even, bool) or not isinstance(even, int) or not 1 <= even < steps:
        raise ValueError(
            f"linear_steps = {even} must be a whole number from 1 to {steps - 1}, one below the "
            f"{steps} steps"
        )
    if not 0 < threshold <= even / steps:
        raise ValueError(
            f"threshold = {threshold} must lie in (0, {even / steps:g}], linear_steps / steps: "
            "beyond it the even steps are longer than those of a uniform grid"
        )
    i = np.arange(steps + 1)
    rest = np.maximum(i - even, 0) / (steps - even)
    done = threshold * i / even + (1 - threshold * steps / even) * rest**2
    return pin(torch.from_numpy(start + (end - start) * done), start, end)


def sgm_uniform(
    schedule: Schedule, steps: int, t_start: float | None = None, t_end: float | None = None
) -> Tensor:
    """Even steps in t from t_start towards t_clean; the last goes on to t_min instead.

    The grid of this name in ComfyUI, there from the last timestep to the first, its time t_clean.
    Where t_end is given or sigma(t_min) > 0 it is `uniform`.
    """
    start, end = ends(schedule, steps, t_start, t_end)
    jump = t_end is None and schedule.sigma(end) == 0
    last = schedule.t_clean if jump else end
    if start <= last:
        raise ValueError(f"t_start = {start:g} is not above t_clean = {last:g}: give t_end as well")
    return pin(torch.linspace(start, last, steps + 1, dtype=torch.float64), start, end)


def kl_optimal(
    schedule: Schedule,
    steps: int,
    t_start: float | None = None,
    t_end: float | None = None,
    c: float = 1.0,
) -> Tensor:
    """Even steps in the angle arctan(sigma/(alpha c)): optimal for DDIM on data N(0, c^2 I).

    Of all grids with these ends it has the smallest Kullback-Leibler divergence between DDIM's
    law and the exact one: Sabour et al., "Align your steps", 2024, arXiv:2404.14507, theorem 3.1.
    It reaches sigma = 0 and alpha = 0 in even steps.

    Args:
        c: standard deviation of the data, > 0.
    """
    _check_positive("c", c)
    start, end = ends(schedule, steps, t_start, t_end)
    scales = [(float(schedule.alpha(t)), float(schedule.sigma(t))) for t in (start, end)]
    first, last = (math.atan2(sigma, c * alpha) for alpha, sigma in scales)
    angles = np.linspace(first, last, steps + 1)[1:-1]
    inner = [time_of_rho(schedule, c * math.tan(angle)) for angle in angles]
    return torch.tensor([start, *inner, end], dtype=torch.float64)


def align_your_steps(schedule: Schedule, steps: int, model: str = "sd15") -> Tensor:
    """Noise levels optimised for one model, interpolated evenly in log(sigma/alpha).

    Sabour et al., "Align your steps", 2024, arXiv:2404.14507, table 3 (10 steps); for other
    numbers of steps the table is taken as a piecewise log-linear function of i/N (section 3.3).
    Where sigma(t_min) = 0 the last level is replaced by 0, as in diffusers and ComfyUI.

    Args:
        schedule: that of the model (`ddpm_scaled_linear()` for "sd15" and "sdxl").
        model: "sd15", "sdxl", "deepfloyd" (stage 1) or "svd" (EDM with sigma_max = 700).

    Raises:
        ValueError: for an unknown model, or a schedule that does not have these noise levels.
    """
    table = np.log(look_up("model", model, ALIGNED_STEPS))
    ends(schedule, steps, None, None)
    levels = np.exp(
        np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, len(table)), table)
    ).tolist()
    highest = float(schedule.rho(schedule.t_max))
    if highest < levels[0] <= highest + _HALF_A_DIGIT:
        levels[0] = highest
    if schedule.sigma(schedule.t_min) == 0:
        levels[-1] = 0.0
    return from_sigmas(schedule, levels)


def from_sigmas(schedule: Schedule, sigmas: Sequence[float] | np.ndarray | Tensor) -> Tensor:
    """The grid through given noise levels rho = sigma_t/alpha_t, the sigma of EDM and k-diffusion.

    For lists of flow matching's own sigma, which is its time, pass them as times.

    Args:
        schedule: says at which time a level is reached.
        sigmas: strictly decreasing, at least two; the last may be 0 where sigma(t_min) = 0.

    Raises:
        ValueError: if a level is negative, not finite, repeated, rising, or not in the schedule.
    """
    table = torch.as_tensor(sigmas, dtype=torch.float64).detach().cpu().numpy()
    if table.ndim != 1 or len(table) < 2:
        raise ValueError(f"sigmas have shape {table.shape}; need (steps + 1,), steps >= 1")
    highest, lowest = (float(schedule.rho(t)) for t in (schedule.t_max, schedule.t_min))
    points: list[float] = []
    for i, rho in enumerate(table.tolist()):
        if i and not rho < table[i - 1]:
            raise ValueError(
                f"sigmas[{i}] = {rho:.6g} follows {table[i - 1]:.6g}: noise levels must decrease "
                "strictly; leave out the repeated ones, and write them from noisy to clean"
            )
        rho = _round_to(rho, highest, lowest)
        if not lowest <= rho <= highest:
            raise ValueError(
                f"sigmas[{i}] = {rho:.6g} lies outside [{lowest:.6g}, {highest:.6g}], the values "
                f"of sigma/alpha of {schedule!r}: leave it out, or take the schedule of the model "
                "that the list was made for"
            )
        points.append(_time(schedule, rho, highest, lowest))
    return torch.tensor(points, dtype=torch.float64)


def _time(schedule: Schedule, rho: float, highest: float, lowest: float) -> float:
    if rho in (highest, lowest):
        return schedule.t_max if rho == highest else schedule.t_min
    return time_of_rho(schedule, rho)


def _round_to(rho: float, *levels: float) -> float:
    """The end that rho is but for the rounding of float32."""
    return next((end for end in levels if math.isclose(rho, end, rel_tol=3e-7)), rho)


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} = {value} must be positive and finite")
