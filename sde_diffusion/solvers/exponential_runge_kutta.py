r"""Exponential Runge-Kutta methods (RES) on the probability-flow ODE in lambda.

With y = x/alpha and D = E[x_0 | x], or y = x/sigma and eps (Lu et al. 2022, arXiv:2211.01095,
proposition 4.1, as differential equations),

    dy/dlambda = -y + D        data prediction
    dy/dlambda =  y - eps      noise prediction

are semilinear, y' = L y + N(y) with L = -1 or +1. A method with nodes c_i, h = lambda_s - lambda_t
and z = L h steps by

    y_i = e^{c_i z} y_t + h sum_j a_ij(z) N_j,      y_s = e^z y_t + h sum_i b_i(z) N_i,

a_ij, b_i being sums of phi_k(c_i z). Methods whose order conditions hold for every z, and not only
as z -> 0, keep their order at steps of any size in lambda ("stiff" order): for orders 2 and 3

    sum_i b_i = phi_1,   sum_i b_i c_i = phi_2,   sum_i b_i psi_i = 0,

where psi_i = c_i^2 phi_2(c_i z) - sum_j a_ij c_j is what stage i misses on N linear in lambda;
sum_i b_i c_i^2 = 2 phi_3 need hold at z = 0 only. DPM-Solver-2 and ++2S have sum_i b_i c_i =
phi_1/2 in place of phi_2: equal at h = 0 only, so that N linear in lambda is not exact.

Hochbruck & Ostermann, "Explicit exponential Runge-Kutta methods for semilinear parabolic
problems", 2005, sections 4-5; "Exponential integrators", 2010, section 2.3. Zhang, Song & Chen,
"Improved order analysis and design of exponential integrator for diffusion models sampling",
2023, arXiv:2308.02157.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from ..form import Form
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar, phi
from ..schedule import Schedule
from ..trace import Trace
from .exponential import output, weights
from .solver import Claim, solver

Coefficients = list[list[Scalar]]
"""Row i: a_ij(z) for j < i; the last row is b_i(z)."""


def _two(z: Scalar, c2: float) -> Coefficients:
    b2 = phi(2, z) / c2
    return [[c2 * phi(1, c2 * z)], [phi(1, z) - b2, b2]]


def _three(z: Scalar, c2: float, c3: float) -> Coefficients:
    gamma = (3 * c3**2 - 2 * c3) / (c2 * (2 - 3 * c2))  # b_2 = gamma b_3
    a32 = gamma * c2 * phi(2, c2 * z) + c3**2 / c2 * phi(2, c3 * z)
    b3 = phi(2, z) / (gamma * c2 + c3)
    return [
        [c2 * phi(1, c2 * z)],
        [c3 * phi(1, c3 * z) - a32, a32],
        [phi(1, z) - (1 + gamma) * b3, gamma * b3, b3],
    ]


def _krogstad(z: Scalar) -> Coefficients:
    one, two, three = phi(1, z), phi(2, z), phi(3, z)
    half, half_two = phi(1, z / 2), phi(2, z / 2)
    middle = 2 * two - 4 * three
    return [
        [half / 2],
        [half / 2 - half_two, half_two],
        [one - 2 * two, 0.0, 2 * two],
        [one - 3 * two + 4 * three, middle, middle, 4 * three - two],
    ]


def _hochbruck_ostermann(z: Scalar) -> Coefficients:
    one, two, three = phi(1, z), phi(2, z), phi(3, z)
    half, half_two, half_three = (phi(k, z / 2) for k in (1, 2, 3))
    a52 = half_two / 2 - three + two / 4 - half_three / 2
    a54 = half_two / 4 - a52
    return [
        [half / 2],
        [half / 2 - half_two, half_two],
        [one - 2 * two, two, two],
        [half / 2 - 2 * a52 - a54, a52, a52, a54],
        [one - 3 * two + 4 * three, 0.0, 0.0, 4 * three - two, 4 * two - 8 * three],
    ]


def exponential_runge_kutta(
    schedule: Schedule,
    times: list[Scalar],
    nodes: tuple[float, ...],
    coefficients: Callable[[Scalar], Coefficients],
    prediction: str,
) -> Plan:
    """One plan for every table of phi functions; a step of infinite h is one of order 1 (DDIM).

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean.
        nodes: c_2, c_3, ..., where the stages sit in the step, as fractions of it in lambda.
        coefficients: z -> rows a_2, a_3, ..., b.
        prediction: "data" or "noise".
    """
    look_up("prediction", prediction, {"data": 0, "noise": 0})
    trace = Trace(times[0])
    x = trace.x
    for t, s in pairwise(times):
        lambda_t = schedule.half_log_snr(t)
        h = schedule.half_log_snr(s) - lambda_t
        x, d = trace.denoise(x, t)
        outputs = [output(schedule, x, d, t, prediction)]
        if h == math.inf:
            x = weights(schedule, t, s, [t], prediction).state(x, outputs)
            continue
        rows = coefficients(-h if prediction == "data" else h)
        for c, row in zip(nodes, rows, strict=False):
            u = s if c == 1 else schedule.time_of(lambda_t + c * h)
            stage, d = trace.stage(_move(schedule, x, t, u, h, row, outputs, prediction), u)
            outputs.append(output(schedule, stage, d, u, prediction))
        x = _move(schedule, x, t, s, h, rows[-1], outputs, prediction)
    return trace.end(x, times[-1])


def _move(
    schedule: Schedule,
    x: Form,
    t: Scalar,
    u: Scalar,
    h: Scalar,
    row: list[Scalar],
    outputs: list[Form],
    prediction: str,
) -> Form:
    """e^{c z} y_t + h sum_j a_j N_j, times alpha_u (data) or sigma_u (noise)."""
    (alpha_t, sigma_t), (alpha_u, sigma_u) = schedule(t), schedule(u)
    terms = [a * out for a, out in zip(row, outputs, strict=True) if isinstance(a, Tensor) or a]
    if prediction == "data":
        return sigma_u / sigma_t * x + alpha_u * h * sum(terms, Form({}))
    return alpha_u / alpha_t * x - sigma_u * h * sum(terms, Form({}))


def _check_node(name: str, c: float) -> None:
    if not 0 < c <= 1:
        raise ValueError(f"{name} = {c} must lie in (0, 1]: a stage sits inside the step")


@solver(
    "Zhang et al. 2023, arXiv:2308.02157",
    Claim(2, point_exact=True, exact=("data", "lambda", 2)),
    Claim(2, {"prediction": "noise"}, point_exact=True, exact=("noise", "lambda", 2)),
    Claim(2, {"c2": 1.0}, point_exact=True, exact=("data", "lambda", 2)),
)
def res_2s(
    schedule: Schedule, times: list[Scalar], prediction: str = "data", c2: float = 0.5
) -> Plan:
    """RES, single step of order 2: the one two-stage family of stiff order 2.

    a_21 = c_2 phi_1(c_2 z), b_2 = phi_2 / c_2, b_1 = phi_1 - b_2; two network calls a step.
    DPM-Solver++(2S) has b_2 = phi_1 / (2 c_2): of order 2 as h -> 0, but not exact for D linear in
    lambda, and of stiff order 1. A step to sigma = 0 or from alpha = 0 is one of DDIM.

    Zhang et al., "Improved order analysis and design of exponential integrator for diffusion
    models sampling", 2023, arXiv:2308.02157; Hochbruck & Ostermann, 2005, section 5.1.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; with noise prediction alpha > 0 at the start.
        prediction: "data" or "noise".
        c2: in (0, 1], where the stage sits, as a fraction of the step in lambda.

    Raises:
        ValueError: for another prediction; c2 outside (0, 1].
    """
    _check_node("c2", c2)
    return exponential_runge_kutta(schedule, times, (c2,), lambda z: _two(z, c2), prediction)


@solver(
    "Zhang et al. 2023, arXiv:2308.02157",
    Claim(3, point_exact=True, exact=("data", "lambda", 2)),
    Claim(3, {"prediction": "noise"}, point_exact=True, exact=("noise", "lambda", 2)),
    Claim(3, {"c2": 1 / 3, "c3": 2 / 3}, point_exact=True, exact=("data", "lambda", 2)),
)
def res_3s(
    schedule: Schedule,
    times: list[Scalar],
    prediction: str = "data",
    c2: float = 0.5,
    c3: float = 1.0,
) -> Plan:
    """RES, single step of order 3.

    gamma = (3 c_3^2 - 2 c_3)/(c_2 (2 - 3 c_2)), a_32 = gamma c_2 phi_2(c_2 z) + (c_3^2/c_2)
    phi_2(c_3 z), b_3 = phi_2/(gamma c_2 + c_3), b_2 = gamma b_3, b_1 = phi_1 - b_2 - b_3; three
    network calls a step. With c_2 = 1/3 and c_3 = 2/3, gamma = 0: DPM-Solver-3 (noise prediction).

    Zhang et al., 2023, arXiv:2308.02157; Hochbruck & Ostermann, 2005, section 5.2.

    Args:
        schedule, times, prediction: as for `res_2s`.
        c2, c3: in (0, 1], different, where the stages sit; c2 not 2/3.

    Raises:
        ValueError: for another prediction; nodes out of range, equal, or without a solution of
            the order conditions.
    """
    _check_node("c2", c2)
    _check_node("c3", c3)
    singular = abs(2 - 3 * c2) < 1e-9
    gamma = math.nan if singular else (3 * c3**2 - 2 * c3) / (c2 * (2 - 3 * c2))
    if c2 == c3 or singular or abs(gamma * c2 + c3) < 1e-9:
        raise ValueError(
            f"c2 = {c2:g}, c3 = {c3:g} leave the order conditions without a solution: take "
            "different nodes with c2 not 2/3, as 1/2 and 1, or 1/3 and 2/3"
        )
    return exponential_runge_kutta(
        schedule, times, (c2, c3), lambda z: _three(z, c2, c3), prediction
    )


@solver(
    "Krogstad 2005, doi:10.1016/j.jcp.2004.08.006",
    Claim(4, point_exact=True, exact=("data", "lambda", 3)),
)
def krogstad(schedule: Schedule, times: list[Scalar], prediction: str = "data") -> Plan:
    """Krogstad's exponential Runge-Kutta method: order 4 (stiff order 3), four calls a step.

    Krogstad, "Generalized integrating factor methods for stiff PDEs", Journal of Computational
    Physics 203, 2005; table as in Hochbruck & Ostermann, 2005, section 5.3.

    Args:
        schedule, times, prediction: as for `res_2s`.
    """
    return exponential_runge_kutta(schedule, times, (0.5, 0.5, 1.0), _krogstad, prediction)


@solver(
    "Hochbruck & Ostermann 2005, doi:10.1137/040611434",
    Claim(4, point_exact=True, exact=("data", "lambda", 3)),
)
def hochbruck_ostermann(schedule: Schedule, times: list[Scalar], prediction: str = "data") -> Plan:
    """The exponential Runge-Kutta method of stiff order 4 with five calls a step.

    Hochbruck & Ostermann, "Explicit exponential Runge-Kutta methods for semilinear parabolic
    problems", SIAM Journal on Numerical Analysis 43, 2005, section 5.3.

    Args:
        schedule, times, prediction: as for `res_2s`.
    """
    nodes = (0.5, 0.5, 1.0, 0.5)
    return exponential_runge_kutta(schedule, times, nodes, _hochbruck_ostermann, prediction)
