r"""DPM-Solver: exponential integrators of the probability-flow ODE in lambda, on the noise.

The exact solution from t to s, h = lambda_s - lambda_t > 0 (Lu et al., "DPM-Solver", 2022,
arXiv:2206.00927, proposition 3.1):

    x_s = (alpha_s/alpha_t) x_t - alpha_s int e^{-l} eps(l) dl

with the integral from lambda_t to lambda_s. A solver of order k replaces eps by a polynomial of
degree k - 1 in lambda: through points inside the step (2, 3) or through past points (2M, 3M).
All write sigma_s (e^h - 1) as alpha_s (rho_t - rho_s), which holds at sigma_s = 0 too; a step to
sigma = 0 is of order 1. From alpha = 0 there is no noise prediction: start inside.
"""

from __future__ import annotations

from itertools import pairwise

from ..form import Form
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar
from ..schedule import Schedule
from ..trace import Trace
from .exponential import output, weights
from .multistep import Node, Row, multistep
from .rows import DIFFERENCES, SOLVER_TYPES
from .solver import Claim, solver


@solver(
    "Lu et al. 2022, arXiv:2206.00927",
    Claim(1, point_exact=True, exact=("noise", "lambda", 1)),
)
def dpm_solver_1(schedule: Schedule, times: list[Scalar]) -> Plan:
    """DPM-Solver-1: eps constant over the step; the same map as DDIM with eta = 0.

    x_s = (alpha_s/alpha_t) x_t - sigma_s (e^h - 1) eps, written with
    sigma_s (e^h - 1) = alpha_s (rho_t - rho_s), which holds at sigma_s = 0 too.

    Lu et al. (2022), arXiv:2206.00927, eq. 3.7 (section 3.2) and section 4.1.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start, sigma may be 0 at the end.
    """
    trace = Trace(times[0])
    x = trace.x
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x, d = trace.denoise(x, t)
        eps = (x - alpha_t * d) / sigma_t
        x = alpha_s / alpha_t * x - alpha_s * (sigma_t / alpha_t - sigma_s / alpha_s) * eps
    return trace.end(x, times[-1])


def single_step(
    schedule: Schedule,
    times: list[Scalar],
    fractions: tuple[Scalar, ...],
    prediction: str,
    row: Row = weights,
) -> Plan:
    """Stages at the given fractions of h, each step through t and the latest stage.

    So every row is the line in lambda through the output at t and at the latest stage; a step of
    infinite h has no stages and is of order 1.
    """
    for i, r in enumerate(fractions, 1):
        if not 0 < r <= 1:
            raise ValueError(f"r{i} = {r}: a stage lies inside its step, 0 < r{i} <= 1")
    trace = Trace(times[0])
    x = trace.x
    for t, s in pairwise(times):
        x, d = trace.denoise(x, t)
        nodes = [Node(t, output(schedule, x, d, t, prediction))]
        low, h = schedule.half_log_snr(t), schedule.half_log_snr(s) - schedule.half_log_snr(t)
        for r in fractions if h < float("inf") else ():
            u = s if r == 1 else schedule.time_of(low + r * h)
            y, d = trace.stage(_through(schedule, x, t, u, nodes, prediction, row), u)
            nodes = [nodes[0], Node(u, output(schedule, y, d, u, prediction))]
        x = _through(schedule, x, t, s, nodes, prediction, row)
    return trace.end(x, times[-1])


def _through(
    schedule: Schedule,
    x: Form,
    t: Scalar,
    s: Scalar,
    nodes: list[Node],
    prediction: str,
    row: Row,
) -> Form:
    w = row(schedule, t, s, [node.t for node in nodes], prediction)
    return w.state(x, [node.output for node in nodes])


@solver(
    "Lu et al. 2022, arXiv:2206.00927",
    Claim(2, point_exact=True),
    Claim(2, {"r1": 0.7}, point_exact=True),
    Claim(2, {"r1": 1.0, "solver_type": "heun"}, point_exact=True, exact=("noise", "lambda", 2)),
)
def dpm_solver_2(
    schedule: Schedule, times: list[Scalar], r1: float = 0.5, solver_type: str = "midpoint"
) -> Plan:
    """DPM-Solver-2: one stage at lambda_t + r1 h; two network calls a step.

    x_u = (alpha_u/alpha_t) x_t - sigma_u (e^{r1 h} - 1) eps_t,
    x_s = (alpha_s/alpha_t) x_t - sigma_s (e^h - 1) [(1 - 1/(2 r1)) eps_t + 1/(2 r1) eps_u].

    Lu et al., "DPM-Solver", 2022, arXiv:2206.00927, algorithm 1 (r1 = 1/2) and appendix B.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start, sigma may be 0 at the end.
        r1: where the stage lies in the step, in (0, 1].
        solver_type: "midpoint", the row above (with r1 = 1/2, eps_u alone), or "heun", the exact
            integral of the line through both outputs.

    Raises:
        ValueError: r1 outside (0, 1]; an unknown solver_type.
    """
    row = look_up("solver_type", solver_type, SOLVER_TYPES)
    return single_step(schedule, times, (r1,), "noise", row)


