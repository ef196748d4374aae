"""What is compared: entries and grids, from what a user asks for or by enumeration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from ..names import look_up
from ..plan import Plan
from ..schedule import Schedule
from ..times import GRIDS
from .entries import Entry, options_of, twins, variants, written

DEFAULT_GRIDS = ("uniform", "quadratic", "uniform_lambda", "karras", "beta", "kl_optimal")
Solver = str | Entry | Callable[..., Plan]
Grid = str | Callable[..., Tensor]


def grids_to(
    schedule: Schedule, grids: Sequence[Grid] | None, t_end: float, notes: list[str]
) -> dict[str, Callable[[int], Tensor]]:
    """Name -> the grid of a number of steps, ending at t_end.

    By default those of `DEFAULT_GRIDS` that the schedule has; the others are noted.
    """
    found: dict[str, Callable[[int], Tensor]] = {}
    if isinstance(grids, str):
        grids = [grids]
    for grid in DEFAULT_GRIDS if grids is None else grids:
        if callable(grid):
            name, method, options = getattr(grid, "__name__", repr(grid)), grid, {}
        else:
            name, *words = grid.split() or [""]
            method = look_up("grid", name, GRIDS)
            options = options_of(name, method, words)
            name = grid
        if "t_end" in options:
            raise ValueError(f"grid {name!r}: all grids end together; give t_end once, beside them")
        if t_end != schedule.t_min:
            options["t_end"] = t_end
        try:
            end = float(method(schedule, 4, **options)[-1])
        except TypeError as error:
            raise ValueError(
                f"grid {name!r} takes no t_end, and the paths end at t = {t_end:g}: leave it out, "
                f"or give t_end={schedule.t_min:g}, where every grid ends"
            ) from error
        except ValueError as error:
            if grids is None:
                notes.append(f"Grid {name} is left out: {error}.")
                continue
            raise ValueError(f"grid {name!r}: {error}") from error
        if end != t_end:
            raise ValueError(f"grid {name!r} ends at t = {end:g}, not at t_end = {t_end:g}")
        found[name] = partial(method, schedule, **options)
    if not found:
        raise ValueError("no grid to compare on: give at least one, as grids=('uniform',)")
    return found


def entries_of(solvers: Sequence[Solver] | None, stochastic: bool, notes: list[str]) -> list[Entry]:
    """The entries asked for; by default every claimed variant of every solver."""
    found: list[Entry] = []
    if isinstance(solvers, str):
        solvers = [solvers]
    for solver in variants() if solvers is None else solvers:
        if isinstance(solver, Entry):
            found.append(solver)
        elif isinstance(solver, str):
            found += written(solver)
        elif callable(solver):
            found.append(Entry(getattr(solver, "__name__", repr(solver)), (), solver))
        else:
            raise TypeError(f"solver {solver!r}: give a name, or a function to a Plan")
    left_out = [] if stochastic else [entry.short for entry in found if entry.stochastic]
    if left_out:
        notes.append(
            "Stochastic solvers do not follow the probability-flow ODE, so an endpoint error says "
            f"nothing of them; left out: {', '.join(left_out)}."
        )
    kept = list(dict.fromkeys(entry for entry in found if entry.short not in left_out))
    if not kept:
        raise ValueError(
            "no solver is left to compare: endpoint errors are for deterministic ones; ask for the "
            "stochastic ones with stochastic=True"
        )
    return kept


def without_twins(
    entries: list[Entry], schedule: Schedule, times: Callable[[int], Tensor], notes: list[str]
) -> list[Entry]:
    """One entry for each map; which are the same is noted."""
    plainest = sorted(entries, key=lambda entry: len(entry.short.split()))
    same = twins(plainest, lambda entry, steps: [entry.plan(schedule, times(steps))])
    if same:
        pairs = ", ".join(f"{entry.short} = {first.short}" for entry, first in same.items())
        notes.append(f"Equal solvers are run once: {pairs}.")
    return [entry for entry in entries if entry not in same]
