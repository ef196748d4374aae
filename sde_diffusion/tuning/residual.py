r"""A solver's coefficients and a learned residual on them: theory first, then what it leaves out.

A row of a solver's plan is a sum over a few past outputs, with coefficients that follow from the
times. To it is added a sum over all outputs so far,

    x_i = [row of the solver] + r_i sum_j delta_ij (d_j - d_n),    j < n,

n the newest output and r_i = hypot(alpha_i, sigma_i), so that a number moves the samples about as
much in one row as in another. These residuals sum to zero on data in one point, where every
output is the same: what is exact there stays exact. Given that up, residuals are free,

    x_i = [row of the solver] + r_i sum_j delta_ij d_j + sum_k delta'_ik a_ik x_k,

the last one relative to the coefficients a_ik on the states. All zero is the solver on its times,
and the times may be free at once: the coefficients follow them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..form import Form
from ..plan import Plan
from ..schedule import Schedule
from .family import Family
from .rewrite import row_of


def residual(
    family: Family, schedule: Schedule, *, exact: bool = True, memory: int | None = None
) -> Family:
    """The plans of a family, with a learned residual on every row.

    Oganov et al., "GAS: improving discretization of diffusion ODEs via generalized adversarial
    solver", 2025, arXiv:2510.17699 (the generalized solver: times, times that the network is
    told and residuals on coefficients; there free, and on the states of all past steps). It is
    `residual(knots(solver, schedule, times, asked=True), schedule, exact=False)`.

    Args:
        family: plans with the same rows for all numbers, e.g. `knots`.
        schedule: the schedule of these plans.
        exact: whether residuals are held to sum to zero, or are free.
        memory: how many of the last outputs they are on; None: all.

    Returns:
        A family of the numbers of the given one, followed by the residuals.

    Raises:
        ValueError: a memory below 1 (below 2 if exact); a plan whose rows leave nothing free.
    """
    base = family.plan()
    base.check_schedule(schedule)
    least = 2 if exact else 1
    if memory is not None and memory < least:
        raise ValueError(f"memory = {memory}: a residual needs at least {least} outputs")
    places: list[tuple[int, str, int]] = []  # (row, "d" or "x", index) of each residual
    made = 0
    for i, row in enumerate(base.rows):
        if i and made:
            known = range(0 if memory is None else max(0, made - memory), made)
            places += [(i, "d", j) for j in (known[:-1] if exact else known)]
            places += [] if exact else [(i, "x", k) for k in row.x]
        made += row.asks
    if not places:
        raise ValueError(
            f"{base.name} has no row with two outputs before it: nothing is left free; give more "
            "steps, or exact=False"
        )
    radii = [math.hypot(*(float(v) for v in schedule(t))) for t in (row.t for row in base.rows)]
    first = len(family.start)

    def build(numbers: Tensor) -> Plan:
        plan = family.build(numbers[:first])
        added: dict[int, Form] = {}
        for (i, kind, k), delta in zip(places, numbers[first:].unbind(), strict=True):
            if kind == "x":
                term = Form({("x", k): delta * plan.rows[i].x.get(k, 0.0)})
            else:
                newest = sum(row.asks for row in plan.rows[:i]) - 1
                size = delta * radii[i]
                term = Form({("d", k): size, **({("d", newest): -size} if exact else {})})
            added[i] = added.get(i, Form({})) + term
        rows = [
            row_of(row, Form(dict(row.terms())) + added[i]) if i in added else row
            for i, row in enumerate(plan.rows)
        ]
        return replace(plan, rows=tuple(rows), name=f"residual({plan.name})")

    names = tuple(f"row {i}, {kind}{k}" for i, kind, k in places)
    start = torch.cat([family.start, torch.zeros(len(places), dtype=torch.float64)])
    return Family(f"{family.name} and residual", build, start, (*family.names, *names))


def fixed(plan: Plan) -> Family:
    """The family of one plan, of no numbers: for a residual on a table as it is."""
    return Family("plan", lambda numbers: plan, torch.zeros(0, dtype=torch.float64), ())
