r"""From a plan of n network calls to plans of n + 1 that end where it does.

A call is put between two of the plan's, or between the last and the end, and its answer is not used
yet. The same table, with n + 2 numbers more to fit: no fit that begins there ends higher. Its place
is the middle in log(sigma/alpha), or a third of the last level where the end is at sigma = 0, and
its state x/r, r = hypot(alpha, sigma), is in the middle of those around it.
"""

from __future__ import annotations

import math

from ..plan import Plan, Row
from ..schedule import Schedule
from ..solvers.solver import made_for

_LAST = 3.0  # how much lower the noise level of a call after the last one is, before sigma = 0


def grown(plan: Plan, schedule: Schedule) -> list[Plan]:
    """The plan with one call more, in each of the gaps after its first call.

    Args:
        plan: a deterministic plan for the schedule, tuned perhaps: `tune(..., nfe=plan.nfe + 1,
            guesses=grown(plan, schedule))`.
        schedule: alpha_t, sigma_t.

    Returns:
        As many plans as it has calls, from the noisiest gap to the cleanest.

    Raises:
        ValueError: a stochastic plan, or one for another schedule.
    """
    plan.check_schedule(schedule)
    if plan.stochastic:
        raise ValueError(f"{plan.name} draws noise: a table of states and outputs is deterministic")
    lines = plan.matrix().tolist()
    times = [*plan.asked_at, float(plan.rows[-1].t)]
    return [_with_call(plan, schedule, lines, times, k) for k in range(plan.nfe)]


def _with_call(
    plan: Plan, schedule: Schedule, lines: list[list[float]], times: list[float], k: int
) -> Plan:
    """The plan with a call between its k-th and the next, or the end."""
    low, high = (float(schedule.rho(t)) for t in (times[k + 1], times[k]))
    high = min(high, 1e3 * low) if low else high
    t = float(schedule.time_of(-math.log(math.sqrt(low * high) if low else high / _LAST)))
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
