r"""SDE-DPM-Solver: exponential integrators of the reverse SDE in lambda.

With eta = tau^2 constant in a step, k = 1 + eta and h = lambda_s - lambda_t (Lu et al.,
"DPM-Solver++", 2022, arXiv:2211.01095, section 5, for eta = 1; the module `exponential`),

    x_s = (sigma_s/sigma_t) e^{-eta h} x_t + alpha_s int k e^{-k (lambda_s - l)} d(l) dl
          + sigma_s sqrt(1 - e^{-2 eta h}) z                                             (++)
    x_s = (alpha_s/alpha_t) x_t - alpha_s k int e^{-l} eps(l) dl
          + sigma_s sqrt(eta (e^{2h} - 1)) z                                          (noise)

eta is that of k-diffusion: 0 is the probability-flow ODE, 1 the reverse SDE. DDIM's eta is the
same at 0 and 1 only; in between, eta = -log(1 - eta_ddim^2 (1 - e^{-2h}))/(2h).

The first steps of 2M and 3M have the orders 1 and 2 for want of a past; with noise an extra call
could not make up for it. A grid of one or two steps has no others. A step of infinite h, from
alpha = 0 or to sigma = 0, is of order 1 always; to sigma = 0 it takes no noise and is x_s =
alpha_s d, the last output itself. So `lower_last` changes nothing for 2M on a grid that ends there.
"""

from __future__ import annotations

import math
from itertools import pairwise

from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar, sqrt
from ..schedule import Schedule
from ..trace import Trace
from .exponential import weights
from .multistep import multistep
from .rows import DIFFERENCES, SOLVER_TYPES, midpoint
from .solver import Claim, solver


