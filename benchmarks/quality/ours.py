"""This library's samplers on the quality benchmark's models.

A setting is a solver with options, a grid in rho and, perhaps, an analytic first step. Its plan is
made on flow matching, whose sigma/alpha takes all values: all solvers but those that interpolate
in t (here in the time of Song's VP) give the same map on every schedule with these values of rho.
The default is run on the range's own schedule, as `sample` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import SOLVERS, FlowMatching, Plan, Schedule, VPLinear, run
from sde_diffusion.few_steps import default_plan
from sde_diffusion.grid import time_of_rho
from sde_diffusion.times import default
from sde_diffusion.transform import analytic_first_step

from .grids import Grid, grids
from .models import Case

LINE, SONG = FlowMatching(), VPLinear()


@dataclass(frozen=True)
class Setting:
    """A solver, its options, a grid and whether the first step is analytic."""

    solver: str
    options: tuple[tuple[str, Any], ...]
    grid: str
    rhos: Grid
    analytic: bool
    carrier: Schedule = LINE
    peer: str = "sde_diffusion"

    @property
    def name(self) -> str:
        """For people, and as a key."""
        options = " ".join(f"{k}={v}" for k, v in self.options)
        start = ", analytic first step" if self.analytic else ""
        return f"{self.solver} {options}, {self.grid}{start}"

    def run(self, case: Case, nfe: int, dtype: torch.dtype = torch.float64) -> Tensor | None:
        """The final y; None if the method takes more calls."""
        plan = _plan(self, case.rho_max, nfe)
        return None if plan.nfe > nfe else follow(plan, self.carrier, case, dtype)


@dataclass(frozen=True)
class Rule:
    """A solver on a grid of the range's schedule, one step a call; noise of torch's seed."""

    name: str
    solver: str
    times: Callable[..., Tensor]
    options: tuple[tuple[str, Any], ...] = ()
    peer: str = "sde_diffusion"

    def run(self, case: Case, nfe: int, dtype: torch.dtype = torch.float64) -> Tensor | None:
        """The final y."""
        grid = self.times(case.schedule, nfe, t_start=case.t_start)
        plan = SOLVERS[self.solver](case.schedule, grid, **dict(self.options))
        return follow(plan, case.schedule, case, dtype, int(torch.randint(2**31, ())))


@dataclass(frozen=True)
class Default:
    """What `sample` takes when no solver and no grid is named, on the range's own schedule."""

    name: str = "default"
    peer: str = "sde_diffusion"

    def run(self, case: Case, nfe: int, dtype: torch.dtype = torch.float64) -> Tensor | None:
        """The final y."""
        plan = default_plan(case.schedule, nfe, case.t_start)
        return follow(plan, case.schedule, case, dtype)


DEFAULT = Default()
ADAMS = Rule("angular, default grid", "angular", default)  # the default but at the calls of a table


def follow(
    plan: Plan, schedule: Schedule, case: Case, dtype: torch.dtype, seed: int | None = None
) -> Tensor:
    """The plan's last y from the case's start; a stochastic plan draws from the seed."""

    def network(x: Tensor, t: Any) -> Tensor:
        alpha, sigma = (float(v) for v in schedule(t))
        return case.denoised(x / alpha, sigma / alpha)

    first, last = (float(schedule.alpha(plan.rows[i].t)) for i in (0, -1))
    return run(plan, network, case.start.to(dtype) * first, noise=seed) / last


@lru_cache(maxsize=100_000)
def _plan(setting: Setting, rho_max: float, nfe: int) -> Plan:
    schedule = setting.carrier
    rhos = setting.rhos(rho_max, nfe + setting.analytic)
    times = [time_of_rho(schedule, float(r)) if r else schedule.t_min for r in rhos]
    plan = SOLVERS[setting.solver](schedule, times, **dict(setting.options))
    return analytic_first_step(plan, schedule) if setting.analytic else plan


def methods() -> list[tuple[str, dict[str, Any], Schedule]]:
    """Solvers with options, and the schedule that their plans are made on."""
    found: list[tuple[str, dict[str, Any], Schedule]] = [("ddim", {}, LINE)]
    for order in (2, 3, 4):
        found += [
            ("adams", {"order": order, "prediction": prediction, "variable": variable}, LINE)
            for prediction, variable in (
                *(("data", "lambda"), ("noise", "lambda"), ("noise", "rho")),
                *(("velocity", "phi"), ("angular", "phi"), ("angular", "lambda")),
            )
        ]
        found.append(("deis", {"order": order}, SONG))
        found.append(("ipndm", {"order": order}, LINE))
        for corrector in (0, order + 1):
            for lower_last in (False, True) if corrector else (False,):
                options = {"order": order, "corrector": corrector, "lower_last": lower_last}
                found.append(("angular", options, LINE))
    return found


def settings() -> list[Any]:
    """All of ours but the default."""
    return [
        Setting(solver, tuple(options.items()), grid, rhos, analytic, carrier)
        for solver, options, carrier in methods()
        for grid, rhos in grids()
        for analytic in (False, True)
    ]