@solver(
    "Lu et al. 2022, arXiv:2206.00927",
    Claim(3, point_exact=True, exact=("noise", "lambda", 2)),
    Claim(3, {"r1": 0.5}, point_exact=True, exact=("noise", "lambda", 2)),
    Claim(2, {"r2": 0.5}, point_exact=True, exact=("noise", "lambda", 2)),
)
def dpm_solver_3(
    schedule: Schedule, times: list[Scalar], r1: float = 1 / 3, r2: float = 2 / 3
) -> Plan:
    """DPM-Solver-3: stages at lambda_t + r1 h and lambda_t + r2 h; three network calls a step.

    With u, v the stages and D_u = eps_u - eps_t, D_v = eps_v - eps_t,
    x_u = (alpha_u/alpha_t) x_t - sigma_u (e^{r1 h} - 1) eps_t,
    x_v = (alpha_v/alpha_t) x_t - sigma_v (e^{r2 h} - 1) eps_t
          - sigma_v (r2/r1) ((e^{r2 h} - 1)/(r2 h) - 1) D_u,
    x_s = (alpha_s/alpha_t) x_t - sigma_s (e^h - 1) eps_t - (sigma_s/r2) ((e^h - 1)/h - 1) D_v:
    each the exact integral of the line through eps_t and the latest stage.

    Lu et al., "DPM-Solver", 2022, arXiv:2206.00927, algorithm 2.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start, sigma may be 0 at the end.
        r1, r2: where the stages lie in the step, in (0, 1]. The order is 3 at r2 = 2/3 only, the
            second node of Radau's rule, whatever r1; elsewhere it is 2.

    Raises:
        ValueError: r1 or r2 outside (0, 1].
    """
    return single_step(schedule, times, (r1, r2), "noise")


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(2, point_exact=True),
    Claim(2, {"solver_type": "heun"}, point_exact=True, exact=("noise", "lambda", 2)),
)
def dpm_solver_2m(
    schedule: Schedule,
    times: list[Scalar],
    solver_type: str = "midpoint",
    lower_last: bool = False,
) -> Plan:
    """DPM-Solver(2M): the multistep method of order 2 on the noise.

    x_s = (alpha_s/alpha_t) x_t - sigma_s (e^h - 1) [(1 + 1/(2r)) eps - 1/(2r) eps_prev],
    r = h_prev / h. The first step is of order 1, which an order of 2 can bear, and so is a step to
    sigma = 0.

    A single step is `ddim`'s: 2 steps are the fewest with one of order 2.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, algorithm 2, with eps in the place of d.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start, sigma may be 0 at the end.
        solver_type: "midpoint", the row above, or "heun", the exact integral of the line.
        lower_last: take the last step with order 1; one to sigma = 0 has it anyway.

    Raises:
        ValueError: for an unknown solver_type.
    """
    row = look_up("solver_type", solver_type, SOLVER_TYPES)
    order = min(2, len(times) - 1)  # on a grid of fewer steps, lower
    return multistep(schedule, times, order, "noise", lower_last=lower_last, row=row)


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(3, warm_up=2, point_exact=True, exact=("noise", "lambda", 3)),
    Claim(3, {"first_steps": "full"}, point_exact=True, exact=("noise", "lambda", 3)),
    Claim(2, {"difference": "shipped"}, point_exact=True, exact=("noise", "lambda", 2)),
    Claim(2, {"difference": "diffusers"}, point_exact=True),
)
def dpm_solver_3m(
    schedule: Schedule,
    times: list[Scalar],
    difference: str = "corrected",
    first_steps: str = "lower",
    lower_last: bool = False,
) -> Plan:
    """DPM-Solver(3M): the multistep method of order 3 on the noise.

    x_s = (alpha_s/alpha_t) x_t - sigma_s [(e^h - 1) eps + ((e^h - 1)/h - 1) D1
          + 2 ((e^h - 1 - h)/h^2 - 1/2) D2] with D1, D2 as for `dpm_solver_pp_3m`.

    The first two steps are of order 1 and 2 (`first_steps="lower"`): with 1 or 2 steps the order is
    lowered to that, and 3 are the fewest with a step of order 3. A step to sigma = 0 is of order 1.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, appendix; the multistep-3 of the authors'
    code with noise prediction, which lacks the factor 2 (`difference="shipped"`, order 2).

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start, sigma may be 0 at the end.
        difference: "corrected" (order 3), "shipped" (order 2), or "diffusers", which takes the
            second step by the midpoint besides (order 2).
        first_steps, lower_last: as for `adams`.

    Raises:
        ValueError: for an unknown difference or first_steps.
    """
    row = look_up("difference", difference, DIFFERENCES)
    order = min(3, len(times) - 1)  # on a grid of fewer steps, lower
    return multistep(schedule, times, order, "noise", "lambda", 0.0, first_steps, lower_last, row)
