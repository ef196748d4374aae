r"""From a plan of n network calls to plans of n + 1 that end where it does.

A call is put between two of the plan's, or between the last and the end, and its answer is not used
yet. The same table, with n + 3 numbers more to fit, n + 2 coefficients and a noise level: by one
and the same loss, a fit that begins there ends no higher on its train starts. Its place is the
middle in log(sigma/alpha), or a third of the last level where the end is at sigma = 0, and its
state x/r, r = hypot(alpha, sigma), is in the middle of those around it.
"""

from __future__ import annotations

import math

from ..plan import Plan, Row
from ..scalar import Scalar
from ..schedule import Schedule
from ..solvers.solver import made_for

_LAST = 3.0  # how much lower the noise level of a call after the last one is, before sigma = 0
_NOISY = 1e3  # as much higher than the cleaner of two levels the noisier one counts, at most


def grown(plan: Plan, schedule: Schedule) -> list[Plan]:
    """The plan with one call more, in each of the gaps after one of its calls.

    Args:
        plan: a deterministic plan for the schedule, tuned perhaps: `tune(..., nfe=plan.nfe + 1,
            guesses=grown(plan, schedule))`.
        schedule: alpha_t, sigma_t.

    Returns:
        As many plans as it has calls, but for calls at one noise level with what follows; in the
        order of the calls.

    Raises:
        TypeError: no plan.
        ValueError: a stochastic plan, or one for another schedule.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"grown needs a plan, not {plan!r}: give one, as Plan.load('plan.json')")
    plan.check_schedule(schedule)
    if plan.stochastic:
        raise ValueError(f"{plan.name} draws noise: a table of states and outputs is deterministic")
    lines = plan.matrix().tolist()
    times = [*plan.asked_at, float(plan.rows[-1].t)]
    rho = [float(schedule.rho(t)) for t in times]
    gaps = [k for k in range(plan.nfe) if not math.isclose(rho[k], rho[k + 1], rel_tol=1e-9)]
    return [_with_call(plan, schedule, lines, times, k) for k in gaps]


def _with_call(
    plan: Plan, schedule: Schedule, lines: list[list[float]], times: list[float], k: int
) -> Plan:
    """The plan with a call between its k-th and the next, or the end."""
    t = float(schedule.time_of(-math.log(_between(*(schedule.rho(u) for u in times[k : k + 2])))))
    before, after = (
        [c / math.hypot(*map(float, schedule(times[i]))) for c in lines[i]] for i in (k, k + 1)
    )
    r = math.hypot(*map(float, schedule(t)))
    middle = [r * (a + b) / 2 for a, b in zip(before, after, strict=True)]
    states = [*zip(times, lines, strict=True)]
    states.insert(k + 1, (t, middle))
    first = plan.rows[0]
    rows = [] if first.asks else [Row("given", first.t)]
    for i, (at, line) in enumerate(states):
        kind = "denoise" if i <= plan.nfe else "end"
        x = {0: line[0]} if rows else {}
        known = i if i <= k + 1 else i - 1  # outputs of the old plan before this state
        d = {j + (j > k): line[1 + j] for j in range(known) if line[1 + j]}
        rows.append(Row(kind, at, x, d))
    return made_for(Plan(tuple(rows)), schedule, f"grown({plan.name})")


def _between(*ends: Scalar) -> float:
    """A noise level sigma/alpha between two, of which one may be 0 or infinite."""
    low, high = sorted(map(float, ends))
    if low == 0:
        return high / _LAST if math.isfinite(high) else 1.0
    return math.sqrt(low * min(high, _NOISY * low))
