"""What is compared: every solver of the package with its claimed options, and two ODE packages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from sde_diffusion import SOLVERS, Plan, Schedule, entries
from sde_diffusion.adaptive import ADAPTIVE
from sde_diffusion.names import unknown
from sde_diffusion.times import GRIDS

END_GRIDS = ("uniform", "quadratic", "uniform_lambda", "karras")  # grids that take an end
BLACK_BOXES = {"torchdiffeq": "dopri5", "scipy": "RK45"}


@dataclass(frozen=True)
class Entry(entries.Entry):
    """A solver of the package, or one of an ODE package, which chooses its own steps."""

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its own steps, by a tolerance."""
        return self.solver in ADAPTIVE

    @property
    def label(self) -> str:
        """As a person names it: "ddim eta=0.5"."""
        return f"{self.solver} {dict(self.options)['method']}" if self.adaptive else super().label

    @cached_property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return not self.adaptive and self._small_plan(2).stochastic

    def on_grid(self, schedule: Schedule, nfe: int, grid: str, t_end: float) -> Plan | None:
        """The plan of most steps within nfe, on a named grid to t_end."""
        return self.plan_within(schedule, nfe, lambda n: GRIDS[grid](schedule, n, t_end=t_end))


def plan_entries(names: Iterable[str] | None = None) -> list[Entry]:
    """Every solver of the package with its defaults and with each of its variants.

    Raises:
        ValueError: an unknown name (with the nearest right one).
    """
    chosen = list(SOLVERS if names is None else names)
    for name in chosen:
        if name not in SOLVERS and name not in BLACK_BOXES:
            raise ValueError(unknown("solver", name, [*SOLVERS, *BLACK_BOXES]))
    found = entries.variants(name for name in chosen if name in SOLVERS)
    return [Entry(entry.solver, entry.options) for entry in found]


def adaptive_entries(names: Iterable[str] | None = None) -> list[Entry]:
    """torchdiffeq's dopri5 and scipy's RK45."""
    chosen = set(BLACK_BOXES if names is None else names)
    return [Entry(n, (("method", m),)) for n, m in BLACK_BOXES.items() if n in chosen]


def twins(found: list[Entry], schedule: Schedule, grid: str) -> dict[Entry, Entry]:
    """Entry -> the earlier entry that is the same map, on grids to t_clean and to t_min."""

    def plans(entry: Entry, steps: int) -> list[Plan]:
        ends = (schedule.t_clean, schedule.t_min)
        return [entry.plan(schedule, GRIDS[grid](schedule, steps, t_end=end)) for end in ends]

    return entries.twins(found, plans)
