r"""ER-SDE-Solvers: one family between the probability-flow ODE, the reverse SDE and beyond.

In y = x/alpha and rho = sigma/alpha every process is the variance-exploding one, and every reverse
process with its marginals is given by a noise function phi(rho). From t to s, with
r = phi(rho_s)/phi(rho_t) and z standard normal,

    y_s = r y_t + phi(rho_s) int_{rho_s}^{rho_t} phi'(rho)/phi(rho)^2 D(rho) drho
          + sqrt(rho_s^2 - r^2 rho_t^2) z.

phi = rho is the ODE (no noise), phi = rho^2 the reverse SDE; phi/rho must not decrease, or the
variance is negative. With D as Newton's polynomial D_t + d_1 (rho - rho_t) + d_2 (rho - rho_t)
(rho - rho_prev) + ..., integration by parts leaves integrals of 1/phi.

Cui et al., "Elucidating the solution space of extended reverse-time SDE for diffusion models",
2023, arXiv:2309.06169.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ..form import Form
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar, exp, log, sqrt
from ..schedule import Schedule
from ..trace import Trace
from .multistep import check_order
from .solver import Claim, solver

NoiseFunction = Callable[[Scalar], Scalar]

EXCESS: dict[str, NoiseFunction] = {
    "ode": lambda rho: 1.0,
    "sde": lambda rho: rho,
    "er_sde_1": lambda rho: exp(-1 / rho) + 10,
    "er_sde_2": lambda rho: rho**0.5,
    "er_sde_3": lambda rho: rho**1.5,
    "er_sde_4": lambda rho: rho**-0.1 * log(1 + 100 * rho**1.5) / math.log(10),
    "er_sde_5": lambda rho: exp(rho**0.3) + 10,
}
"""phi(rho) / rho of the paper's noise functions."""

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(24)


@solver(
    "Cui et al. 2023, arXiv:2309.06169",
    Claim(2, point_exact=True, strong=1.0),
    Claim(1, {"order": 1}, point_exact=True, strong=1.0),
    Claim(2, {"order": 2}, point_exact=True, strong=1.0),
    Claim(2, {"order": 2, "phi": "er_sde_5"}, point_exact=True, strong=1.0),
    Claim(2, {"difference": "shipped"}, point_exact=True, strong=1.0),
    Claim(2, {"phi": "sde"}, None, True, ("data", "rho", 3), 1.0),
    Claim(3, {"phi": "ode"}, 2, True, ("data", "rho", 3)),
    Claim(2, {"phi": "ode", "difference": "shipped"}, None, True, ("data", "rho", 2)),
)
def er_sde(
    schedule: Schedule,
    times: list[Scalar],
    order: int = 3,
    phi: str | NoiseFunction = "er_sde_1",
    difference: str = "full",
    lower_last: bool = False,
) -> Plan:
    """ER-SDE-Solver-1, 2 and 3: D as a polynomial in rho through its last `order` values.

    The row of the module, the integral by Gauss-Legendre quadrature in log rho (the authors' code
    takes a sum of 100 terms). The first steps have orders 1, 2; a step to sigma = 0 is D. The
    paper's third order takes (D_t - D_prev)/(rho_t - rho_prev) for the slope at rho_t, which is
    its slope half a step earlier: that lowers order 3 to 2 even for the ODE. Here the polynomial
    is whole. Where there is noise, one draw a step holds the weak order at 2 all the same,
    though with a constant so small that order 3 shows down to errors of 1e-5. Without noise it is
    `adams` in rho, which has a start of full order.

    Cui et al., 2023, arXiv:2309.06169, section 4, algorithms 1-3 (phi: appendix A.8).

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; at least `order` steps.
        order: 1, 2 or 3.
        phi: a word, or a function of rho = sigma/alpha in (0, inf), in terms of float or tensor:
            "ode" rho, "sde" rho^2, "er_sde_1" rho (e^{-1/rho} + 10), "er_sde_2" rho^1.5,
            "er_sde_3" rho^2.5, "er_sde_4" rho^0.9 log10(1 + 100 rho^1.5),
            "er_sde_5" rho (e^{rho^0.3} + 10), the default of the authors' code.
        difference: "full" or "shipped".
        lower_last: end with steps of orders ..., 2, 1.

    Raises:
        ValueError: order outside 1 .. 3 or above the number of steps; an unknown word; phi/rho
            that decreases, or is not positive, on the grid.
    """
    check_order(order, len(times) - 1)
    if order > 3:
        raise ValueError(f"order = {order} must be 1, 2 or 3")
    shipped = look_up("difference", difference, {"full": False, "shipped": True})
    user = None if isinstance(phi, str) else phi
    excess = (lambda rho: user(rho) / rho) if user else look_up("phi", str(phi), EXCESS)
    trace = Trace(times[0])
    x = trace.x
    past: list[tuple[Scalar, Form]] = []  # (rho, D), latest first
    for i, (t, s) in enumerate(pairwise(times)):
        (alpha_s, sigma_s), sigma_t = schedule(s), schedule.sigma(t)
        rho_t, rho_s = schedule.rho(t), schedule.rho(s)
        x, d = trace.denoise(x, t)
        past = [(rho_t, d), *past][:order]
        if lower_last:
            past = past[: len(times) - 1 - i]
        if sigma_s == 0:
            x = alpha_s * d
            continue
        growth = _growth(excess, rho_t, rho_s)  # r rho_t / rho_s
        r = growth * rho_s / rho_t
        x = growth * sigma_s / sigma_t * x + alpha_s * (1 - r) * d
        for weight, slope in _slopes(excess, past, rho_s, shipped):
            x = x + alpha_s * weight * slope
        if growth != 1:
            x = x + sigma_s * sqrt((1 - growth) * (1 + growth)) * trace.noise(t, s)
    return trace.end(x, times[-1])


