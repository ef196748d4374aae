"""What every grid of times is held to, and how its ends are found."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .scalar import Scalar
from .schedule import Schedule


def check_steps(steps: int) -> None:
    """Raise unless `steps` is a positive integer."""
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer):
        raise TypeError(f"steps = {steps!r} must be an integer")
    if steps < 1:
        raise ValueError(f"steps = {steps}: at least 1 is needed")


def check_grid(schedule: Schedule, times: Sequence[float] | np.ndarray | Tensor) -> list[Scalar]:
    """The times as floats, or as 0-d float64 tensors if they carry a gradient.

    A time at which alpha or sigma is 0 stays where it is: it is a float, and gets no gradient.
    (It lies at the end of the range, where sigma may begin like sqrt(t), with infinite slope.)

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
    if not tensor.requires_grad:
        return list(values)
    graded = tensor.to("cpu", torch.float64).unbind()
    pairs = zip(values, graded, strict=True)
    return [t if 0 in schedule(t) else moving for t, moving in pairs]


def made_grid(
    make: Callable[..., Any], schedule: Schedule, steps: int, **ends: float
) -> Sequence[float] | Tensor:
    """make(schedule, steps, t_start=.., ..), of a function that takes them; not checked itself.

    Raises:
        TypeError, ValueError: steps no positive integer; a function of other arguments.
    """
    check_steps(steps)
    try:
        inspect.signature(make).bind(schedule, steps, **ends)
    except TypeError as error:
        asked = ", ".join(("schedule", "steps", *ends))
        name = getattr(make, "__name__", repr(make))
        raise TypeError(f"times = {name}: give a function ({asked}) -> times ({error})") from error
    except ValueError:  # written in another language, it does not say
        pass
    made: Sequence[float] | Tensor = make(schedule, steps, **ends)
    return made


def ends(
    schedule: Schedule, steps: int, t_start: float | None, t_end: float | None
) -> tuple[float, float]:
    """(t_start, t_end), by default t_max and t_min; raises unless they are a grid of steps > 0."""
    check_steps(steps)
    start = schedule.t_max if t_start is None else float(t_start)
    end = schedule.t_min if t_end is None else float(t_end)
    check_grid(schedule, [start, end])
    return start, end


def pin(grid: Tensor, t_start: float, t_end: float) -> Tensor:
    """Ends exact, whatever rounding the map between them made."""
    grid[0], grid[-1] = t_start, t_end
    return grid


def time_of_rho(schedule: Schedule, rho: float) -> float:
    """The time at which sigma/alpha = rho > 0."""
    return float(schedule.time_of(-math.log(rho)))


def even_in_noise(
    schedule: Schedule,
    steps: int,
    t_start: float | None,
    t_end: float | None,
    warp: Callable[[float], float],
    unwarp: Callable[[np.ndarray], np.ndarray],
    power: float = 1.0,
) -> Tensor:
    """Even steps in warp(rho), rho = sigma/alpha, or in (warp(rho) - its last value)^(1/power).

    Without t_end and where sigma(t_min) = 0: steps - 1 such steps to t_clean, then one to t_min.
    """
    start, end = ends(schedule, steps, t_start, t_end)
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
        t, name, which = (start, "alpha", "t_start") if noise_end else (last, "sigma", "t_end")
        raise ValueError(
            f"{name} = 0 at t = {t:g}, where lambda is infinite: give {which} inside "
            f"({schedule.t_min:g}, {schedule.t_max:g}), as in "
            f"times.karras(schedule, steps, {which}=...)"
        )
    first, bottom = warp(noise_start), warp(noise_end)
    ramp = np.linspace(1.0, 0.0, steps if jump else steps + 1)[1:-1] ** power
    inner = [time_of_rho(schedule, float(rho)) for rho in unwarp(bottom + ramp * (first - bottom))]
    return torch.tensor([start, *inner, last, *([end] if jump else [])], dtype=torch.float64)


def _as_tensor(times: Sequence[float] | np.ndarray | Tensor) -> Tensor:
    if isinstance(times, Tensor):
        return times
    if np.iterable(times) and any(
        isinstance(t, Tensor) for t in times
    ):  # 0-d tensors, perhaps with gradients
        return torch.stack([torch.as_tensor(t, dtype=torch.float64) for t in times])
    try:
        return torch.as_tensor(np.asarray(times, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise TypeError(f"times = {times!r} must be numbers, noisy to clean ({error})") from error
