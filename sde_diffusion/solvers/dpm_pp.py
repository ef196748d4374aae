r"""DPM-Solver++: exponential integrators of the probability-flow ODE in lambda, on the data.

The exact solution from t to s, h = lambda_s - lambda_t > 0 (Lu et al., "DPM-Solver++", 2022,
arXiv:2211.01095, proposition 4.1):

    x_s = (sigma_s/sigma_t) x_t + sigma_s int e^{l} d(l) dl

with the integral from lambda_t to lambda_s. A solver of order k replaces d by a polynomial of
degree k - 1 in lambda: through points inside the step (2S, 3S) or through past points (2M, 3M).
A step to sigma = 0 or from alpha = 0, where h is infinite, is of order 1 and exact.
"""

from __future__ import annotations

from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar
from ..schedule import Schedule
from .dpm import single_step
from .multistep import multistep
from .rows import DIFFERENCES, SOLVER_TYPES
from .solver import Claim, solver


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(2, point_exact=True),
    Claim(2, {"r1": 0.7}, point_exact=True),
    Claim(2, {"r1": 1.0, "solver_type": "heun"}, point_exact=True, exact=("data", "lambda", 2)),
)
def dpm_solver_pp_2s(
    schedule: Schedule, times: list[Scalar], r1: float = 0.5, solver_type: str = "midpoint"
) -> Plan:
    """DPM-Solver++(2S): one stage at lambda_t + r1 h; two network calls a step.

    x_u = (sigma_u/sigma_t) x_t + alpha_u (1 - e^{-r1 h}) d_t,
    x_s = (sigma_s/sigma_t) x_t + alpha_s (1 - e^{-h}) [(1 - 1/(2 r1)) d_t + 1/(2 r1) d_u].

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, algorithm 1.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0, the start alpha = 0.
        r1: where the stage lies in the step, in (0, 1].
        solver_type: "midpoint", the row above (with r1 = 1/2, d_u alone), or "heun", the exact
            integral of the line through both outputs.

    Raises:
        ValueError: r1 outside (0, 1]; an unknown solver_type.
    """
    row = look_up("solver_type", solver_type, SOLVER_TYPES)
    return single_step(schedule, times, (r1,), "data", row)


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(3, point_exact=True, exact=("data", "lambda", 2)),
    Claim(3, {"r1": 0.5}, point_exact=True, exact=("data", "lambda", 2)),
    Claim(2, {"r2": 0.5}, point_exact=True, exact=("data", "lambda", 2)),
)
def dpm_solver_pp_3s(
    schedule: Schedule, times: list[Scalar], r1: float = 1 / 3, r2: float = 2 / 3
) -> Plan:
    """DPM-Solver++(3S): stages at lambda_t + r1 h and lambda_t + r2 h; three network calls a step.

    x_s = (sigma_s/sigma_t) x_t + alpha_s (1 - e^{-h}) d_t
          + (alpha_s/r2) ((e^{-h} - 1)/h + 1) (d_v - d_t), v the second stage; each row is the
    exact integral of the line through d_t and the latest stage, as in `dpm_solver_3`.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095 (the singlestep solver of order 3 of the
    authors' code, algorithm_type "dpmsolver++").

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0, the start alpha = 0.
        r1, r2: where the stages lie in the step, in (0, 1]. The order is 3 at r2 = 2/3 only,
            whatever r1; elsewhere it is 2.

    Raises:
        ValueError: r1 or r2 outside (0, 1].
    """
    return single_step(schedule, times, (r1, r2), "data")


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(2, point_exact=True),
    Claim(2, {"solver_type": "heun"}, point_exact=True, exact=("data", "lambda", 2)),
)
def dpm_solver_pp_2m(
    schedule: Schedule,
    times: list[Scalar],
    solver_type: str = "midpoint",
    lower_last: bool = False,
) -> Plan:
    """DPM-Solver++(2M): d extrapolated to the middle of the step through its last two values.

    x_s = (sigma_s/sigma_t) x_t + alpha_s (1 - e^{-h}) [(1 + 1/(2r)) d - 1/(2r) d_prev],
    r = h_prev / h. The first step is of order 1, which an order of 2 can bear, and so is a step to
    sigma = 0 or from alpha = 0, where h is infinite.

    A single step is `ddim`'s: 2 steps are the fewest with one of order 2.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, algorithm 2.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0, the start alpha = 0.
        solver_type: "midpoint", the row above, or "heun", the exact integral of the line.
        lower_last: take the last step with order 1; one to sigma = 0 has it anyway.

    Raises:
        ValueError: for an unknown solver_type.
    """
    row = look_up("solver_type", solver_type, SOLVER_TYPES)
    order = min(2, len(times) - 1)  # on a grid of fewer steps, lower
    return multistep(schedule, times, order, "data", lower_last=lower_last, row=row)


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(3, warm_up=2, point_exact=True, exact=("data", "lambda", 3)),
    Claim(3, {"first_steps": "full"}, point_exact=True, exact=("data", "lambda", 3)),
    Claim(2, {"difference": "shipped"}, point_exact=True, exact=("data", "lambda", 2)),
    Claim(2, {"difference": "diffusers"}, point_exact=True),
)
def dpm_solver_pp_3m(
    schedule: Schedule,
    times: list[Scalar],
    difference: str = "corrected",
    first_steps: str = "lower",
    lower_last: bool = False,
) -> Plan:
    """DPM-Solver++(3M): d as the parabola in lambda through its last three values.

    With u = (l - lambda_t)/h, d(u) = d + D1 u + D2 u^2 is integrated exactly:
    x_s = (sigma_s/sigma_t) x_t + alpha_s [(1 - e^{-h}) d + (1 - (1 - e^{-h})/h) D1
          + 2 (1/2 - (e^{-h} - 1 + h)/h^2) D2],
    D1 = a + r0/(r0 + r1) (a - b), D2 = (a - b)/(r0 + r1), a = (d - d_1)/r0, b = (d_1 - d_2)/r1,
    r0 = h_1/h, r1 = h_2/h. The authors' code, diffusers and k-diffusion lack the factor 2: their
    row ("shipped") has order 2; at fewer than about 50 steps it is often the better one, its
    extrapolation being the milder.

    The first two steps are of order 1 and 2 (`first_steps="lower"`): with 1 or 2 steps the order is
    lowered to that, and 3 are the fewest with a step of order 3.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, appendix (multistep solver of order 3).

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0, the start alpha = 0.
        difference: "corrected" (order 3), "shipped" (order 2), or "diffusers", which takes the
            second step by the midpoint besides (order 2).
        first_steps, lower_last: as for `adams`.

    Raises:
        ValueError: for an unknown difference or first_steps.
    """
    row = look_up("difference", difference, DIFFERENCES)
    order = min(3, len(times) - 1)  # on a grid of fewer steps, lower
    return multistep(schedule, times, order, "data", "lambda", 0.0, first_steps, lower_last, row)
