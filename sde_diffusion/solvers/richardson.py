r"""Richardson extrapolation of a one-step solver, one order higher.

Two steps t -> u -> s of a solver of order p make the local error C (h_1^{p+1} + h_2^{p+1}), one
step t -> s makes C (h_1 + h_2)^{p+1}, h measured in any smooth variable. Eliminating C,

    x_s = x_fine + (x_fine - x_coarse) / (ratio - 1),
    ratio = (h_1 + h_2)^{p+1} / (h_1^{p+1} + h_2^{p+1}),

is of order p + 1; ratio = 2^p for even steps. The coarse step asks the network at t, where the fine
one has asked already: a solver of one call a step costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from ..names import look_up
from ..plan import Plan
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
)
def richardson(
    schedule: Schedule, times: list[Scalar], base: str = "ddim", variable: str = "rho"
) -> Plan:
    """RX-DPM: every two steps of a one-step solver, extrapolated with one step over both.

    x_s = x_fine + (x_fine - x_coarse)/(ratio - 1); see the module. A last single step, where the
    number of steps is odd, is the base's own. With h infinite (rho or lambda at an end) the pair
    is not extrapolated.

    Choi, Kang & Han, "Enhanced diffusion sampling via extrapolation with multiple ODE solutions",
    2025, arXiv:2504.01855, section 3 (RX-Euler; uneven grids). There multistep and Runge-Kutta
    bases reuse their stages in the coarse step; here a base of m calls a step costs 1.5 m - 0.5 a
    step.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean.
        base: name of a deterministic one-step solver, taken with its default options.
        variable: in which steps are measured: "rho" (DDIM is Euler's method in it), "lambda" or
            "t".

    Raises:
        ValueError: a base that draws noise or that remembers its last step; a wrong word.
    """
    look_up("base", base, SOLVERS)
    make = lambda grid: traced(base, schedule, grid, {})  # either way, for `invert`
    positions = {"rho": schedule.rho, "lambda": schedule.half_log_snr, "t": lambda t: t}
    position = look_up("variable", variable, positions)
    power = CLAIMS[base][0].order + 1
    _check_one_step(make, times[:3], base)
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


def _check_one_step(make: Callable[[list[Scalar]], Plan], times: list[Scalar], base: str) -> None:
    """Raise unless the base is deterministic, and each step of it forgets the one before."""
    whole = make(times)
    trace = Trace(times[0])
    x = trace.x
    for pair in pairwise(times):
        x, _ = replay(trace, x, make(list(pair)))
    if whole.stochastic or not whole.equals(trace.end(x, times[-1])):
        raise ValueError(
            f"base = {base!r} draws noise or remembers its last step; the extrapolation is for "
            "deterministic one-step solvers, as 'ddim', 'heun' or 'res_2s'"
        )
