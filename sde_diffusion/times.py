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

from .scalar import Scalar
from .schedule import Schedule


def uniform(
    schedule: Schedule, steps: int, t_start: float | None = None, t_end: float | None = None
) -> Tensor:
    """Even steps in t, from t_start (default t_max) to t_end (default t_min)."""
    t_start, t_end = _ends(schedule, steps, t_start, t_end)
    return torch.linspace(t_start, t_end, steps + 1, dtype=torch.float64)


def quadratic(
    schedule: Schedule, steps: int, t_start: float | None = None, t_end: float | None = None
) -> Tensor:
    """Even steps in sqrt(t - t_min): dense near the clean end.

    The last network call is at (t_start - t_min)/steps^2 above t_min: give t_end where that is
    below what the network was trained on.

    Song et al., "Denoising diffusion implicit models", 2021, arXiv:2010.02502, appendix D.2.
    """
    t_start, t_end = _ends(schedule, steps, t_start, t_end)
    clean = schedule.t_min
    first, last = math.sqrt(t_start - clean), math.sqrt(t_end - clean)
    roots = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    return _pin(clean + roots**2, t_start, t_end)


def uniform_lambda(
    schedule: Schedule, steps: int, t_start: float | None = None, t_end: float | None = None
) -> Tensor:
    """Even steps in the half-log-SNR lambda = log(alpha/sigma).

    Lu et al., "DPM-Solver", 2022, arXiv:2206.00927, section 3.3. Without t_end and where
    sigma(t_min) = 0: steps - 1 even steps to t_clean, then one to t_min.
    """
    return _even_in_noise(schedule, steps, t_start, t_end, math.log, np.exp)


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
    return _even_in_noise(schedule, steps, t_start, t_end, warp, unwarp)


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


def default(schedule: Schedule, steps: int) -> Tensor:
    """The grid taken when none is asked for: even in t, or in lambda where alpha is constant."""
    constant_alpha = schedule.alpha(schedule.t_max) == schedule.alpha(schedule.t_min)
    return (uniform_lambda if constant_alpha else uniform)(schedule, steps)


GRIDS: dict[str, Callable[..., Tensor]] = {
    grid.__name__: grid
    for grid in (default, uniform, quadratic, uniform_lambda, karras, leading, trailing, linspace)
}


def check_grid(schedule: Schedule, times: Sequence[float] | np.ndarray | Tensor) -> list[Scalar]:
    """The times as floats, or as 0-d float64 tensors if they carry a gradient.

    Raises:
        TypeError: if the times are integers.
        ValueError: if fewer than 2, not finite, not strictly decreasing, or out of range.
    """
    if isinstance(times, Tensor | np.ndarray) and "float" not in str(times.dtype):
        raise TypeError(
            f"times have dtype {times.dtype}; times are continuous (for integer timesteps of a "
            "discrete schedule use times.from_timesteps)"
        )
    tensor = _as_tensor(times)
    if tensor.ndim != 1 or len(tensor) < 2:
        raise ValueError(f"times have shape {tuple(tensor.shape)}; need (steps + 1,), steps >= 1")
    values = tensor.detach().to("cpu", torch.float64).tolist()
    slack = (1e-6 if tensor.dtype == torch.float32 else 1e-14) * (schedule.t_max - schedule.t_min)
    for i, t in enumerate(values):
        if schedule.t_min - slack <= t <= schedule.t_max + slack:  # an end, but for rounding
            t = values[i] = min(max(t, schedule.t_min), schedule.t_max)
        if not schedule.t_min <= t <= schedule.t_max:  # NaN and inf too
            raise ValueError(
                f"times[{i}] = {t:.9g} lies outside [{schedule.t_min:g}, {schedule.t_max:g}], "
                f"the range of {schedule!r}"
            )
        if i and not t < values[i - 1]:
            raise ValueError(
                f"times[{i}] = {t:.9g} follows {values[i - 1]:.9g}: times must decrease strictly, "
                "from noisy to clean"
            )
    if tensor.requires_grad:
        return list(tensor.to("cpu", torch.float64).unbind())
    return list(values)


def _as_tensor(times: Sequence[float] | np.ndarray | Tensor) -> Tensor:
    if isinstance(times, Tensor):
        return times
    if np.iterable(times) and any(
        isinstance(t, Tensor) for t in times
    ):  # 0-d tensors, perhaps with gradients
        return torch.stack([torch.as_tensor(t, dtype=torch.float64) for t in times])
    return torch.as_tensor(np.asarray(times, dtype=np.float64))


def _ends(
    schedule: Schedule, steps: int, t_start: float | None, t_end: float | None
) -> tuple[float, float]:
    check_steps(steps)
    start = schedule.t_max if t_start is None else float(t_start)
    end = schedule.t_min if t_end is None else float(t_end)
    check_grid(schedule, [start, end])
    return start, end


def check_steps(steps: int) -> None:
    """Raise unless `steps` is a positive integer."""
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer):
        raise TypeError(f"steps = {steps!r} must be an integer")
    if steps < 1:
        raise ValueError(f"steps = {steps}: at least 1 is needed")


def _even_in_noise(
    schedule: Schedule,
    steps: int,
    t_start: float | None,
    t_end: float | None,
    warp: Callable[[float], float],
    unwarp: Callable[[np.ndarray], np.ndarray],
) -> Tensor:
    """Even steps in warp(rho), rho = sigma/alpha, with the end rule of the module."""
    start, end = _ends(schedule, steps, t_start, t_end)
    jump = t_end is None and schedule.sigma(end) == 0
    if jump and steps == 1:
        return torch.tensor([start, end], dtype=torch.float64)
    last = schedule.t_clean if jump else end
    if jump and start <= last:
        raise ValueError(
            f"t_start = {start:g} is not above t_clean = {last:g}, where the even steps of this "
            "grid end: give t_end as well"
        )
    noise_start, noise_end = float(schedule.rho(start)), float(schedule.rho(last))
    if not math.isfinite(noise_start) or noise_end == 0:
        t, name = (start, "alpha") if noise_end else (last, "sigma")
        raise ValueError(
            f"{name} = 0 at t = {t:g}, where lambda is infinite: give t_start or t_end inside "
            f"({schedule.t_min:g}, {schedule.t_max:g}), as in "
            "times=lambda schedule, steps: karras(schedule, steps, t_start=...)"
        )
    even = np.linspace(warp(noise_start), warp(noise_end), steps if jump else steps + 1)
    inner = [float(schedule.time_of(-math.log(sigma))) for sigma in unwarp(even[1:-1])]
    points = [start, *inner, last, *([end] if jump else [])]
    return torch.tensor(points, dtype=torch.float64)


def _pin(grid: Tensor, t_start: float, t_end: float) -> Tensor:
    """Ends exact, whatever rounding the map between them made."""
    grid[0], grid[-1] = t_start, t_end
    return grid


def _timesteps(schedule: Schedule, steps: int, timesteps: int | None) -> int:
    n = schedule.timesteps if timesteps is None else timesteps
    check_steps(steps)
    if n is None:
        raise ValueError(
            f"{schedule!r} has no integer timesteps; say how many the network knows: timesteps=1000"
        )
    if steps > n:
        raise ValueError(f"steps = {steps} is more than the {n} timesteps of the discrete process")
    return int(n)
