"""What tuning begins with: a plan, its schedule, and the solver that wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..form import number_of
from ..plan import Plan
from ..schedule import Schedule


@dataclass(frozen=True)
class Base:
    """What tuning begins with: a plan, and the solver that wrote it where there is one.

    Attributes:
        plan: the plan to be bettered.
        schedule: alpha_t, sigma_t, of the denoiser.
        times: the grid on which the solver wrote it; without a solver, the plan's own.
        solver: (schedule, times, **options) -> Plan; None if only the plan was given.
        options: of the solver.
        known: whether the denoiser's answer at the start costs no network call: the first call is
            then left where it is.
    """

    plan: Plan
    schedule: Schedule
    times: tuple[float, ...]
    solver: Callable[..., Plan] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    known: bool = False

    def need_solver(self, free: str) -> Callable[..., Plan]:
        """The solver; ValueError if there is none, for what is free needs other tables of it."""
        if self.solver is None:
            raise ValueError(
                f"free = {free!r} writes the plan anew for other times, and {self.plan.name} is a "
                "finished table: give tune the solver's name and nfe in its place, or free='table'"
            )
        return self.solver

    @property
    def t_start(self) -> float:
        """Where the plan's first state is: with churn, before the level is raised."""
        return number_of(self.plan.rows[0].t)

    @property
    def t_end(self) -> float:
        """Where the plan's sample is."""
        return number_of(self.plan.rows[-1].t)
