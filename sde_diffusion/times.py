r"""Time grids: float64, from noisy to clean, one more point than steps.

A solver steps through t_0 > t_1 > ... > t_N. A grid is a list of times and nothing else: alpha,
sigma, lambda and a network's label all follow from t, so they cannot disagree.

Grids in which the clean end sigma = 0 lies at infinity (uniform in lambda) or is reached
otherwise only by a rounding (Karras) take N - 1 steps to `schedule.t_clean` and a last one to
t_min, as in Karras et al. (2022), arXiv:2206.00364, eq. 5; a given `t_end` is reached in N even
steps instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .grid import check_grid, check_steps, ends, even_in_noise, pin, time_of_rho
from .schedule import Schedule
from .spacings import (
    align_your_steps,
    beta,
    from_sigmas,
    kl_optimal,
    linear_quadratic,
    polyexponential,
    sgm_uniform,
)


def uniform(
    schedule: Schedule, steps: int, t_start: float | None = None, t_end: float | None = None
) -> Tensor:
    """Even steps in t, from t_start (default t_max) to t_end (default t_min)."""
    t_start, t_end = ends(schedule, steps, t_start, t_end)
    return torch.linspace(t_start, t_end, steps + 1, dtype=torch.float64)


def quadratic(
    schedule: Schedule, steps: int, t_start: float | None = None, t_end: float | None = None
) -> Tensor:
    """Even steps in sqrt(t - t_min): dense near the clean end.

    The last network call is at (t_start - t_min)/steps^2 above t_min: give t_end where that is
    below what the network was trained on.

    Song et al., "Denoising diffusion implicit models", 2021, arXiv:2010.02502, appendix D.2.
    """
    t_start, t_end = ends(schedule, steps, t_start, t_end)
    clean = schedule.t_min
    first, last = math.sqrt(t_start - clean), math.sqrt(t_end - clean)
    roots = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    return pin(clean + roots**2, t_start, t_end)


def uniform_lambda(
    schedule: Schedule, steps: int, t_start: float | None = None, t_end: float | None = None
) -> Tensor:
    """Even steps in the half-log-SNR lambda = log(alpha/sigma).

    Lu et al., "DPM-Solver", 2022, arXiv:2206.00927, section 3.3. Without t_end and where
    sigma(t_min) = 0: steps - 1 even steps to t_clean, then one to t_min.
    """
    return even_in_noise(schedule, steps, t_start, t_end, math.log, np.exp)


def karras(
    schedule: Schedule,
    steps: int,
    t_start: float | None = None,
    t_end: float | None = None,
    rho: float = 7.0,
) -> Tensor:
    """Even steps in sigma^(1/rho), sigma the noise-to-signal ratio sigma_t / alpha_t.

    Karras et al. (2022), arXiv:2206.00364, eq. 5; rho -> infinity is `uniform_lambda`. Without
    t_end and where sigma(t_min) = 0: steps - 1 even steps to t_clean, then one to t_min.
    """
    if not (math.isfinite(rho) and rho > 0):
        raise ValueError(f"rho = {rho}: the exponent must be positive and finite (7)")
    warp, unwarp = lambda sigma: sigma ** (1 / rho), lambda u: u**rho
    return even_in_noise(schedule, steps, t_start, t_end, warp, unwarp)


def leading(
    schedule: Schedule, steps: int, timesteps: int | None = None, offset: int = 0
) -> Tensor:
    """Integer timesteps 0, r, 2r, ... + offset with r = N // steps, then t_min.

    The spacing of DDIM's code and of Stable Diffusion (offset 1). It does not reach t_max: Lin et
    al. (2023), arXiv:2305.08891, table 2.
    """
    n = _timesteps(schedule, steps, timesteps)
    return from_timesteps(schedule, np.arange(steps)[::-1] * (n // steps) + offset, n)


def trailing(schedule: Schedule, steps: int, timesteps: int | None = None) -> Tensor:
    """Integer timesteps N - 1, N - 1 - r, ... with r = N / steps (rounded), then t_min.

    Lin et al. (2023), arXiv:2305.08891, table 2.
    """
    n = _timesteps(schedule, steps, timesteps)
    return from_timesteps(schedule, np.round(n - np.arange(steps) * (n / steps)) - 1, n)


def linspace(schedule: Schedule, steps: int, timesteps: int | None = None) -> Tensor:
    """Integer timesteps evenly from N - 1 to 0 (rounded), then t_min.

    Nichol & Dhariwal, "Improved DDPM", 2021, arXiv:2102.09672, section 4.
    """
    n = _timesteps(schedule, steps, timesteps)
    return from_timesteps(schedule, np.round(np.linspace(n - 1, 0, steps)), n)


def from_timesteps(
    schedule: Schedule, labels: Sequence[int] | np.ndarray, timesteps: int | None = None
) -> Tensor:
    """The grid through given integer timesteps k (decreasing), ending at t_min.

    Timestep k of N is the time t_min + (t_max - t_min) (k + 1)/N.

    Raises:
        ValueError: if a timestep is repeated, out of order or outside 0 .. N-1.
    """
    n = _timesteps(schedule, 1, timesteps)
    table = np.asarray(labels, dtype=np.float64)
    if not len(table) or not ((table >= 0) & (table < n) & (table == np.round(table))).all():
        raise ValueError(f"timesteps {labels} must be integers from 0 to {n - 1}")
    if not (np.diff(table) < 0).all():
        raise ValueError(
            f"timesteps {table.astype(int).tolist()} must decrease strictly (at most {n} steps)"
        )
    grid = schedule.t_min + (schedule.t_max - schedule.t_min) * ((table + 1) / n)
    grid[table == n - 1] = schedule.t_max  # to the last bit
    return torch.tensor([*grid.tolist(), schedule.t_min], dtype=torch.float64)


def default(
    schedule: Schedule, steps: int, t_start: float | None = None, t_end: float | None = None
) -> Tensor:
    """The grid taken when none is asked for: even steps in phi^(2/3), phi = sigma/(alpha + sigma).

    phi is the time of flow matching, so that these are the same noise levels sigma/alpha on every
    schedule, up to its ends. The power lies between even steps in phi, best for data without fine
    detail, and phi^(1/2), best for the finest: measured on closed-form data, in the benchmark page
    ("The default"). Where sigma(t_min) = 0 and the last network call would fall below t_clean,
    steps - 1 even steps go to t_clean and one to t_min.
    """
    start, end = ends(schedule, steps, t_start, t_end)

    def even_in(t: float) -> float:
        alpha_t, sigma_t = (float(v) for v in schedule(t))
        return (sigma_t / (alpha_t + sigma_t)) ** (2 / 3)

    u = np.linspace(even_in(start), even_in(end), steps + 1)[1:-1]
    clean = schedule.t_clean
    below = t_end is None and schedule.sigma(end) == 0 and end < clean < start
    if below and steps > 1 and u[-1] < even_in(clean):
        u = np.linspace(even_in(start), even_in(clean), steps)[1:-1]
        last = [clean, end]
    else:
        last = [end]
    phi = u**1.5
    inner = [time_of_rho(schedule, float(rho)) for rho in phi / (1 - phi)]
    return torch.tensor([start, *inner, *last], dtype=torch.float64)


__all__ = [
    "GRIDS",
    "align_your_steps",
    "beta",
    "check_grid",
    "check_steps",
    "default",
    "from_sigmas",
    "from_timesteps",
    "karras",
    "kl_optimal",
    "leading",
    "linear_quadratic",
    "linspace",
    "polyexponential",
    "quadratic",
    "sgm_uniform",
    "trailing",
    "uniform",
    "uniform_lambda",
]

GRIDS: dict[str, Callable[..., Tensor]] = {
    grid.__name__: grid
    for grid in (
        default,
        *(uniform, quadratic, uniform_lambda, karras, leading, trailing, linspace),
        *(polyexponential, beta, linear_quadratic, sgm_uniform, kl_optimal, align_your_steps),
    )
}


def _timesteps(schedule: Schedule, steps: int, timesteps: int | None) -> int:
    n = schedule.timesteps if timesteps is None else timesteps
    check_steps(steps)
    if n is None:
        raise ValueError(
            f"{schedule!r} has no integer timesteps; say how many the network knows, as "
            "leading(schedule, steps, timesteps=1000)"
        )
    if steps > n:
        raise ValueError(f"steps = {steps} is more than the {n} timesteps of the discrete process")
    return int(n)
