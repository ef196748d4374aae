"""Grids with an end of one's own: the door of what starts, or ends, inside the schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from torch import Tensor

from ..names import look_up
from ..sample import DEFAULT_STEPS
from ..schedule import Schedule
from ..times import GRIDS, check_steps

Grid = str | Callable[..., Tensor] | Sequence[float] | Tensor


def grid_with(schedule: Schedule, times: Grid, steps: int | None, **end: float) -> Tensor:
    """The grid of a name or function with one end said: t_start=.. or t_end=..

    Raises:
        ValueError: an unknown name; a grid that has no such end, as one of integer timesteps, or a
            list of times.
    """
    make = look_up("grid", times, GRIDS) if isinstance(times, str) else times
    (option,) = end
    if not callable(make) or option not in inspect.signature(make).parameters:
        name = getattr(make, "__name__", repr(make)) if callable(make) else "a list of times"
        lacks = {
            "t_start": "cannot start at any time; take one with t_start ('default', 'uniform', "
            "'karras', ..), or say where to start by last=k",
            "t_end": "cannot end inside, where sigma > 0; take one with t_end ('default', "
            "'uniform', 'karras', ..), or give the times",
        }
        raise ValueError(f"times = {name}: this grid {lacks[option]}")
    steps = DEFAULT_STEPS if steps is None else steps
    check_steps(steps)
    return make(schedule, steps, **end)
