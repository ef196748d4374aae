r"""Linear multistep methods on the probability-flow ODE: Adams-Bashforth in rho or in phi.

With y = x/alpha and rho = sigma/alpha the ODE is dy/drho = eps, and a method of order k takes

    y_s = y_t + (rho_s - rho_t) e,     e = sum_j b_j eps_j

over its last k values of eps. LMS integrates their interpolant exactly on any grid. iPNDM and PNDM
keep the b_j of even steps in rho on every grid, which is of order 2 where step sizes change
smoothly and of order 1 where they alternate.
With y = x/(alpha + sigma) and phi = sigma/(alpha + sigma), the time of flow matching, the ODE is
dy/dphi = v = eps - d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from ..form import Form
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar
from ..schedule import Schedule
from ..trace import Trace
from .adams import multistep
from .exponential import output
from .solver import Claim, solver

Weights = Callable[[list[Scalar]], list[Scalar]]

EVEN = {
    1: [1.0],
    2: [3 / 2, -1 / 2],
    3: [23 / 12, -16 / 12, 5 / 12],
    4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
}
"""Adams-Bashforth weights b_j on even steps, latest first (Hairer et al. 1993, section III.1)."""


@solver(
    "Zhang & Chen 2023, arXiv:2204.13902",
    Claim(2, point_exact=True, exact=("noise", "rho", 1)),
    Claim(2, {"order": 2}, point_exact=True, exact=("noise", "rho", 1)),
    Claim(2, {"order": 3}, point_exact=True, exact=("noise", "rho", 1)),
    Claim(4, {"coefficients": "variable"}, 2, True, ("noise", "rho", 4)),
    Claim(3, {"order": 3, "coefficients": "shipped"}, 2, True, ("noise", "rho", 2)),
)
def ipndm(
    schedule: Schedule,
    times: list[Scalar],
    order: int = 4,
    coefficients: str = "even",
    lower_last: bool = False,
) -> Plan:
    """Improved pseudo numerical methods: Adams-Bashforth weights on eps, lower orders at first.

    x_s = (alpha_s/alpha_t) x_t + alpha_s (rho_s - rho_t) e, e = sum_j b_j eps_j, e.g. for order 4
    e = (55 eps_t - 59 eps_1 + 37 eps_2 - 9 eps_3)/24. With a start of full order it is `pndm`
    ("even") or `lms` ("variable").

    Zhang & Chen, "Fast sampling of diffusion models with exponential integrator", 2023,
    arXiv:2204.13902, section 4 (iPNDM); after Liu et al., "PNDM", 2022, arXiv:2202.09778.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; at least `order` steps.
        order: 1 to 4, the number of past outputs; 1 is DDIM. With "even" coefficients, all of 2
            to 4 converge at order 2 unless steps are even in rho, and at 1 if sizes alternate.
        coefficients: "even", those of even steps, whatever the grid; "variable", the exact ones
            of the grid, equal to `lms`; "shipped", those of `ipndm_v` in the diff-sampler code,
            which have slips: order 2 is right, order 3 falls to 2 where step ratios alternate,
            order 4 is of order 3 on grids even in lambda and does not converge where step ratios
            alternate, since its weights no longer sum to 1.
        lower_last: end with steps of orders ..., 2, 1.

    Raises:
        ValueError: order above the number of steps or outside 1 .. 4; a wrong word.
    """
    kinds: dict[str, Weights] = {"even": lambda h: list(EVEN[len(h)]), "shipped": _shipped}
    chosen = look_up("coefficients", coefficients, {**kinds, "variable": None})
    if isinstance(order, bool | float) or order not in EVEN:
        raise ValueError(f"order = {order!r} must be an integer from 1 to 4")
    if order > len(times) - 1:
        raise ValueError(
            f"order = {order} needs at least {order} steps, and the grid has {len(times) - 1}"
        )
    if chosen is None:
        return multistep(schedule, times, order, "noise", "rho", lower_last=lower_last)
    trace = Trace(times[0])
    x = trace.x
    past: list[Form] = []  # eps, latest first
    for i, (t, s) in enumerate(pairwise(times)):
        x, d = trace.denoise(x, t)
        past = [output(schedule, x, d, t, "noise"), *past][:order]
        if lower_last:
            past = past[: len(times) - 1 - i]
        nodes = [schedule.rho(u) for u in [s, *times[max(i - len(past) + 1, 0) : i + 1][::-1]]]
        b = chosen([u - v for u, v in pairwise(nodes)])
        x = _transfer(schedule, d, past[0], _combine(b, past), t, s)
    return trace.end(x, times[-1])


@solver("Liu et al. 2022, arXiv:2202.09778", Claim(2, point_exact=True))
def pndm(schedule: Schedule, times: list[Scalar], lower_last: bool = False) -> Plan:
    """Pseudo numerical methods (PRK, then PLMS): Runge-Kutta and Adams-Bashforth on eps.

    Every move is a DDIM step ("transfer") with a better eps: in the first three steps
    e = (e_1 + 2 e_2 + 2 e_3 + e_4)/6 from classical Runge-Kutta stages at t, twice at
    (t + s)/2 and at s; then e = (55 eps_t - 59 eps_1 + 37 eps_2 - 9 eps_3)/24.

    Four network calls in each of the first three steps, one in the others. Of order 2 on grids
    that are uneven in rho, like `ipndm`; of order 4 on grids that are even in rho. A step to
    sigma = 0 among the first three is a DDIM step.

    Liu et al., "Pseudo numerical methods for diffusion models on manifolds", 2022,
    arXiv:2202.09778, section 3.3 and algorithm 2.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start.
        lower_last: end with steps of orders ..., 2, 1, as far as they are no Runge-Kutta steps.
    """
    trace = Trace(times[0])
    x = trace.x
    past: list[Form] = []
    for i, (t, s) in enumerate(pairwise(times)):
        x, d = trace.denoise(x, t)
        past = [output(schedule, x, d, t, "noise"), *past][:4]
        if i >= 3:
            past = past[: len(times) - 1 - i] if lower_last else past
            e = _combine(EVEN[len(past)], past)
        elif schedule.sigma(s) == 0:
            e = past[0]
        else:
            e = _pseudo_runge_kutta(trace, schedule, d, past[0], t, s)
        x = _transfer(schedule, d, past[0], e, t, s)
    return trace.end(x, times[-1])


def _pseudo_runge_kutta(
    trace: Trace, schedule: Schedule, d: Form, eps: Form, t: Scalar, s: Scalar
) -> Form:
    """(e_1 + 2 e_2 + 2 e_3 + e_4)/6 of a step from t to s, e_1 = eps."""
    middle = (t + s) / 2
    slopes = [eps]
    for u in (middle, middle, s):
        y, d_u = trace.stage(_transfer(schedule, d, eps, slopes[-1], t, u), u)
        slopes.append(output(schedule, y, d_u, u, "noise"))
    return _combine([1 / 6, 1 / 3, 1 / 3, 1 / 6], slopes)


def _transfer(schedule: Schedule, d: Form, eps: Form, e: Form, t: Scalar, s: Scalar) -> Form:
    """The DDIM step from t to s with e in the place of eps (Liu et al. 2022, eq. 11)."""
    alpha_s, sigma_s = schedule(s)
    x = alpha_s * d + sigma_s * eps  # regular at alpha_t = 0, where e = eps
    return x if e is eps else x + alpha_s * (schedule.rho(s) - schedule.rho(t)) * (e - eps)


def _combine(b: Sequence[Scalar], past: Sequence[Form]) -> Form:
    if len(past) == 1:
        return past[0]
    return sum((w * e for w, e in zip(b, past, strict=True)), Form({}))


def _shipped(h: list[Scalar]) -> list[Scalar]:
    """The weights of `ipndm_v` in diff-sampler, errors included.

    Newton's form, e = A_0 + c_1 A_1 + c_2 A_2 + c_3 A_3, with A_j the j-th divided difference of
    eps times the product of the lengths that it spans. Three slips, each marked with what is
    right: a bracket in c_2, a sign in c_3, an index in the last entry of A_3.

    Args:
        h: the step, then the steps before it, latest first, in rho.
    """
    if len(h) == 1:
        return [1.0]
    c_1 = h[0] / h[1] / 2
    b: list[Scalar] = [1 + c_1, -c_1]
    if len(h) == 2:
        return b
    r, ahead, back = h[0] / (3 * (h[0] + h[1])), h[0] * (h[0] + h[1]), h[1] * (h[1] + h[2])
    c_2 = (1 - r * ahead / back) / 2  # right: (1 - r) * ahead / back / 2
    slope = h[1] / h[2]
    b = [b[0] + c_2, b[1] - (1 + slope) * c_2, slope * c_2]
    if len(h) == 3:
        return b
    reach, span = h[0] + h[1] + h[2], h[1] + h[2] + h[3]
    tail = (1 - h[0] / (2 * (h[0] + h[1]))) * h[0] / (6 * reach)
    c_3 = ((1 - r) / 2 + tail) * ahead * reach / (back * span)  # right: minus tail
    bend = back / (h[2] * (h[2] + h[3]))
    last = bend * slope  # right: bend * h[2] / h[3]
    return [
        b[0] + c_3,
        b[1] - (1 + slope + bend) * c_3,
        b[2] + (slope + bend * (1 + h[2] / h[3])) * c_3,
        -last * c_3,
    ]


@solver(
    "Liu et al. 2022, arXiv:2202.09778; Zhang & Chen 2023, arXiv:2204.13902",
    Claim(4, warm_up=2, point_exact=True, exact=("noise", "rho", 4)),
    Claim(1, {"order": 1}, point_exact=True, exact=("noise", "rho", 1)),
    Claim(2, {"order": 2}, point_exact=True, exact=("noise", "rho", 2)),
    Claim(3, {"order": 3}, 2, True, ("noise", "rho", 3)),
    Claim(4, {"first_steps": "full"}, None, True, ("noise", "rho", 4)),
)
def lms(
    schedule: Schedule,
    times: list[Scalar],
    order: int = 4,
    first_steps: str = "lower",
    lower_last: bool = False,
    last_step: str = "apart",
) -> Plan:
    """Linear multistep in rho: Adams-Bashforth with the exact weights of the grid.

    y_s = y_t + sum_j eps_j int l_j(rho) drho, y = x/alpha, l_j the Lagrange polynomials of the
    last `order` nodes in rho. The sampler "LMS" of k-diffusion (there by numerical quadrature,
    and with last_step="latest"), and DEIS in rho: the same plan as `deis` with variable="rho".

    Zhang & Chen, "Fast sampling of diffusion models with exponential integrator", 2023,
    arXiv:2204.13902, section 3.3 (rhoAB); Hairer, Norsett & Wanner, "Solving ordinary
    differential equations I", 1993, section III.5 (variable steps).

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; alpha > 0 at the start, sigma may be 0 at the end; at least
            `order` steps.
        order: 1 to 8, the number of past outputs; 1 is DDIM.
        first_steps, lower_last, last_step: as for `adams`.

    Raises:
        ValueError: as for `adams`.
    """
    return multistep(
        schedule,
        times,
        order,
        "noise",
        "rho",
        first_steps=first_steps,
        lower_last=lower_last,
        last_step=last_step,
    )


@solver(
    "Lipman et al. 2023, arXiv:2210.02747",
    Claim(3, warm_up=2, point_exact=True, exact=("velocity", "phi", 3)),
    Claim(1, {"order": 1}, point_exact=True, exact=("velocity", "phi", 1)),
    Claim(2, {"order": 2}, point_exact=True, exact=("velocity", "phi", 2)),
    Claim(4, {"order": 4, "first_steps": "full"}, None, True, ("velocity", "phi", 4)),
)
def velocity_adams(
    schedule: Schedule,
    times: list[Scalar],
    order: int = 3,
    first_steps: str = "lower",
    lower_last: bool = False,
    last_step: str = "apart",
) -> Plan:
    """Adams-Bashforth on the velocity of flow matching, for every schedule.

    y_s = y_t + sum_j v_j int l_j(phi) dphi, with y = x/(alpha + sigma), v = eps - d and
    phi = sigma/(alpha + sigma); on the schedule alpha = 1 - t, sigma = t, plainly x, dx/dt and t.
    Regular at both ends, alpha = 0 and sigma = 0. The sampler "vAB" of azula.

    Lipman et al., "Flow matching for generative modeling", 2023, arXiv:2210.02747, example II
    (the straight path); Hairer, Norsett & Wanner, "Solving ordinary differential equations I",
    1993, section III.5 (variable steps).

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean, either end may be exact; at least `order` steps.
        order: 1 to 8, the number of past outputs; 1 is DDIM.
        first_steps, lower_last, last_step: as for `adams`.

    Raises:
        ValueError: as for `adams`.
    """
    return multistep(
        schedule,
        times,
        order,
        "velocity",
        "phi",
        first_steps=first_steps,
        lower_last=lower_last,
        last_step=last_step,
    )
