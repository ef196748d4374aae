"""What is compared: entries and grids, from what a user asks for or by enumeration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from ..form import number_of
from ..names import look_up
from ..plan import Plan
from ..schedule import Schedule
from ..times import GRIDS
from .entries import Entry, options_of, twins, variants, written

DEFAULT_GRIDS = ("uniform", "quadratic", "uniform_lambda", "karras", "beta", "kl_optimal")
DEFAULT = "default"  # in place of a solver's name: what `sample` takes where nothing is named
Solver = str | Entry | Callable[..., Plan]
Grid = str | Callable[..., Tensor]
Finished = Plan | str | os.PathLike[str]


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


def default_among(
    solvers: Sequence[Solver] | None,
) -> tuple[tuple[str, ...], Sequence[Solver] | None]:
    """("default",) if it is asked for, by name or by naming no solver, or (); and the others."""
    if solvers is None:
        return (DEFAULT,), None
    listed = [solvers] if isinstance(solvers, str) else list(solvers)
    rest = [s for s in listed if not (isinstance(s, str) and s.strip() == DEFAULT)]
    return ((DEFAULT,) if len(rest) < len(listed) else ()), rest


def entries_of(solvers: Sequence[Solver] | None, stochastic: bool, notes: list[str]) -> list[Entry]:
    """The entries asked for; by default every claimed variant of every solver."""
    found: list[Entry] = []
    if isinstance(solvers, str):
        solvers = [solvers]
    for solver in variants() if solvers is None else solvers:
        if isinstance(solver, Entry):
            found.append(solver)
        elif isinstance(solver, Plan) or (isinstance(solver, str) and solver.endswith(".json")):
            what = repr(solver) if isinstance(solver, str) else solver.name
            raise TypeError(
                f"solver {what}: a finished plan has its own times and number of network calls; "
                "give it beside the solvers, as plans=[...] (in the shell: --plans)"
            )
        elif isinstance(solver, str):
            found += written(solver)
        elif callable(solver):
            found.append(Entry(getattr(solver, "__name__", repr(solver)), (), solver))
        else:
            raise TypeError(f"solver {solver!r}: give a name, or a function to a Plan")
    if not found:
        raise ValueError("no solver to compare: give at least one, as solvers=('ddim',)")
    left_out = [] if stochastic else [entry.short for entry in found if entry.stochastic]
    _note_left_out(left_out, notes)
    kept = list(dict.fromkeys(entry for entry in found if entry.short not in left_out))
    if not kept:
        raise ValueError(
            "no solver is left to compare: endpoint errors are for deterministic ones; ask for the "
            "stochastic ones with stochastic=True"
        )
    return kept


def plans_of(
    plans: Finished | Sequence[Finished], stochastic: bool, notes: list[str]
) -> dict[str, Plan]:
    """Name -> plan: the name of its file, without the folder, or the plan's own.

    Raises:
        TypeError: something that is no plan.
        ValueError: files that are damaged, two plans of one name.
        FileNotFoundError: no such file.
    """
    found: dict[str, Plan] = {}
    if isinstance(plans, Plan | str | os.PathLike):
        plans = [plans]
    for given in plans:
        if isinstance(given, Plan):
            name, plan = given.name, given
        elif isinstance(given, str | os.PathLike):
            name, plan = Path(given).name, Plan.load(given)
        else:
            raise TypeError(f"plans: {given!r} is neither a Plan nor the path of one")
        if name == DEFAULT:
            raise ValueError(
                f"plans: one is called {name!r}, as the default of `sample` is in the tables; "
                "give it another name"
            )
        if name in found:
            raise ValueError(
                f"plans: two are called {name!r}, and the tables could not tell them apart; save "
                "them in files of different names, or give dataclasses.replace(plan, name=...)"
            )
        found[name] = plan
    left_out = [] if stochastic else [name for name, plan in found.items() if plan.stochastic]
    _note_left_out(left_out, notes)
    return {name: plan for name, plan in found.items() if name not in left_out}


def _note_left_out(names: Sequence[str], notes: list[str]) -> None:
    if names:
        notes.append(
            "Stochastic solvers do not follow the probability-flow ODE, so an endpoint error says "
            f"nothing of them; left out: {', '.join(names)}."
        )


def the_end(plans: Mapping[str, Plan], schedule: Schedule) -> float:
    """Where paths end if nobody says: where the plans do; t_clean where sigma(t_min) = 0."""
    ends = {number_of(plan.rows[-1].t) for plan in plans.values()}
    if len(ends) == 1:
        return ends.pop()
    return schedule.t_clean if schedule.sigma(schedule.t_min) == 0 else schedule.t_min


def check_plans(
    plans: Mapping[str, Plan], schedule: Schedule, allowed: Sequence[int], t_end: float
) -> None:
    """ValueError unless every plan takes the paths of the comparison, at one of its NFEs."""
    for name, plan in plans.items():
        plan.check_schedule(schedule)
        if plan.nfe not in allowed:
            raise ValueError(
                f"plan {name!r} makes {plan.nfe} network calls, and nothing else is compared at "
                f"that: nfe = {tuple(allowed)}; add {plan.nfe}"
            )
        own = (number_of(plan.rows[0].t), number_of(plan.rows[-1].t))
        if own != (schedule.t_max, t_end):
            raise ValueError(
                f"plan {name!r} goes from t = {own[0]:g} to {own[1]:g}, and the paths of this "
                f"comparison from {schedule.t_max:g} to {t_end:g}: all must have the same ends; "
                "say where with t_end, and compare plans of other ends by themselves"
            )


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
