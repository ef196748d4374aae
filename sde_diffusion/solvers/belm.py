r"""Bidirectional explicit linear multistep: a sampler that is its own inverse.

In y = x/alpha and rho = sigma/alpha, where dy/drho = eps, let h_1 be the last step, h_2 this one.
The two-step formula that uses one eps and is exact for y quadratic in rho,

    y_s = (1 - q) y_t + q y_prev + h_2 (h_1 + h_2)/h_1 eps_t,     q = (h_2/h_1)^2,

is solved for y_prev by the same formula on the reversed grid: no network call is approximated, and
so two neighbouring states determine all states before them, to rounding.
"""

from __future__ import annotations

from itertools import pairwise

from ..form import Form
from ..plan import Plan
from ..scalar import Scalar
from ..schedule import Schedule
from ..trace import Trace
from .exponential import output
from .solver import Claim, solver


@solver(
    "Wang et al. 2024, arXiv:2410.07273",
    Claim(2, point_exact=True, exact=("noise", "rho", 2)),
)
def o_belm(schedule: Schedule, times: list[Scalar]) -> Plan:
    """O-BELM: the explicit two-step method of smallest local error that can be run backwards.

    y_s = (1 - q) y_t + q y_prev + h_2 (h_1 + h_2)/h_1 eps_t with y = x/alpha, h_1 and h_2 the
    last and this step in rho = sigma/alpha, q = (h_2/h_1)^2. The first step is DDIM.

    Exactly reversible: `invert("o_belm", ...)` with `resume` of the last two states returns to
    the start to rounding, times the growth prod 1/q = (h_first/h_last)^2 of the way back.
    Its second root is -q: errors neither grow nor fade on even steps in rho, and fade on the grids
    of sampling, whose steps shrink.

    Wang et al., "BELM: Bidirectional explicit linear multi-step sampler for exact inversion in
    diffusion models", 2024, arXiv:2410.07273 (O-BELM); derived here anew.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start, sigma may be 0 at the end.
    """
    trace = Trace(times[0])
    x = trace.x
    y_prev: Form | None = None
    h_1: Scalar = 0.0
    for t, s in pairwise(times):
        x, d = trace.denoise(x, t)
        y, eps = x / schedule.alpha(t), output(schedule, x, d, t, "noise")
        h_2 = schedule.rho(s) - schedule.rho(t)
        if y_prev is None:
            ahead = y + h_2 * eps
        else:
            q = (h_2 / h_1) ** 2
            ahead = (1 - q) * y + q * y_prev + h_2 * (h_1 + h_2) / h_1 * eps
        x = schedule.alpha(s) * ahead
        y_prev, h_1 = y, h_2
    return trace.end(x, times[-1])
