r"""Runge-Kutta methods of weak order 2 for the reverse SDE, whose noise does not depend on x.

With stochasticity tau (0: the probability-flow ODE, 1: the reverse SDE) and time running backwards,

    dx = a(x, t) dt + tau g dw,     a = f x - (1 + tau^2)/2 g^2 score.

For additive noise a method of weak order 2 needs of the noise in its trial state no more than the
covariance with that of the whole step: with N the noise gathered inside a step of length h,
cov(int N, N_end) = h^2 tau^2 g^2/2 + O(h^3). The trapezoidal rule gives h/2 of the trial state the
whole noise, the midpoint rule gives h of it the noise of half the step: either way that product.
(Kloeden & Platen, "Numerical solution of stochastic differential equations", 1992, section 14.2,
additive noise.)

In variable "lambda" the linear part and the noise are exact and d is interpolated, in "rho" the
noise is exact and eps is interpolated (module `exponential`); in "t" neither is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from ..form import Form
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar, log, sqrt
from ..schedule import Schedule
from ..trace import Trace
from .exponential import output, weights
from .solver import Claim, solver

Method = Callable[[Trace, Schedule, Form, Form, Scalar, Scalar, Scalar], Form]
"""(trace, schedule, x, d, t, s, tau) -> x_s."""


@solver(
    "Kloeden & Platen 1992",
    Claim(2, point_exact=True, strong=1.0),
    Claim(2, {"variable": "rho", "tau": 0.5}, strong=1.0),
    Claim(2, {"variable": "t"}, strong=1.0),
    Claim(2, {"tau": 0.5}, point_exact=True, strong=1.0),
    Claim(2, {"tau": 0.0}, point_exact=True, exact=("data", "lambda", 2)),
)
def stochastic_heun(
    schedule: Schedule, times: list[Scalar], variable: str = "lambda", tau: float = 1.0
) -> Plan:
    """Heun's method on the reverse SDE: the trapezoidal rule through a trial state at s.

    "t":        x_e = x_t + (s - t) a_t + N,  x_s = x_t + (s - t) (a_t + a_s(x_e))/2 + N,
                N = tau (g_t + g_s)/2 sqrt(t - s) z;
    "lambda":   the same with d as a line in lambda through t and s, integrated exactly;
    "rho":      the same with eps as a line in rho.

    Weak order 2, strong order 1; one draw and two network calls a step. A step from alpha = 0 or
    to sigma = 0 has one call: to sigma = 0 it goes to the mean, x_s = alpha_s d, without noise.

    Kloeden & Platen, "Numerical solution of stochastic differential equations", 1992, section
    14.2 (weak order 2), in the coordinates of the module.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start unless variable is "lambda"; sigma may be 0
            at the end.
        variable: "lambda", "rho" (sigma/alpha) or "t".
        tau: stochasticity, >= 0; 0 gives `heun` in "t" and in "rho".

    Raises:
        ValueError: an unknown variable; tau < 0.
    """
    methods: dict[str, Method] = {"lambda": _heun("data"), "rho": _heun("noise"), "t": _heun_in_t}
    return _two_stages(schedule, times, look_up("variable", variable, methods), tau)


@solver(
    "Kloeden & Platen 1992",
    Claim(2, point_exact=True, strong=1.0),
    Claim(2, {"variable": "rho"}, strong=1.0),
    Claim(2, {"variable": "t"}, strong=1.0),
    Claim(2, {"tau": 0.5}, point_exact=True, strong=1.0),
    Claim(2, {"tau": 0.0}, point_exact=True, exact=("data", "lambda", 1)),
)
def stochastic_midpoint(
    schedule: Schedule, times: list[Scalar], variable: str = "lambda", tau: float = 1.0
) -> Plan:
    """The midpoint rule on the reverse SDE: a trial state at u with the noise up to u.

    "t":        x_u = x_t + (u - t) a_t + tau g_t sqrt(t - u) z_1, u = (t + s)/2,
                x_s = x_t + (s - t) a_u + tau g_u (sqrt(t - u) z_1 + sqrt(u - s) z_2);
    "lambda":   u midway in lambda, and d_u held for the whole step, exactly;
    "rho":      u midway in rho, and eps_u held.

    Weak order 2, strong order 1; two draws, for (t, u) and (u, s), and two network calls a step.
    In "rho" the law on Gaussian data is even of order 3, measured.
    A step from alpha = 0 or to sigma = 0 as for `stochastic_heun`.

    Kloeden & Platen, "Numerical solution of stochastic differential equations", 1992, section
    14.2 (weak order 2), in the coordinates of the module.

    Args:
        schedule, times, variable: as for `stochastic_heun`.
        tau: stochasticity, >= 0; 0 gives `midpoint` in "t" and in "rho".

    Raises:
        ValueError: as for `stochastic_heun`.
    """
    methods: dict[str, Method] = {
        "lambda": _midpoint("data"),
        "rho": _midpoint("noise"),
        "t": _midpoint_in_t,
    }
    return _two_stages(schedule, times, look_up("variable", variable, methods), tau)


def _two_stages(schedule: Schedule, times: list[Scalar], method: Method, tau: float) -> Plan:
    if tau < 0:
        raise ValueError(f"tau = {tau} must not be negative: 0 is the ODE, 1 the reverse SDE")
    trace = Trace(times[0])
    x = trace.x
    for t, s in pairwise(times):
        x, d = trace.denoise(x, t)
        if schedule.sigma(s) == 0:
            x = schedule.alpha(s) * d
        else:
            x = method(trace, schedule, x, d, t, s, tau)
    return trace.end(x, times[-1])


def _heun(prediction: str) -> Method:
    variable = {"data": "lambda", "noise": "rho"}[prediction]

    def step(
        trace: Trace, schedule: Schedule, x: Form, d: Form, t: Scalar, s: Scalar, tau: Scalar
    ) -> Form:
        z = trace.noise(t, s) if tau else None
        first = output(schedule, x, d, t, prediction)
        trial = weights(schedule, t, s, [t], prediction, variable, tau).state(x, [first], z)
        if schedule.alpha(t) == 0:  # h is infinite
            return trial
        trial, d_s = trace.stage(trial, s)
        second = output(schedule, trial, d_s, s, prediction)
        whole = weights(schedule, t, s, [t, s], prediction, variable, tau)
        return whole.state(x, [first, second], z)

    return step


def _midpoint(prediction: str) -> Method:
    def step(
        trace: Trace, schedule: Schedule, x: Form, d: Form, t: Scalar, s: Scalar, tau: Scalar
    ) -> Form:
        first = output(schedule, x, d, t, prediction)
        if schedule.alpha(t) == 0:  # h is infinite
            z = trace.noise(t, s) if tau else None
            return weights(schedule, t, s, [t], prediction, tau=tau).state(x, [first], z)
        u = _middle(schedule, t, s, prediction)
        z_1, z_2 = (trace.noise(t, u), trace.noise(u, s)) if tau else (None, None)
        here = weights(schedule, t, u, [t], prediction, tau=tau)
        x_u, d_u = trace.stage(here.state(x, [first], z_1), u)
        # The noise of (t, u) is carried on to s like any state, that of (u, s) added.
        whole = weights(schedule, t, s, [u], prediction, tau=tau)
        rest = weights(schedule, u, s, [u], prediction, tau=tau)
        y = whole.state(x, [output(schedule, x_u, d_u, u, prediction)])
        return y if z_1 is None or z_2 is None else y + rest.x * here.z * z_1 + rest.z * z_2

    return step


def _middle(schedule: Schedule, t: Scalar, s: Scalar, prediction: str) -> Scalar:
    if prediction == "data":
        return schedule.time_of((schedule.half_log_snr(t) + schedule.half_log_snr(s)) / 2)
    return schedule.time_of(-log((schedule.rho(t) + schedule.rho(s)) / 2))


def _drift(schedule: Schedule, x: Form, d: Form, t: Scalar, tau: Scalar) -> Form:
    """f x - (1 + tau^2)/2 g^2 score = alpha' d + sigma' eps + tau^2/2 g^2 eps/sigma."""
    alpha_dot, sigma_dot = schedule.derivatives(t)
    extra = tau**2 * schedule.g2(t) / (2 * schedule.sigma(t)) if tau else 0.0
    return alpha_dot * d + (sigma_dot + extra) * output(schedule, x, d, t, "noise")


def _heun_in_t(
    trace: Trace, schedule: Schedule, x: Form, d: Form, t: Scalar, s: Scalar, tau: Scalar
) -> Form:
    first = _drift(schedule, x, d, t, tau)
    start = x
    if tau:
        g = (sqrt(schedule.g2(t)) + sqrt(schedule.g2(s))) / 2
        start = x + tau * g * sqrt(t - s) * trace.noise(t, s)
    trial, d_s = trace.stage(start + (s - t) * first, s)
    return start + (s - t) / 2 * (first + _drift(schedule, trial, d_s, s, tau))


def _midpoint_in_t(
    trace: Trace, schedule: Schedule, x: Form, d: Form, t: Scalar, s: Scalar, tau: Scalar
) -> Form:
    u = (t + s) / 2
    trial = x + (u - t) * _drift(schedule, x, d, t, tau)
    z_1, z_2 = (trace.noise(t, u), trace.noise(u, s)) if tau else (Form({}), Form({}))
    if tau:
        trial = trial + tau * sqrt(schedule.g2(t) * (t - u)) * z_1
    x_u, d_u = trace.stage(trial, u)
    y = x + (s - t) * _drift(schedule, x_u, d_u, u, tau)
    return y + tau * sqrt(schedule.g2(u) * (t - u)) * (z_1 + z_2) if tau else y
