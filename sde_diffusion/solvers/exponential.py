r"""One formula behind nearly every training-free sampler.

With constant stochasticity tau in a step from t to s (tau = 0 the probability-flow ODE, tau = 1
the reverse SDE), h = lambda_s - lambda_t and z standard normal,

    x_s = (sigma_s/sigma_t) e^{-tau^2 h} x_t + alpha_s int k e^{-k (lambda_s - l)} D(l) dl
          + sigma_s sqrt(1 - e^{-2 tau^2 h}) z,                                 k = 1 + tau^2
    x_s = (alpha_s/alpha_t) x_t - alpha_s k int eps d(-rho)
          + sigma_s tau sqrt(e^{2h} - 1) z
    x_s = ((alpha_s + sigma_s)/(alpha_t + sigma_t)) x_t + (alpha_s + sigma_s) int v d phi
    x_s = (r_s/r_t) x_t + r_s int w d theta

where D = E[x_0 | x], eps = (x - alpha D)/sigma, v = eps - D, rho = sigma/alpha, phi = sigma /
(alpha + sigma), the time of flow matching, theta = arctan(sigma/alpha), r = hypot(alpha, sigma)
and w = cos(theta) eps - sin(theta) D (the last two lines for tau = 0). Lu et al. 2022,
arXiv:2211.01095, proposition 4.1; Xue et al., "SA-Solver", 2023, arXiv:2309.05019, proposition
4.2; Gonzalez et al., "SEEDS", 2023, arXiv:2305.14267; Lipman et al. 2023, arXiv:2210.02747.

A method replaces the output under the integral by its Lagrange interpolant through some nodes, as
a polynomial in lambda, rho, phi, theta or t, and integrates it: `weights`. Past grid points as
nodes give the Adams-Bashforth methods, s among them the correctors, points inside the step
Runge-Kutta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..form import Form, number_of
from ..names import look_up
from ..scalar import Scalar, atan2, exp, expm1, ratio, sqrt
from ..schedule import Schedule

_MOVING = ("velocity", "angular")  # outputs that are a derivative of a rescaled state

_POINTS, _POINT_WEIGHTS = np.polynomial.legendre.leggauss(32)
_Y, _W = (_POINTS + 1) / 2, _POINT_WEIGHTS / 2  # on [0, 1]


class Weights(NamedTuple):
    """x_s = x * x_t + sum_j outputs[j] * output(node j) + z * noise(t, s)."""

    x: Scalar
    outputs: list[Scalar]
    z: Scalar

    def state(self, x: Form, outputs: Sequence[Form], z: Form | None = None) -> Form:
        """x_s, as a form over the state, the outputs at the nodes and a standard normal draw."""
        y = self.x * x
        for weight, out in zip(self.outputs, outputs, strict=True):
            y = y + weight * out
        return y if z is None else y + self.z * z


def output(schedule: Schedule, x: Form, d: Form, t: Scalar, prediction: str) -> Form:
    """What a method interpolates: D ("data"), eps ("noise"), v ("velocity") or w ("angular")."""
    if prediction == "data":
        return d
    alpha_t, sigma_t = schedule(t)
    eps = (x - alpha_t * d) / sigma_t
    if prediction == "angular":
        return (alpha_t * eps - sigma_t * d) / sqrt(alpha_t**2 + sigma_t**2)
    return eps if prediction == "noise" else eps - d


def weights(
    schedule: Schedule,
    t: Scalar,
    s: Scalar,
    nodes: Sequence[Scalar],
    prediction: str = "data",
    variable: str = "lambda",
    tau: Scalar = 0.0,
) -> Weights:
    """The step from t to s through given nodes, integrated exactly (to float64 rounding).

    Where the integral of the interpolant has no limit - a step to sigma = 0 with data prediction
    or in lambda, a step from alpha = 0 in lambda or rho - the first node alone carries the step
    and the others get weight 0.

    Args:
        schedule: alpha_t, sigma_t.
        t, s: the step, noisier to cleaner.
        nodes: the times of the outputs; the first is t for an explicit step.
        prediction: "data", "noise", "velocity" or "angular".
        variable: in which the interpolant is a polynomial: "lambda", "rho", "phi", "angle", "t".
        tau: stochasticity, >= 0; 0 for "velocity" and "angular".

    Raises:
        ValueError: for an unknown prediction or variable; tau < 0; tau with velocity.
    """
    look_up("prediction", prediction, {"data": 0, "noise": 0, "velocity": 0, "angular": 0})
    look_up("variable", variable, {"lambda": 0, "rho": 0, "phi": 0, "angle": 0, "t": 0})
    if tau < 0 or (tau and prediction in _MOVING):
        raise ValueError(
            f"tau = {tau} with {prediction} prediction: tau >= 0, and 0 for velocity and angular"
        )
    x, total, z = _first_order(schedule, t, s, prediction, tau)
    if len(nodes) == 1:
        return Weights(x, [total], z)
    shares = _shares(schedule, t, s, nodes, prediction, variable, tau)
    return Weights(x, [share * total for share in shares], z)


def regular_at_noise(prediction: str, variable: str) -> bool:
    """Whether the integral of the interpolant has a limit in a step from alpha = 0."""
    return prediction in _MOVING and variable not in ("lambda", "rho")


def _first_order(
    schedule: Schedule, t: Scalar, s: Scalar, prediction: str, tau: Scalar
) -> tuple[Scalar, Scalar, Scalar]:
    """(coefficient of x, of a constant output, of z): exact at sigma_s = 0 and alpha_t = 0."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    k = 1 + tau**2
    if prediction == "data":
        h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
        fade = exp(-(tau**2) * h) if tau else 1.0
        z = sigma_s * sqrt(-expm1(-2 * tau**2 * h)) if tau else 0.0
        return sigma_s / sigma_t * fade, -alpha_s * expm1(-k * h), z
    if prediction == "noise":
        rho_t, rho_s = schedule.rho(t), schedule.rho(s)
        z = alpha_s * tau * sqrt(rho_t**2 - rho_s**2) if tau else 0.0
        return alpha_s / alpha_t, alpha_s * k * (rho_s - rho_t), z
    if prediction == "angular":
        size, size_t = sqrt(alpha_s**2 + sigma_s**2), sqrt(alpha_t**2 + sigma_t**2)
        return size / size_t, size * (atan2(sigma_s, alpha_s) - atan2(sigma_t, alpha_t)), 0.0
    size = alpha_s + sigma_s
    move = sigma_s / size - sigma_t / (alpha_t + sigma_t)
    return size / (alpha_t + sigma_t), size * move, 0.0


