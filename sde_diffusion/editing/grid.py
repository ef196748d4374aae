"""Grids with an end of one's own: the door of what starts, or ends, inside the schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from torch import Tensor

from ..form import number_of
from ..grid import check_grid, made_grid, time_of_rho
from ..names import look_up
from ..sample import DEFAULT_STEPS
from ..schedule import Schedule
from ..times import GRIDS

NOISIEST = 100.0  # sigma/alpha: of data of variance 1, x_t has 1e-4 of its variance from x_0

Grid = str | Callable[..., Tensor] | Sequence[float] | Tensor


def grid_with(
    schedule: Schedule, times: Grid, steps: int | None, **end: float
) -> Sequence[float] | Tensor:
    """The grid of a name or function with one end said: t_start=.. or t_end=..

    One that ends inside starts where alpha > 0 (`finite_start`), if it lets itself be told.

    Raises:
        ValueError: an unknown name; a grid that has no such end, as one of integer timesteps, or a
            list of times; a function that makes another end than it was told.
        TypeError: a function that does not take (schedule, steps, t_start or t_end).
    """
    make = look_up("grid", times, GRIDS) if isinstance(times, str) else times
    (option,) = end
    if not callable(make) or not _takes(make, option):
        told = getattr(make, "__name__", repr(make))
        told = "a list of times" if isinstance(make, Sequence | Tensor) else told
        lacks = {
            "t_start": "cannot start at any time; take one with t_start ('default', 'uniform', "
            "'karras', .., or a function of schedule, steps, t_start), or say where to start by "
            "last=k",
            "t_end": "cannot end inside, where sigma > 0; take one with t_end ('default', "
            "'uniform', 'karras', .., or a function of schedule, steps, t_end), or give the times",
        }
        raise ValueError(f"times = {told}: this grid {lacks[option]}")
    steps = DEFAULT_STEPS if steps is None else steps
    wanted = end[option]
    if option == "t_end" and _takes(make, "t_start"):
        end["t_start"] = finite_start(schedule)
    made = made_grid(make, schedule, steps, **end)
    found = number_of(check_grid(schedule, made)[0 if option == "t_start" else -1])
    if abs(found - wanted) > 1e-6 * (schedule.t_max - schedule.t_min):
        raise ValueError(
            f"times = {getattr(make, '__name__', repr(make))}: asked for {option} = {wanted:g}, "
            f"this grid has {found:g} there"
        )
    return made


def finite_start(schedule: Schedule) -> float:
    """t_max, or, where alpha is 0 there, the time at which sigma/alpha = `NOISIEST`."""
    return schedule.t_max if schedule.alpha(schedule.t_max) else time_of_rho(schedule, NOISIEST)


def _takes(make: Callable[..., Tensor], option: str) -> bool:
    """Whether a function can be told an option; of one that does not say what it takes, not."""
    try:
        parameters = inspect.signature(make).parameters
    except ValueError:  # written in another language
        return False
    return option in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
