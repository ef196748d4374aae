"""Every sampler that needs no fitting, on many grids: who is best is known only with hindsight.

A setting is a solver with options, a grid and, perhaps, an analytic first step. The solvers are
those of the quality benchmark, and all that draw noise or bear another paper's name, with the
variants that they claim; the stochastic ones at several strengths of the noise.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

from sde_diffusion import Plan, Schedule
from sde_diffusion.comparison.entries import Entry, variants
from sde_diffusion.grid import time_of_rho
from sde_diffusion.times import default
from sde_diffusion.transform import analytic_first_step

from ..quality import ours
from ..quality.grids import Grid, grids

DEFAULT = "default"
GRIDS: dict[str, Grid | None] = {DEFAULT: None} | {
    name: grid
    for name, grid in grids()
    if name
    in (
        *("flow p=1", "flow p=1.25", "flow p=1.5", "flow p=2", "vp p=1", "vp p=1.5", "vp p=2"),
        *("vp p=3", "angle p=1", "angle p=1.5", "log from 0.01", "log from 0.03"),
        *("karras p=7 from 0.01", "karras p=7 from 0.03"),
    )
}


@dataclass(frozen=True)
class Setting:
    """A solver with its options, a name of `GRIDS` and whether the first step is analytic."""

    entry: Entry
    grid: str = DEFAULT
    analytic: bool = False

    @property
    def name(self) -> str:
        """For people, and as a key."""
        return f"{self.entry.short}, {self.grid}" + ", analytic first step" * self.analytic

    def plan(self, schedule: Schedule, nfe: int) -> Plan | None:
        """Its plan of exactly so many calls; None if there is none, or it is singular."""
        grid = GRIDS[self.grid]

        def times(steps: int) -> Any:
            if grid is None:
                return default(schedule, steps)
            rhos = grid(float(schedule.rho(schedule.t_max)), steps)
            return [time_of_rho(schedule, float(r)) if r else schedule.t_min for r in rhos]

        try:
            plan = self.entry.plan_within(schedule, nfe + self.analytic, times)
            if plan is not None and self.analytic:
                plan = analytic_first_step(plan, schedule)
        except ValueError:
            return None
        return plan if plan is not None and plan.nfe == nfe else None


@cache
def settings() -> tuple[Setting, ...]:
    """All of them; the first is the default of `sample`."""
    deterministic = [Entry(name, tuple(options.items())) for name, options, _ in ours.methods()]
    others = [
        entry
        for entry in variants()
        if (entry.stochastic and entry.evaluations == 1)
        or entry.solver in ("dpm_solver_pp_2m", "dpm_solver_pp_3m", "unipc")
    ]
    noisy = [Entry("ddim", (("eta", eta),)) for eta in (0.3, 0.7)] + [
        Entry("sa_solver", (("predictor", p), ("corrector", c), ("tau", tau)))
        for p, c in ((2, 0), (2, 2), (3, 3), (3, 4))
        for tau in (0.2, 0.4, 0.7)
    ]
    found = [DEFAULT_SETTING]
    for entry in {e.short: e for e in (*deterministic, *others, *noisy)}.values():
        # An analytic first step takes the place of a call that noise would follow.
        ways = (False,) if entry.stochastic else (False, True)
        found += [Setting(entry, g, way) for g, way in itertools.product(GRIDS, ways)]
    return tuple({setting.name: setting for setting in found}.values())


DEFAULT_SETTING = Setting(Entry("angular"))
