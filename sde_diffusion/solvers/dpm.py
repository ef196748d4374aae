r"""DPM-Solver: exponential integrators of the probability-flow ODE in lambda.

The exact solution from t to s, h = lambda_s - lambda_t > 0 (Lu et al., "DPM-Solver", 2022,
arXiv:2206.00927, proposition 3.1; "DPM-Solver++", 2022, arXiv:2211.01095, proposition 4.1):

    x_s = (alpha_s/alpha_t) x_t - alpha_s int e^{-l} eps(l) dl          noise prediction
        = (sigma_s/sigma_t) x_t + sigma_s int e^{l} d(l) dl             data prediction

with the integrals from lambda_t to lambda_s. A solver of order k replaces eps or d by a
polynomial of degree k - 1 in lambda and integrates exactly.
"""

from __future__ import annotations

from itertools import pairwise

from ..form import Form
from ..plan import Plan, Trace
from ..scalar import Scalar, expm1
from ..schedule import Schedule
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


@solver("Lu et al. 2022, arXiv:2211.01095", Claim(2, point_exact=True))
def dpm_solver_pp_2m(schedule: Schedule, times: list[Scalar]) -> Plan:
    """DPM-Solver++(2M): d extrapolated to the middle of the step through its last two values.

    x_s = (sigma_s/sigma_t) x_t + alpha_s (1 - e^{-h}) [(1 + 1/(2r)) d - 1/(2r) d_prev],
    r = h_prev / h. The first step is of order 1, and so is a step to sigma = 0 or from
    alpha = 0, where h is infinite.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, algorithm 2.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0, the start alpha = 0.
    """
    trace = Trace(times[0])
    x, d_prev = trace.x, Form({})
    h_prev: Scalar = float("inf")
    for t, s in pairwise(times):
        (alpha_s, sigma_s), (_, sigma_t) = schedule(s), schedule(t)
        h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
        x, d = trace.denoise(x, t)
        extra = h / (2 * h_prev) if h < float("inf") else 0.0  # 1/(2r)
        slope = (1 + extra) * d - extra * d_prev if extra else d
        x = sigma_s / sigma_t * x - alpha_s * expm1(-h) * slope
        d_prev, h_prev = d, h
    return trace.end(x, times[-1])