def _shares(
    schedule: Schedule,
    t: Scalar,
    s: Scalar,
    nodes: Sequence[Scalar],
    prediction: str,
    variable: str,
    tau: Scalar,
) -> list[Scalar]:
    """The integral of each Lagrange polynomial, as a share of the integral of 1."""
    alone: list[Scalar] = [1.0, *(0.0 for _ in nodes[1:])]
    lambda_t, lambda_s = schedule.half_log_snr(t), schedule.half_log_snr(s)
    both = [number_of(lambda_t), number_of(lambda_s)]  # an inversion goes from clean to noisy
    noise, data = -math.inf in both, math.inf in both
    if data and (prediction == "data" or variable == "lambda"):
        return alone
    if noise and not regular_at_noise(prediction, variable):
        return alone
    places = [place(schedule, node, variable) for node in nodes]
    usable = [j for j, u in enumerate(places) if math.isfinite(number_of(u))]
    if variable == "t":
        u, measure = _along_time(schedule, t, s, lambda_s, prediction, tau)
    elif noise or data:
        u, measure = _along_noise(schedule, t, s, prediction, variable)
    else:
        u, measure = _along_lambda(lambda_t, lambda_s, prediction, variable, tau)
    norm = measure.sum()
    gaps = {m: u - places[m] for m in usable}
    shares: list[Scalar] = [0.0] * len(nodes)
    for j in usable:
        basis, size = measure, norm
        for m in usable:
            if m != j:
                basis, size = basis * gaps[m], size * (places[j] - places[m])
        share = (basis / size).sum()
        shares[j] = share if isinstance(share, Tensor) else float(share)
    return shares


