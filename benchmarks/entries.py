"""What is compared: solvers of the package with their options, and two ODE packages.

`MAIN` are those of the main job. Any other can be asked for by name, with every set of options that
it makes a claim for, and so can "all".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from sde_diffusion import SOLVERS, Plan, Schedule
from sde_diffusion.adaptive import ADAPTIVE
from sde_diffusion.comparison import entries
from sde_diffusion.names import unknown
from sde_diffusion.times import GRIDS

END_GRIDS = ("uniform", "quadratic", "uniform_lambda", "karras")  # grids that take an end
BLACK_BOXES = {"torchdiffeq": "dopri5", "scipy": "RK45"}
MAIN = (
    "ddim eta=0.0",
    "ddim eta=0.5",
    "ddim eta=1.0",
    "ddpm variance=beta",
    "ddpm variance=posterior",
    "dpm_solver_1",
    "dpm_solver_pp_2m",
    "deis order=3",
    "euler_maruyama",
    "euler variable=t",
    "euler variable=rho",
    "heun variable=t",
    "heun variable=rho",
    "midpoint variable=t",
    "midpoint variable=rho",
    "rk4 variable=t",
    "rk4 variable=rho",
)


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
        return not self.adaptive and self._small_plan(8).stochastic

    def on_grid(self, schedule: Schedule, nfe: int, grid: str, t_end: float) -> Plan | None:
        """The plan of most steps within nfe, on a named grid to t_end."""
        return self.plan_within(schedule, nfe, lambda n: GRIDS[grid](schedule, n, t_end=t_end))


def plan_entries(names: Iterable[str] | None = None) -> list[Entry]:
    """The solvers of the main job; those named, with every claimed set of options; or "all".

    Raises:
        ValueError: an unknown name (with the nearest right one).
    """
    chosen = None if names is None else list(names)
    for name in chosen or ():
        if name not in SOLVERS and name not in BLACK_BOXES and name != "all":
            raise ValueError(unknown("solver", name, [*SOLVERS, *BLACK_BOXES, "all"]))
    if chosen is None:
        found = [entry for text in MAIN for entry in entries.written(text)]
    else:
        found = entries.variants(n for n in SOLVERS if n in chosen or "all" in chosen)
    return [Entry(entry.solver, entry.options) for entry in found]


def adaptive_entries(names: Iterable[str] | None = None) -> list[Entry]:
    """torchdiffeq's dopri5 and scipy's RK45."""
    chosen = set(BLACK_BOXES if names is None or "all" in names else names)
    return [Entry(n, (("method", m),)) for n, m in BLACK_BOXES.items() if n in chosen]


def twins(found: list[Entry], schedule: Schedule, grid: str) -> dict[Entry, Entry]:
    """Entry -> the earlier entry that is the same map, on grids to t_clean and to t_min."""

    def plans(entry: Entry, steps: int) -> list[Plan]:
        ends = (schedule.t_clean, schedule.t_min)
        return [entry.plan(schedule, GRIDS[grid](schedule, steps, t_end=end)) for end in ends]

    return entries.twins(found, plans)