def _tau(eta: Scalar) -> Scalar:
    if not 0 <= eta < math.inf:
        raise ValueError(f"eta = {eta} must be at least 0: 0 is the ODE, 1 the reverse SDE")
    return sqrt(eta) if eta else 0.0


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(1, point_exact=True, strong=1.0),
    Claim(1, {"eta": 0.5}, point_exact=True, strong=1.0),
)
def sde_dpm_solver_pp_1(schedule: Schedule, times: list[Scalar], eta: float = 1.0) -> Plan:
    """SDE-DPM-Solver++(1): d constant over the step; DDIM with its eta = 1, DDPM's posterior.

    x_s = (sigma_s/sigma_t) e^{-eta h} x_t + alpha_s (1 - e^{-(1 + eta) h}) d
          + sigma_s sqrt(1 - e^{-2 eta h}) z.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, section 5; also "Euler ancestral".

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0, the start alpha = 0.
        eta: stochasticity, >= 0; see the module.

    Raises:
        ValueError: if eta is negative or not finite.
    """
    return multistep(schedule, times, 1, "data", tau=_tau(eta))


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(2, point_exact=True, strong=1.0),
    Claim(2, {"solver_type": "heun"}, point_exact=True, strong=1.0),
    Claim(2, {"eta": 0.5}, point_exact=True, strong=1.0),
)
def sde_dpm_solver_pp_2m(
    schedule: Schedule,
    times: list[Scalar],
    eta: float = 1.0,
    solver_type: str = "midpoint",
    lower_last: bool = False,
) -> Plan:
    """SDE-DPM-Solver++(2M): d as a line in lambda through its last two values.

    x_s = (sigma_s/sigma_t) e^{-eta h} x_t
          + alpha_s (1 - e^{-(1 + eta) h}) [(1 + 1/(2r)) d - 1/(2r) d_prev]
          + sigma_s sqrt(1 - e^{-2 eta h}) z, r = h_prev / h. The first step is of order 1, and so
    is one to sigma = 0 or from alpha = 0; to sigma = 0 it is x_s = alpha_s d.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, section 5.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0, the start alpha = 0.
        eta: stochasticity, >= 0; see the module.
        solver_type: "midpoint", the row above, or "heun", the exact integral of the line.
        lower_last: take the last step with order 1; one to sigma = 0 has it anyway.

    Raises:
        ValueError: if eta is negative or not finite; an unknown solver_type.
    """
    row = look_up("solver_type", solver_type, SOLVER_TYPES)
    order = min(2, len(times) - 1)  # on a grid of fewer steps, lower
    return multistep(schedule, times, order, "data", "lambda", _tau(eta), "lower", lower_last, row)


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(2, point_exact=True, strong=1.0),
    Claim(2, {"difference": "shipped"}, point_exact=True, strong=1.0),
    Claim(1, {"difference": "diffusers"}, point_exact=True),  # no strong order: see `rows`
)
def sde_dpm_solver_pp_3m(
    schedule: Schedule,
    times: list[Scalar],
    eta: float = 1.0,
    difference: str = "corrected",
    lower_last: bool = False,
) -> Plan:
    """SDE-DPM-Solver++(3M): d as the parabola in lambda through its last three values.

    The row of `dpm_solver_pp_3m` with (1 + eta) h in the place of h, the factor e^{-eta h} on x_t
    and the noise sigma_s sqrt(1 - e^{-2 eta h}) z. k-diffusion halves the second difference
    ("shipped"). Exact for parabolas, and yet of weak order 2 with eta > 0, with a small constant:
    past outputs carry past noise, which a polynomial through them extrapolates. The first two
    steps are of order 1 and 2; a step to sigma = 0 or from alpha = 0 is of order 1.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0, the start alpha = 0.
        eta: stochasticity, >= 0; see the module.
        difference: "corrected", "shipped" (both of weak order 2) or "diffusers" (weak order 1: a
            wrong sign besides; see `rows`).
        lower_last: end with steps of orders 2 and 1; one to sigma = 0 has order 1 anyway.

    Raises:
        ValueError: if eta is negative or not finite; an unknown difference.
    """
    row = look_up("difference", difference, DIFFERENCES)
    order = min(3, len(times) - 1)  # on a grid of fewer steps, lower
    return multistep(schedule, times, order, "data", "lambda", _tau(eta), "lower", lower_last, row)


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(2, point_exact=True, strong=1.0),
    Claim(2, {"r1": 0.7}, point_exact=True, strong=1.0),
    Claim(2, {"eta": 0.5}, point_exact=True, strong=1.0),
)
def sde_dpm_solver_pp_2s(
    schedule: Schedule, times: list[Scalar], eta: float = 1.0, r1: float = 0.5
) -> Plan:
    """DPM-Solver++(2S) on the reverse SDE: one stage at lambda_t + r1 h, two calls a step.

    x_u = (sigma_u/sigma_t) e^{-eta r1 h} x_t + alpha_u (1 - e^{-(1 + eta) r1 h}) d_t + n_u,
    x_s = (sigma_s/sigma_t) e^{-eta h} x_t
          + alpha_s (1 - e^{-(1 + eta) h}) [(1 - 1/(2 r1)) d_t + 1/(2 r1) d_u] + n_s,
    with the noises of one path: n_u = sigma_u sqrt(1 - e^{-2 eta r1 h}) z_1 and
    n_s = (sigma_s/sigma_u) e^{-eta (1 - r1) h} n_u + sigma_s sqrt(1 - e^{-2 eta (1 - r1) h}) z_2,
    z_1 and z_2 drawn on (t, u) and (u, s). (Independent noises at u and s lower the order to 1.)

    k-diffusion's `sample_dpmpp_sde` is this with r1 = 1/2, but for the path's clock there (sigma)
    and for its eta, which is DDIM's. Lu et al., arXiv:2211.01095, section 5 and algorithm 1.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0, the start alpha = 0.
        eta: stochasticity, >= 0; see the module.
        r1: where the stage lies in the step, in (0, 1).

    Raises:
        ValueError: if eta is negative or not finite, or r1 outside (0, 1).
    """
    if not 0 < r1 < 1:
        raise ValueError(f"r1 = {r1}: the stage lies inside its step, 0 < r1 < 1")
    tau = _tau(eta)
    trace = Trace(times[0])
    x = trace.x
    for t, s in pairwise(times):
        x, d = trace.denoise(x, t)
        low, high = schedule.half_log_snr(t), schedule.half_log_snr(s)
        whole = weights(schedule, t, s, [t], tau=tau)
        if not high - low < math.inf:
            z = trace.noise(t, s) if tau and schedule.sigma(s) > 0 else None
            x = whole.state(x, [d], z)
            continue
        u = schedule.time_of(low + r1 * (high - low))
        first, second = weights(schedule, t, u, [t], tau=tau), weights(schedule, u, s, [u], tau=tau)
        z_1, z_2 = (trace.noise(t, u), trace.noise(u, s)) if tau else (None, None)
        _, d_u = trace.stage(first.state(x, [d], z_1), u)
        x = midpoint(schedule, t, s, [t, u], "data", tau=tau).state(x, [d, d_u])
        if z_1 and z_2:
            x = x + second.x * first.z * z_1 + second.z * z_2
    return trace.end(x, times[-1])


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(1, strong=1.0),
)
def sde_dpm_solver_1(schedule: Schedule, times: list[Scalar], eta: float = 1.0) -> Plan:
    """SDE-DPM-Solver-1: eps constant over the step.

    x_s = (alpha_s/alpha_t) x_t - (1 + eta) sigma_s (e^h - 1) eps
          + sigma_s sqrt(eta (e^{2h} - 1)) z. It equals no DDIM with eta > 0.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, section 5; at eta = 1 also SEEDS-1,
    Gonzalez et al. 2023, arXiv:2305.14267.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start, sigma may be 0 at the end.
        eta: stochasticity, >= 0; see the module.

    Raises:
        ValueError: if eta is negative or not finite.
    """
    return multistep(schedule, times, 1, "noise", tau=_tau(eta))


@solver(
    "Lu et al. 2022, arXiv:2211.01095",
    Claim(2, strong=1.0),
    Claim(2, {"solver_type": "heun"}, strong=1.0),
)
def sde_dpm_solver_2m(
    schedule: Schedule,
    times: list[Scalar],
    eta: float = 1.0,
    solver_type: str = "midpoint",
    lower_last: bool = False,
) -> Plan:
    """SDE-DPM-Solver-2M: eps as a line in lambda through its last two values.

    x_s = (alpha_s/alpha_t) x_t
          - (1 + eta) sigma_s (e^h - 1) [(1 + 1/(2r)) eps - 1/(2r) eps_prev]
          + sigma_s sqrt(eta (e^{2h} - 1)) z, r = h_prev / h. The first step is of order 1, and so
    is one to sigma = 0, which is x_s = alpha_s d.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, section 5.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start, sigma may be 0 at the end.
        eta: stochasticity, >= 0; see the module.
        solver_type: "midpoint", the row above, or "heun", the exact integral of the line.
        lower_last: take the last step with order 1; one to sigma = 0 has it anyway.

    Raises:
        ValueError: if eta is negative or not finite; an unknown solver_type.
    """
    row = look_up("solver_type", solver_type, SOLVER_TYPES)
    order = min(2, len(times) - 1)  # on a grid of fewer steps, lower
    return multistep(schedule, times, order, "noise", "lambda", _tau(eta), "lower", lower_last, row)