def _growth(excess: NoiseFunction, rho_t: Scalar, rho_s: Scalar) -> Scalar:
    """(phi(rho_s)/rho_s) / (phi(rho_t)/rho_t), which lies in [0, 1]."""
    above, below = excess(rho_t), excess(rho_s)
    growth = below / above
    if not (below > 0 and above > 0 and growth <= 1 + 1e-12):
        raise ValueError(
            f"phi(rho)/rho goes from {float(above):.6g} at rho = {float(rho_t):.6g} to "
            f"{float(below):.6g} at {float(rho_s):.6g}: it must be positive and must not increase "
            "towards the clean end, or the variance of a step is negative; try phi='er_sde_1'"
        )
    return growth if growth < 1 else 1.0


def _slopes(
    excess: NoiseFunction, past: list[tuple[Scalar, Form]], rho_s: Scalar, shipped: bool
) -> list[tuple[Scalar, Form]]:
    """(weight, divided difference of D) of orders 1 and 2, through the outputs at finite rho."""
    past = [(rho, d) for rho, d in past if rho < math.inf]
    if len(past) < 2:
        return []
    (rho_0, d_0), (rho_1, d_1) = past[:2]
    first = (d_0 - d_1) / (rho_0 - rho_1)
    middle, half = (log(rho_s) + log(rho_0)) / 2, (log(rho_0) - log(rho_s)) / 2
    rhos = [exp(middle + half * float(u)) for u in _POINTS]
    phi_s = rho_s * excess(rho_s)
    measure = [phi_s * half * float(w) / excess(u) for u, w in zip(rhos, _WEIGHTS, strict=True)]
    step = rho_s - rho_0
    found: list[tuple[Scalar, Form]] = [(step + sum(measure), first)]
    if len(past) == 3:
        rho_2, d_2 = past[2]
        second = (first - (d_1 - d_2) / (rho_1 - rho_2)) / (rho_0 - rho_2)
        knot = rho_0 if shipped else rho_1
        tilt = sum(m * (2 * u - rho_0 - knot) for m, u in zip(measure, rhos, strict=True))
        found.append((step * (rho_s - knot) + tilt, second))
    return found
