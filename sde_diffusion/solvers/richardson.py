r"""Richardson extrapolation of a solver, one order higher.

Two steps t -> u -> s of a solver of order p make the local error C (h_1^{p+1} + h_2^{p+1}), one
step t -> s makes C (h_1 + h_2)^{p+1}, h measured in any smooth variable. Eliminating C,

    x_s = x_fine + (x_fine - x_coarse) / (ratio - 1),
    ratio = (h_1 + h_2)^{p+1} / (h_1^{p+1} + h_2^{p+1}),

is of order p + 1; ratio = 2^p for even steps. The coarse step asks the network at t, where the fine
one has asked already: a solver of one call a step costs nothing more.

A multistep row makes C h^{p+1} too, where its grid is smooth; the coarse one is that of the base on
every second time, from outputs that the fine ones have asked for. In the first steps, whose rows
have the orders 1, 2, .., p, both powers are those of the lowest order, and only rows of that order
count in the denominator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from ..counts import check_count
from ..form import Form
from ..names import look_up
from ..plan import Plan, Row
from ..scalar import Scalar
from ..schedule import Schedule
from ..trace import Trace
from ..transform import replay
from .solver import CLAIMS, SOLVERS, Claim, solver, traced


@solver(
    "Choi et al. 2025, arXiv:2504.01855",
    Claim(2, point_exact=True),
    Claim(2, {"variable": "lambda"}, point_exact=True),
    Claim(3, {"base": "res_2s", "variable": "lambda"}, point_exact=True),
    Claim(3, {"base": "midpoint", "variable": "t"}),
    Claim(2, {"base": "dpm_solver_pp_2m", "variable": "lambda"}, point_exact=True),
)
def richardson(
    schedule: Schedule,
    times: list[Scalar],
    base: str | Callable[..., Plan] = "ddim",
    variable: str = "rho",
    order: int | None = None,
) -> Plan:
    """RX-DPM: every two steps of a solver, extrapolated with one step over both.

    x_s = x_fine + (x_fine - x_coarse)/(ratio - 1); see the module. A last single step, where the
    number of steps is odd, is the base's own. With h infinite (rho or lambda at an end) the pair
    is not extrapolated.

    Choi, Kang & Han, "Enhanced diffusion sampling via extrapolation with multiple ODE solutions",
    2025, arXiv:2504.01855, section 3 (RX-Euler; uneven grids). A multistep base costs nothing more;
    its order rises on grids that are smooth, and stays what it was where steps jump. There
    Runge-Kutta bases reuse their stages in the coarse step; here one of m calls a step costs
    1.5 m - 0.5 a step.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean.
        base: name of a deterministic solver, taken with its default options, or a function
            (schedule, times) -> Plan, as functools.partial(sde_diffusion.SOLVERS["adams"],
            order=2). One-step, or multistep with one call a step and no corrector.
        variable: in which steps are measured: "rho" (DDIM is Euler's method in it), "lambda" or
            "t".
        order: p, of the base; default what a solver of the package claims.

    Raises:
        ValueError: a base that draws noise, or that keeps more than outputs from its earlier
            steps; a function without its order; a wrong word.
    """
    if isinstance(base, str):
        look_up("base", base, SOLVERS)
        make = lambda grid: traced(base, schedule, grid, {})  # either way, for `invert`
        p = CLAIMS[base][0].order if order is None else order
    else:
        make = lambda grid: base(schedule, grid)
        p = 0 if order is None else order  # refused: no function says its order
    check_count("order (of the base)", p)
    positions = {"rho": schedule.rho, "lambda": schedule.half_log_snr, "t": lambda t: t}
    position = look_up("variable", variable, positions)
    if not _one_step(make, times[:3]):
        return _multistep(make, times, position, p)
    power = p + 1
    trace = Trace(times[0])
    x = trace.x
    for t, u, s in zip(times[::2], times[1::2], times[2::2], strict=False):
        x = trace.store(x, t) if t is not times[0] else x
        middle, outputs = replay(trace, x, make([t, u]))
        fine, _ = replay(trace, middle, make([u, s]))
        coarse, _ = replay(trace, x, make([t, s]), given=outputs[:1])
        h_1, h_2 = abs(position(u) - position(t)), abs(position(s) - position(u))
        x = fine
        if h_1 + h_2 < math.inf:
            ratio = (h_1 + h_2) ** power / (h_1**power + h_2**power)
            x = fine + (fine - coarse) / (ratio - 1)
    if len(times) % 2 == 0:
        x, _ = replay(trace, x, make(times[-2:]))
    return trace.end(x, times[-1])


def _one_step(make: Callable[[list[Scalar]], Plan], times: list[Scalar]) -> bool:
    """Whether each step of the base forgets the one before."""
    try:
        whole = make(times)
        trace = Trace(times[0])
        x = trace.x
        for pair in pairwise(times):
            x, _ = replay(trace, x, make(list(pair)))
    except ValueError:  # more steps than these are asked for
        return False
    return not whole.stochastic and whole.equals(trace.end(x, times[-1]))


def _multistep(
    make: Callable[[list[Scalar]], Plan],
    times: list[Scalar],
    position: Callable[[Scalar], Scalar],
    order: int,
) -> Plan:
    """The same with rows of earlier (x_j, d_j): of two whole plans, the rows are read."""
    fine = make(times)
    try:
        coarse = make(times[::2])
    except ValueError as error:
        raise ValueError(f"on every second time, {error}") from error
    for plan in (fine, coarse):
        if plan.stochastic or len(plan.rows) != len(plan.times):
            raise ValueError(
                f"base {plan.name} draws noise, or remembers its last step and has a corrector or "
                "more than one call a step; the extrapolation is for deterministic one-step "
                "solvers, as 'ddim', 'heun' or 'res_2s', and for multistep ones of one call a "
                "step, as 'dpm_solver_pp_2m', 'adams' or 'deis'"
            )
    trace = Trace(times[0])
    x, states, outputs = trace.x, list[Form](), list[Form]()
    for i, (t, s) in enumerate(pairwise(times)):
        for known, new in zip((states, outputs), trace.denoise(x, t), strict=True):
            known.append(new)
        x = _apply(fine.rows[i + 1], states, outputs)
        if i % 2 == 0:
            continue
        q = min(order, i // 2 + 1)  # of the coarse row; those of the fine ones are never less
        h: list[Any] = [abs(position(b) - position(a)) for a, b in pairwise((times[i - 1], t, s))]
        same = [step for k, step in zip((i, i + 1), h, strict=True) if min(order, k) == q]
        if same and sum(h) < math.inf:
            ratio = sum(h) ** (q + 1) / sum(step ** (q + 1) for step in same)
            x = x + (x - _apply(coarse.rows[i // 2 + 1], states[::2], outputs[::2])) / (ratio - 1)
    return trace.end(x, times[-1])


def _apply(row: Row, states: list[Form], outputs: list[Form]) -> Form:
    """A row, of other states and outputs."""
    terms = [c * states[k] for k, c in row.x.items()] + [c * outputs[k] for k, c in row.d.items()]
    return sum(terms, Form({}))
