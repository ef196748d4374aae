r"""Samplers with fresh noise around an ODE step: churn (EDM) and ancestral steps (k-diffusion).

Both work in y = x/alpha and rho = sigma/alpha, in which every schedule is the variance-exploding
one of EDM (alpha = 1, sigma = rho) and the probability-flow ODE is dy/drho = eps. A step from t to
s first adds noise, or last:

    churn       rho_hat = (1 + gamma) rho_t,  y_hat = y_t + sqrt(rho_hat^2 - rho_t^2) S_noise z,
                then the ODE from rho_hat to rho_s;
    ancestral   the ODE from rho_t to rho_down, then y_s = y_down + rho_up S_noise z, with
                rho_up = eta rho_s sqrt(1 - rho_s^2/rho_t^2),  rho_down^2 = rho_s^2 - rho_up^2.

The noise is exact for the marginals, and so both are of the order of their ODE step, as to the law
of each state: weak order 2 with a step of order 2. Each draws once a step, for the interval (t, s)
of the grid: the raised times of neighbouring steps may overlap, those of the grid never do. A step
from alpha = 0 or to sigma = 0 is an Euler step; pure noise is not churned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from ..form import Form
from ..plan import Plan
from ..scalar import Scalar, exp, expm1, log, sqrt
from ..schedule import Schedule
from ..trace import Trace
from .ddim import each_step, kept
from .exponential import output
from .solver import Claim, solver

Advance = Callable[[Trace, Schedule, Form, Form, Scalar, Scalar], Form]
"""(trace, schedule, x, d, t, rho) -> y at level rho: one step of the ODE."""


def churn(
    schedule: Schedule,
    times: list[Scalar],
    advance: Advance,
    gammas: Sequence[Scalar],
    s_noise: float,
) -> Plan:
    """Algorithm 2 of Karras et al. 2022 with any step of the ODE and any gamma >= 0 of each."""
    trace = Trace(times[0])
    x = trace.x
    for (t, s), gamma in zip(pairwise(times), gammas, strict=True):
        if gamma:
            t, x = _raise(trace, schedule, x, t, s, gamma, s_noise)
        x, d = trace.denoise(x, t)
        step = advance if schedule.alpha(t) > 0 and schedule.sigma(s) > 0 else _euler
        x = schedule.alpha(s) * step(trace, schedule, x, d, t, schedule.rho(s))
    return trace.end(x, times[-1])


def even_churn(
    schedule: Schedule,
    times: list[Scalar],
    s_churn: float,
    s_tmin: float,
    s_tmax: float,
    s_noise: float,
) -> list[Scalar]:
    """gamma of every step, the same wherever there is any; arguments as for `edm_heun`."""
    if s_churn < 0 or s_noise < 0 or not s_tmin <= s_tmax:
        raise ValueError(
            f"s_churn = {s_churn}, s_noise = {s_noise}, s_tmin = {s_tmin}, s_tmax = {s_tmax}: "
            "give s_churn and s_noise >= 0 and s_tmin <= s_tmax"
        )
    most = min(s_churn / (len(times) - 1), math.sqrt(2) - 1)
    return [
        most if s_tmin <= schedule.rho(t) <= s_tmax and schedule.alpha(t) > 0 else 0.0
        for t in times[:-1]
    ]


def _raise(
    trace: Trace, schedule: Schedule, x: Form, t: Scalar, s: Scalar, gamma: Scalar, s_noise: float
) -> tuple[Scalar, Form]:
    """(time, state) with the noise of a level (1 + gamma) times as high."""
    rho_t, highest = schedule.rho(t), float(schedule.rho(schedule.t_max))
    if rho_t * (1 + gamma) > highest:
        raise ValueError(
            f"churn raises sigma/alpha = {float(rho_t):.6g} by {gamma:.3g} of itself, above "
            f"{highest:.6g}, the highest of {schedule!r}: lower s_churn, give s_tmax <= "
            f"{highest / (1 + gamma):.6g}, or start the grid there"
        )
    t_hat = schedule.time_of(-log(rho_t * (1 + gamma)))
    alpha_hat = schedule.alpha(t_hat)
    added = rho_t * sqrt(gamma * (2 + gamma))  # sqrt(rho_hat^2 - rho_t^2)
    x = alpha_hat / schedule.alpha(t) * x + alpha_hat * added * s_noise * trace.noise(t, s)
    return t_hat, x


def ancestral(
    schedule: Schedule,
    times: list[Scalar],
    advance: Advance,
    eta: float | Sequence[float],
    s_noise: float,
) -> Plan:
    """Ancestral steps with any step of the ODE; arguments as for `euler_ancestral`."""
    if s_noise < 0:
        raise ValueError(f"s_noise = {s_noise} must not be negative; 1 is the exact noise")
    trace = Trace(times[0])
    x = trace.x
    for (t, s), eta_t in zip(pairwise(times), each_step(eta, len(times) - 1), strict=True):
        x, d = trace.denoise(x, t)
        alpha_s, rho_s = schedule.alpha(s), schedule.rho(s)
        h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
        step = advance if schedule.alpha(t) > 0 and rho_s > 0 else _euler
        x = alpha_s * step(trace, schedule, x, d, t, rho_s * kept(eta_t, exp(-h)))
        if eta_t and rho_s > 0:
            up = rho_s * eta_t * sqrt(-expm1(-2 * h))
            x = x + alpha_s * up * s_noise * trace.noise(t, s)
    return trace.end(x, times[-1])


def _euler(trace: Trace, schedule: Schedule, x: Form, d: Form, t: Scalar, rho: Scalar) -> Form:
    """y = d + rho eps: the Euler step in rho, which is DDIM."""
    return d + rho * output(schedule, x, d, t, "noise")


def _heun(trace: Trace, schedule: Schedule, x: Form, d: Form, t: Scalar, rho: Scalar) -> Form:
    """The trapezoidal rule in rho, through an Euler step."""
    eps = output(schedule, x, d, t, "noise")
    s = schedule.time_of(-log(rho))
    trial, d_s = trace.stage(schedule.alpha(s) * (d + rho * eps), s)
    eps_s = output(schedule, trial, d_s, s, "noise")
    return x / schedule.alpha(t) + (rho - schedule.rho(t)) / 2 * (eps + eps_s)


def _dpm_2(trace: Trace, schedule: Schedule, x: Form, d: Form, t: Scalar, rho: Scalar) -> Form:
    """eps at the lambda-midpoint for the whole step: DPM-Solver-2."""
    u, x_u, d_u = _middle(trace, schedule, x, d, t, rho)
    eps_u = output(schedule, x_u, d_u, u, "noise")
    return x / schedule.alpha(t) + (rho - schedule.rho(t)) * eps_u


def _dpm_pp_2s(trace: Trace, schedule: Schedule, x: Form, d: Form, t: Scalar, rho: Scalar) -> Form:
    """d at the lambda-midpoint for the whole step: DPM-Solver++(2S) with r = 1/2."""
    _, _, d_u = _middle(trace, schedule, x, d, t, rho)
    left = rho / schedule.rho(t)
    return left / schedule.alpha(t) * x + (1 - left) * d_u


def _middle(
    trace: Trace, schedule: Schedule, x: Form, d: Form, t: Scalar, rho: Scalar
) -> tuple[Scalar, Form, Form]:
    """(u, x_u, d_u) at the geometric mean of the levels, after an Euler step."""
    rho_u = sqrt(schedule.rho(t) * rho)
    u = schedule.time_of(-log(rho_u))
    x_u = schedule.alpha(u) * _euler(trace, schedule, x, d, t, rho_u)
    return u, *trace.stage(x_u, u)


STEPS: dict[str, Advance] = {"euler": _euler, "heun": _heun, "dpm_2": _dpm_2}
"""The steps of the ODE that churn is made for."""

_CHURN = {"s_churn": 2.0, "s_tmax": 20.0}  # too small for the cap on gamma


@solver(
    "Karras et al. 2022, arXiv:2206.00364",
    Claim(2, point_exact=True, exact=("noise", "rho", 2)),
    Claim(2, _CHURN, point_exact=True),
)
def edm_heun(
    schedule: Schedule,
    times: list[Scalar],
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Plan:
    """The stochastic sampler of EDM: churn, then Heun's method in rho = sigma/alpha.

    rho_hat = (1 + gamma) rho_t, y_hat = y_t + sqrt(rho_hat^2 - rho_t^2) s_noise z, then
    y_s = y_hat + (rho_s - rho_hat) (eps_hat + eps_s)/2, with y = x/alpha and
    gamma = min(s_churn/steps, sqrt(2) - 1) where s_tmin <= rho_t <= s_tmax, else 0.

    Karras et al., "Elucidating the design space of diffusion-based generative models", 2022,
    arXiv:2206.00364, algorithm 2 (there alpha = 1). Without churn it is `heun` in rho. The network
    is asked at the raised levels, which must exist: nothing is clipped. A step to sigma = 0 is an
    Euler step. The published settings have s_noise = 1.003 or 1.007, which makes the noise a
    little larger than exact, and so the law a little wrong at every number of steps.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the start may have alpha = 0, the end sigma = 0.
        s_churn: amount of fresh noise, >= 0, over all steps, in units of log rho; 0: the ODE.
        s_tmin, s_tmax: range of rho = sigma/alpha in which noise is added.
        s_noise: standard deviation of the fresh noise relative to the exact one, 1.

    Raises:
        ValueError: for a negative number, s_tmin > s_tmax, or a raised level above the noisiest of
            the schedule.
    """
    gammas = even_churn(schedule, times, s_churn, s_tmin, s_tmax, s_noise)
    return churn(schedule, times, _heun, gammas, s_noise)


@solver(
    "Karras et al. 2022, arXiv:2206.00364",
    Claim(1, point_exact=True, exact=("noise", "rho", 1)),
    Claim(1, _CHURN, point_exact=True),
)
def edm_euler(
    schedule: Schedule,
    times: list[Scalar],
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Plan:
    """The stochastic sampler of EDM with Euler steps: churn, then DDIM.

    y_s = y_hat + (rho_s - rho_hat) eps_hat, y_hat as for `edm_heun`.

    Karras et al., "Elucidating the design space of diffusion-based generative models", 2022,
    arXiv:2206.00364, algorithm 2 without its second-order correction.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the start may have alpha = 0, the end sigma = 0.
        s_churn, s_tmin, s_tmax, s_noise: as for `edm_heun`.

    Raises:
        ValueError: as for `edm_heun`.
    """
    gammas = even_churn(schedule, times, s_churn, s_tmin, s_tmax, s_noise)
    return churn(schedule, times, _euler, gammas, s_noise)


@solver(
    "Lu et al. 2022, arXiv:2206.00927; Karras et al. 2022, arXiv:2206.00364",
    Claim(2, point_exact=True, exact=("noise", "rho", 1)),
    Claim(2, _CHURN, point_exact=True),
)
def dpm_2(
    schedule: Schedule,
    times: list[Scalar],
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Plan:
    """Churn, then the midpoint rule in rho at the geometric mean of the levels.

    y_s = y_hat + (rho_s - rho_hat) eps_u, eps_u at rho_u = sqrt(rho_hat rho_s) after an Euler
    step; y_hat as for `edm_heun`. Without churn it is DPM-Solver-2; "DPM2" of k-diffusion.

    Lu et al., "DPM-Solver", 2022, arXiv:2206.00927, algorithm 1 (r = 1/2); Karras et al. 2022,
    arXiv:2206.00364, algorithm 2 (churn). A step to sigma = 0 is an Euler step.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the start may have alpha = 0, the end sigma = 0.
        s_churn, s_tmin, s_tmax, s_noise: as for `edm_heun`.

    Raises:
        ValueError: as for `edm_heun`.
    """
    gammas = even_churn(schedule, times, s_churn, s_tmin, s_tmax, s_noise)
    return churn(schedule, times, _dpm_2, gammas, s_noise)


@solver(
    "Song et al. 2021, arXiv:2010.02502",
    Claim(1, point_exact=True, strong=1.0),
    Claim(1, {"eta": 0.5}, point_exact=True, strong=1.0),
)
def euler_ancestral(
    schedule: Schedule,
    times: list[Scalar],
    eta: float | Sequence[float] = 1.0,
    s_noise: float = 1.0,
) -> Plan:
    """Ancestral sampling with Euler steps: down to rho_down, then noise up to rho_s.

    y_s = d + rho_down eps + rho_up s_noise z, y = x/alpha, with
    rho_up = eta rho_s sqrt(1 - rho_s^2/rho_t^2) and rho_down^2 = rho_s^2 - rho_up^2. With
    s_noise = 1 the same plan as `ddim` with this eta, for every eta; eta = 1 is DDPM.

    Song et al., "Denoising diffusion implicit models", 2021, arXiv:2010.02502, eq. 12 and 16;
    the sampler "Euler a" of k-diffusion.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0 (no noise in that step), the start
            alpha = 0.
        eta: in [0, 1], or one such number a step; 0 is deterministic.
        s_noise: standard deviation of the fresh noise relative to the exact one, 1.

    Raises:
        ValueError: if eta lies outside [0, 1], there is not one a step, or s_noise is negative.
    """
    return ancestral(schedule, times, _euler, eta, s_noise)


@solver(
    "Lu et al. 2022, arXiv:2206.00927; Song et al. 2021, arXiv:2010.02502",
    Claim(2, point_exact=True, strong=1.0),
    Claim(2, {"eta": 0.5}, point_exact=True, strong=1.0),
    Claim(2, {"eta": 0.0}, point_exact=True, exact=("noise", "rho", 1)),
)
def dpm_2_ancestral(
    schedule: Schedule,
    times: list[Scalar],
    eta: float | Sequence[float] = 1.0,
    s_noise: float = 1.0,
) -> Plan:
    """Ancestral sampling with DPM-Solver-2 steps down to rho_down, then noise up to rho_s.

    y_s = y_t + (rho_down - rho_t) eps_u + rho_up s_noise z, eps_u at
    rho_u = sqrt(rho_t rho_down) >= rho_s after an Euler step (at eta = 1, rho_u = rho_s: the
    trial point lies at s); rho_down and rho_up as for `euler_ancestral`. The sampler "DPM2 a" of
    k-diffusion. Two network calls a step, one in a step to sigma = 0.

    Lu et al., "DPM-Solver", 2022, arXiv:2206.00927, algorithm 1 (r = 1/2); the split of the noise
    is that of Song et al., "DDIM", 2021, arXiv:2010.02502, eq. 16.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the start may have alpha = 0, the end sigma = 0.
        eta, s_noise: as for `euler_ancestral`.

    Raises:
        ValueError: as for `euler_ancestral`.
    """
    return ancestral(schedule, times, _dpm_2, eta, s_noise)


@solver(
    "Lu et al. 2022, arXiv:2211.01095; Song et al. 2021, arXiv:2010.02502",
    Claim(2, point_exact=True, strong=1.0),
    Claim(2, {"eta": 0.5}, point_exact=True, strong=1.0),
    Claim(2, {"eta": 0.0}, point_exact=True, exact=("data", "lambda", 1)),
)
def dpm_solver_pp_2s_ancestral(
    schedule: Schedule,
    times: list[Scalar],
    eta: float | Sequence[float] = 1.0,
    s_noise: float = 1.0,
) -> Plan:
    """Ancestral sampling with DPM-Solver++(2S) steps down to rho_down, then noise up to rho_s.

    y_s = r y_t + (1 - r) d_u + rho_up s_noise z, r = rho_down/rho_t, d_u at
    rho_u = sqrt(rho_t rho_down) after an Euler step; rho_down and rho_up as for
    `euler_ancestral`. Two network calls a step, one in a step to sigma = 0.

    Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, algorithm 1 (r = 1/2); the split of the
    noise is that of Song et al., "DDIM", 2021, arXiv:2010.02502, eq. 16; the sampler
    "DPM++ 2S a" of k-diffusion.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the start may have alpha = 0, the end sigma = 0.
        eta, s_noise: as for `euler_ancestral`.

    Raises:
        ValueError: as for `euler_ancestral`.
    """
    return ancestral(schedule, times, _dpm_pp_2s, eta, s_noise)
