"""What is compared: every solver of the package with its meaningful options, and two ODE packages.

Solvers are found by enumeration of `SOLVERS` and of the variants in `CLAIMS`, so a new one takes
part without a line written here. Two entries whose plans are the same map (DPM-Solver-1 and
DDIM with eta = 0, say) are twins: the second is listed, but not run again.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sde_diffusion import CLAIMS, SOLVERS, Plan, Schedule, VPLinear
from sde_diffusion.adaptive import ADAPTIVE
from sde_diffusion.names import unknown
from sde_diffusion.times import GRIDS

END_GRIDS = ("uniform", "quadratic", "uniform_lambda", "karras")  # grids that take an end
BLACK_BOXES = {"torchdiffeq": "dopri5", "scipy": "RK45"}
_TWIN_STEPS = 6


@dataclass(frozen=True)
class Entry:
    """A solver with its options.

    Attributes:
        solver: name in `SOLVERS`, or in `ADAPTIVE`.
        options: of the solver, all of them, defaults too.
    """

    solver: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its own steps, by a tolerance."""
        return self.solver in ADAPTIVE

    @property
    def label(self) -> str:
        """As a person names it: "ddim eta=0.5"."""
        if self.adaptive:
            return f"{self.solver} {dict(self.options)['method']}"
        return " ".join([self.solver, *(_write(k, v) for k, v in self.options)])

    def plan(self, schedule: Schedule, steps: int, grid: str, t_end: float) -> Plan:
        """Its table for a number of steps, from the noisy end of the schedule to t_end."""
        times = GRIDS[grid](schedule, steps, t_end=t_end)
        return SOLVERS[self.solver](schedule, times, **dict(self.options))

    def plan_within(self, schedule: Schedule, nfe: int, grid: str, t_end: float) -> Plan | None:
        """The plan of most steps that asks the network at most `nfe` times; None if there is none.

        That is nfe // k steps for k evaluations a step, and one more where the last step, to
        sigma = 0, is a cheaper one.
        """
        steps = nfe // self.evaluations
        for n in (steps + 1, steps):
            if n and (plan := self.plan(schedule, n, grid, t_end)).nfe <= nfe:
                return plan
        return None

    @cached_property
    def evaluations(self) -> int:
        """Network evaluations a step, k."""
        plans = [self.plan(VPLinear(), n, "uniform", 0.1) for n in (4, 5)]
        return plans[1].nfe - plans[0].nfe

    @cached_property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return not self.adaptive and self.plan(VPLinear(), 2, "uniform", 0.1).stochastic


def plan_entries(names: Iterable[str] | None = None) -> list[Entry]:
    """Every solver of the package with its defaults and with each of its variants.

    Raises:
        ValueError: an unknown name (with the nearest right one).
    """
    chosen = None if names is None else set(names)
    for name in chosen or ():
        if name not in SOLVERS and name not in BLACK_BOXES:
            raise ValueError(unknown("solver", name, [*SOLVERS, *BLACK_BOXES]))
    entries = []
    for name, method in SOLVERS.items():
        if chosen is None or name in chosen:
            parameters = list(inspect.signature(method).parameters.values())[2:]
            defaults = {p.name: p.default for p in parameters}
            for variant in (claim.options for claim in CLAIMS[name]):
                entries.append(Entry(name, tuple({**defaults, **variant}.items())))
    return entries


def adaptive_entries(names: Iterable[str] | None = None) -> list[Entry]:
    """torchdiffeq's dopri5 and scipy's RK45."""
    chosen = set(BLACK_BOXES if names is None else names)
    return [Entry(n, (("method", m),)) for n, m in BLACK_BOXES.items() if n in chosen]


def twins(entries: list[Entry], schedule: Schedule, grid: str) -> dict[Entry, Entry]:
    """Entry -> the earlier entry that is the same map, on grids to t_clean and to t_min."""
    ends = (schedule.t_clean, schedule.t_min)
    plans: dict[Entry, list[Plan]] = {}
    found: dict[Entry, Entry] = {}
    for entry in entries:
        try:
            own = [entry.plan(schedule, _TWIN_STEPS, grid, end) for end in ends]
        except ValueError:  # singular at an end: its own cells will say so
            continue
        same = (e for e, ps in plans.items() if all(p.equals(q) for p, q in zip(ps, own)))  # noqa: B905
        first = next(same, None)
        if first is None:
            plans[entry] = own
        else:
            found[entry] = first
    return found


def _write(name: str, value: Any) -> str:
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
