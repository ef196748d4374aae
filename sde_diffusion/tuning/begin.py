"""What tuning begins with: a plan given, or the plan of a solver within an allowance of calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..comparison.entries import Entry, written
from ..few_steps import default_plan
from ..names import look_up
from ..plan import Plan
from ..schedule import Schedule
from ..times import GRIDS, check_grid
from .base import Base

Solver = str | os.PathLike[str] | Plan | Callable[..., Plan]
Times = str | Callable[..., Tensor] | Sequence[float] | Tensor


def begin(
    base: Solver,
    schedule: Schedule,
    nfe: int | None,
    times: Times = "default",
    t_start: float | None = None,
    t_end: float | None = None,
) -> Base:
    """The plan to be bettered; arguments as for `tune`.

    Raises:
        TypeError: something else than a plan, a path, a name or a function to a plan.
        ValueError: no allowance for a solver, or another than the plan's; what a plan has of its
            own; a solver without a plan of so few calls; a plan for another schedule.
    """
    if nfe is not None and (isinstance(nfe, bool) or not isinstance(nfe, int) or nfe < 1):
        raise ValueError(f"nfe = {nfe!r}: network calls a sample, a whole number of at least 1")
    if isinstance(base, os.PathLike) or (isinstance(base, str) and base.endswith(".json")):
        if not Path(base).is_file():
            raise FileNotFoundError(f"base = {os.fspath(base)!r}: there is no such file of a plan")
        base = Plan.load(base)
    if isinstance(base, Plan):
        return _of_plan(base, schedule, nfe, times, t_start, t_end)
    if isinstance(base, str):
        entry = written(base)[0]
    elif callable(base):
        entry = Entry(getattr(base, "__name__", repr(base)), (), base)
    else:
        raise TypeError(f"base = {base!r}: give a solver's name, a function to a Plan, or a Plan")
    if isinstance(times, str) or callable(times):
        plan, grid = _within(entry, schedule, nfe, times, t_start, t_end)
    else:
        if t_start is not None or t_end is not None:
            raise ValueError("times beside t_start or t_end: a list of times has its own ends")
        grid = [float(t) for t in check_grid(schedule, times)]
        plan = entry.plan(schedule, grid)
        if nfe is not None and nfe != plan.nfe:
            raise ValueError(
                f"nfe = {nfe}, but {entry.short} on these {len(grid)} times asks {plan.nfe} times: "
                "leave out one of them"
            )
    return Base(plan, schedule, tuple(grid), entry.function, dict(entry.options))


def default_sampler(base: Base) -> Plan | None:
    """The default of `sample`, with as many calls and the same ends; None if there is none."""
    plan = base.plan
    try:
        return default_plan(base.schedule, plan.nfe, *_ends(base))
    except ValueError:
        return None


def _ends(base: Base) -> tuple[float, float | None]:
    """t_start and t_end for a grid; None for t_min, which grids reach each in its own way."""
    first, last = base.t_start, base.t_end
    return first, None if last == base.schedule.t_min else last


def _of_plan(
    plan: Plan,
    schedule: Schedule,
    nfe: int | None,
    times: Times,
    t_start: float | None,
    t_end: float | None,
) -> Base:
    plan.check_schedule(schedule)
    if nfe is not None and nfe != plan.nfe:
        raise ValueError(f"nfe = {nfe}, but {plan.name} asks {plan.nfe} times: leave it out")
    if not (isinstance(times, str) and times == "default"):
        raise ValueError(f"times beside a Plan: {plan.name} has its own; leave them out")
    for name, given, own in (
        ("t_start", t_start, plan.times[0]),
        ("t_end", t_end, plan.times[-1]),
    ):
        if given is not None and abs(given - own) > 1e-12:
            raise ValueError(f"{name} = {given:g}, but {plan.name} has its own: {own:g}")
    return Base(plan, schedule, plan.times)


def _within(
    entry: Entry,
    schedule: Schedule,
    nfe: int | None,
    times: str | Callable[..., Tensor],
    t_start: float | None,
    t_end: float | None,
) -> tuple[Plan, list[float]]:
    """The plan of most steps with at most nfe calls, and its grid."""
    if nfe is None:
        raise ValueError(f"how many network calls may {entry.short} make? Give nfe, as nfe=5")
    method = look_up("grid", times, GRIDS) if isinstance(times, str) else times
    ends: dict[str, Any] = {"t_start": t_start, "t_end": t_end}
    ends = {name: t for name, t in ends.items() if t is not None}
    grids: list[list[float]] = []

    def grid(steps: int) -> list[float]:
        try:
            made = partial(method, **ends)(schedule, steps)
        except TypeError as error:
            raise ValueError(f"the grid takes no {' or '.join(ends)}: {error}") from error
        grids.append([float(t) for t in check_grid(schedule, made)])
        return grids[-1]

    plan = entry.plan_within(schedule, nfe, grid)
    if plan is None:
        raise ValueError(
            f"the fewest steps of {entry.short} take more than nfe = {nfe} network calls: allow "
            "more, or begin with another solver, as base='ddim'"
        )
    return plan, grids[-1]