def place(schedule: Schedule, t: Scalar, variable: str) -> Scalar:
    """The position of a time in the variable of the interpolant."""
    if variable == "t":
        return t
    if variable == "lambda":
        return schedule.half_log_snr(t)
    alpha_t, sigma_t = schedule(t)
    if variable == "angle":
        return atan2(sigma_t, alpha_t)
    return ratio(sigma_t, alpha_t) if variable == "rho" else sigma_t / (alpha_t + sigma_t)


def _along_lambda(
    lambda_t: Scalar, lambda_s: Scalar, prediction: str, variable: str, tau: Scalar
) -> tuple[Any, Any]:
    """(position, measure) at the points of a quadrature in lambda."""
    xp, y, w = _arrays(lambda_t, lambda_s, tau)
    h = lambda_s - lambda_t
    back = (1 - y) * h  # lambda_s - l
    rho = xp.exp(back)  # relative to rho_s, which scales out
    at = lambda_s - back
    u = {
        "lambda": at,
        "rho": xp.exp(-at),
        "phi": 1 / (1 + xp.exp(at)),
        "angle": xp.arctan(xp.exp(-at)),
    }[variable]
    if prediction == "data":
        return u, w * xp.exp(-(1 + tau**2) * back)
    if prediction == "angular":
        return u, w / (xp.exp(at) + xp.exp(-at))
    return u, w * (rho if prediction == "noise" else 1 / (2 + xp.exp(at) + xp.exp(-at)))


def _along_noise(
    schedule: Schedule, t: Scalar, s: Scalar, prediction: str, variable: str
) -> tuple[Any, Any]:
    """The same in rho (noise), phi or the angle, which stay finite where lambda is not."""
    name = {"noise": "rho", "velocity": "phi", "angular": "angle"}[prediction]
    a, b = place(schedule, t, name), place(schedule, s, name)
    xp, y, w = _arrays(a, b)
    u = a + (b - a) * y
    if variable == name:
        return u, w
    # Signal and noise scales of a schedule that has this variable for its time.
    alpha, sigma = {
        "rho": lambda: (1.0 + 0 * u, u),
        "phi": lambda: (1 - u, u),
        "angle": lambda: (xp.cos(u), xp.sin(u)),
    }[name]()
    if variable == "angle":
        return xp.arctan2(sigma, alpha), w
    return sigma / (alpha + sigma if variable == "phi" else alpha), w


def _along_time(
    schedule: Schedule,
    t: Scalar,
    s: Scalar,
    lambda_s: Scalar,
    prediction: str,
    tau: Scalar,
) -> tuple[Any, Any]:
    """The same in y with y^2 = 0 at the cleaner end, in which even sigma ~ sqrt(t) is smooth."""
    y, w = torch.from_numpy(_Y), torch.from_numpy(_W)
    clean, noisy = (s, t) if s < t else (t, s)  # a step of an inversion goes up
    times = clean + (noisy - clean) * y**2
    (alpha, sigma), (alpha_dot, sigma_dot) = schedule(times), schedule.derivatives(times)
    pace = 2 * y * w * (sigma_dot * alpha - alpha_dot * sigma)  # of arctan-like motion
    if prediction == "noise":
        measure = pace / alpha**2
    elif prediction == "velocity":
        measure = pace / (alpha + sigma) ** 2
    elif prediction == "angular":
        measure = pace / (alpha**2 + sigma**2)
    else:
        back = lambda_s - schedule.half_log_snr(times)
        measure = pace / (alpha * sigma) * exp(-(1 + tau**2) * back)
    if any(isinstance(v, Tensor) for v in (t, s, tau)):
        return times, measure
    return times.numpy(), measure.numpy()


def _arrays(*values: Scalar) -> tuple[Any, Any, Any]:
    """(array module, quadrature points, weights) in which gradients of the values survive."""
    if any(isinstance(v, Tensor) for v in values):
        return torch, torch.from_numpy(_Y), torch.from_numpy(_W)
    return np, _Y, _W
