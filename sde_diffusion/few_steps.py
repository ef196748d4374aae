r"""The default plan, and the tables that it takes in few steps: fitted once, for every schedule.

With r = hypot(alpha, sigma), theta = arctan(sigma/alpha) and y = x/r every schedule is one ODE, of
which it sees a part, from its first angle theta_0 to 0. A table of n network calls has fractions
1 = f_0 > f_1 > .. > f_{n-1} of theta_0 and, with theta_i = f_i theta_0, theta_n = 0,

    z = y_0 - cos(theta_0) D_0,     c = D_0 - kappa cos(theta_0) z     (the centre of the data),
    y_i = cos(theta_i) c + a_i (y_0 - cos(theta_0) c) + sum_{0 < j < i} b_ij (D_j - c),

so that, whatever its numbers, shifting the data shifts the samples. The numbers minimise the error
over random mixtures of Gaussians: `python -m benchmarks.few_steps` draws these and fits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from .form import Form
from .grid import ends, time_of_rho
from .plan import Plan
from .schedule import Schedule
from .solvers import SOLVERS
from .solvers.solver import made_for
from .times import default
from .trace import Trace
from .transform import afresh, have_points

LEAST_NOISE = (
    14.0  # sigma/alpha at the start from which the tables are for; they were fitted from 15
)
FEWEST_AFRESH = 6  # steps; below, what is lost by beginning anew is as much as what is won


class Table(NamedTuple):
    """kappa, f_1 .. f_{n-1}, and rows (a_i, b_i1, .. b_i,i-1) for i = 1 .. n."""

    kappa: float
    fractions: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]


def default_plan(
    schedule: Schedule,
    steps: int = 20,
    t_start: float | None = None,
    t_end: float | None = None,
    jumps: Sequence[float] = (),
) -> Plan:
    """The plan that `sample` takes when no solver and no grid is named.

    A fitted table where there is one for so many steps, the path ends at sigma = 0 and begins at
    sigma/alpha >= 14, and no call falls below t_clean; `angular` on `times.default` elsewhere.

    Args:
        schedule: alpha_t, sigma_t.
        steps: network calls, at least 1.
        t_start, t_end: ends of the path, by default t_max and t_min.
        jumps: noise levels sigma/alpha at which the denoiser is not continuous, `denoiser.jumps`.
            From 6 steps on, `angular` begins anew at those inside the path (`transform.afresh`),
            where each has a grid point of its own.

    Raises:
        ValueError: fewer than 1 step, ends that are no grid.
    """
    start, end = ends(schedule, steps, t_start, t_end)
    if jumps and steps >= FEWEST_AFRESH:
        times = default(schedule, steps, t_start, t_end)
        inside = [rho for rho in jumps if schedule.rho(end) < rho < schedule.rho(start)]
        if inside and have_points(schedule, times, inside):
            return afresh(SOLVERS["angular"], schedule, times, inside)
    plan = fitted_plan(schedule, steps, start, end)
    if plan is None:
        plan = SOLVERS["angular"](schedule, default(schedule, steps, t_start, t_end))
    return plan


def fitted_plan(schedule: Schedule, steps: int, start: float, end: float) -> Plan | None:
    """The fitted table of so many network calls between two times; None where there is none."""
    alpha, sigma = (float(v) for v in schedule(start))
    table = tables().get(steps)
    if table is None or schedule.sigma(end) > 0 or sigma < LEAST_NOISE * alpha:
        return None
    first = math.atan2(sigma, alpha)
    inner = [time_of_rho(schedule, math.tan(f * first)) for f in table.fractions]
    if inner[-1] < schedule.t_clean:
        return None
    plan = _plan(schedule, [start, *inner, end], table)
    return made_for(plan, schedule, f"few_steps({steps})")


@cache
def tables() -> dict[int, Table]:
    """The fitted tables by their number of network calls."""
    text = (files(__package__) / "few_steps.json").read_text()
    return {
        int(n): Table(found["kappa"], tuple(found["fractions"]), tuple(map(tuple, found["rows"])))
        for n, found in json.loads(text).items()
    }


def _plan(schedule: Schedule, times: list[float], table: Table) -> Plan:
    scales = [tuple(map(float, schedule(t))) for t in times]
    r = [math.hypot(*scale) for scale in scales]
    cos = [alpha / r_t for (alpha, _), r_t in zip(scales, r, strict=True)]
    trace = Trace(times[0])
    x, d = trace.denoise(trace.x, times[0])
    y = x / r[0]
    centre = d - table.kappa * cos[0] * (y - cos[0] * d)
    z = y - cos[0] * centre
    moved: list[Form] = []
    for i, (a, *b) in enumerate(table.rows, 1):
        x = r[i] * (cos[i] * centre + a * z + sum(w * e for w, e in zip(b, moved, strict=True)))
        if i < len(table.rows):
            x, d = trace.denoise(x, times[i])
            moved.append(d - centre)
    return trace.end(x, times[-1])
