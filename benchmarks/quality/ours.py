"""This library's samplers on the quality benchmark's models.

A setting is a solver with options, a grid in rho and a way to start. Its plan is made on flow
matching, whose sigma/alpha takes all values: all solvers but those that interpolate in t (here in
the time of Song's VP) give the same map on every schedule with these values of rho. The ways:

    asked       the first call is at rho_max
    analytic    the first output is that of standard normal data, at no call: a step more
    carried     the path of standard normal data, x/hypot(alpha, sigma) unchanged, up to the grid's
                second level, where the solver starts, again a step more: what x_T ~ N(0, I) is to
                a variance-preserving model whose first time lies below T (spacing "leading")

The default is run on the range's own schedule, as `sample` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import SOLVERS, FlowMatching, Plan, Schedule, VPLinear, run
from sde_diffusion.few_steps import default_plan
from sde_diffusion.grid import time_of_rho
from sde_diffusion.store import digest
from sde_diffusion.times import default
from sde_diffusion.transform import analytic_first_step

from .grids import Grid, grids
from .models import Case

LINE, SONG = FlowMatching(), VPLinear()
STARTS = {"asked": "", "analytic": ", analytic first step", "carried": ", carried start"}


@dataclass(frozen=True)
class Setting:
    """A solver, its options, a grid and how it starts: "asked", "analytic" or "carried"."""

    solver: str
    options: tuple[tuple[str, Any], ...]
    grid: str
    rhos: Grid
    start: str = "asked"
    carrier: Schedule = LINE
    peer: str = "sde_diffusion"

    @property
    def name(self) -> str:
        """For people, and as a key."""
        options = " ".join(f"{k}={v}" for k, v in self.options)
        return f"{self.solver} {options}, {self.grid}{STARTS[self.start]}"

    def run(self, case: Case, nfe: int, dtype: torch.dtype = torch.float64) -> Tensor | None:
        """The final y; None if the method takes more calls."""
        plan = _plan(self, case.rho_max, nfe)
        if plan.nfe > nfe:
            return None
        if self.start == "carried":
            first = float(self.carrier.rho(plan.rows[0].t))
            share = math.hypot(1.0, first) / math.hypot(1.0, case.rho_max)
            case = replace(case, start=share * case.start)
        return follow(plan, self.carrier, case, dtype)


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

    def made_of(self, case: Case, nfe: int) -> str:
        """A digest of the plan's rows: another one where the default is another."""
        plan = default_plan(case.schedule, nfe, case.t_start)
        return digest([(row.kind, row.t, row.x, row.d, row.z) for row in plan.rows])

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
    rhos = setting.rhos(rho_max, nfe + (setting.start != "asked"))
    rhos = rhos[1:] if setting.start == "carried" else rhos
    times = [time_of_rho(schedule, float(r)) if r else schedule.t_min for r in rhos]
    plan = SOLVERS[setting.solver](schedule, times, **dict(setting.options))
    return analytic_first_step(plan, schedule) if setting.start == "analytic" else plan


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


def shipped() -> list[tuple[str, dict[str, Any], Schedule]]:
    """The multistep solvers in lambda on the data, with the rows that libraries ship."""
    found: list[tuple[str, dict[str, Any], Schedule]] = []
    for lower_last in (False, True):
        last = {"lower_last": lower_last}
        found.append(("dpm_solver_pp_2m", last, LINE))
        found.append(("dpm_solver_pp_3m", {"difference": "diffusers", **last}, LINE))
        for order in (2, 3):
            found.append(("unipc", {"order": order, **last}, LINE))
            adams = {"predictor": order, "corrector": order, "tau": 0.0, "variant": "bh1"}
            found.append(("sa_solver", {**adams, **last}, LINE))
    return found


def settings() -> list[Any]:
    """All of ours but the default."""
    return [
        Setting(solver, tuple(options.items()), grid, rhos, start, carrier)
        for found, starts in ((methods(), STARTS), (shipped(), ("asked", "carried")))
        for solver, options, carrier in found
        for grid, rhos in grids()
        for start in starts
    ]
