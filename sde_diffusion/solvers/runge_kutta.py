r"""Explicit Runge-Kutta methods on the probability-flow ODE, from a Butcher tableau.

In time, dx/dt = f x - g^2/2 score = alpha' d + sigma' eps, with eps = (x - alpha d) / sigma and
score = -eps / sigma (Song et al. 2021, arXiv:2011.13456, eq. 13); the second form is regular at
alpha = 0. In rho = sigma/alpha, with y = x/alpha: dy/drho = eps = (y - d)/rho
(Karras et al. 2022, arXiv:2206.00364, eq. 4; Song et al., DDIM, arXiv:2010.02502, eq. 14).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from ..form import Form
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar, log
from ..schedule import Schedule
from ..trace import Trace
from .solver import Claim, solver


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: stage i sits at c_i and uses a_{ij}, j < i.

    Raises:
        ValueError: if it is not explicit or not consistent (sum_j a_ij = c_i, sum b = 1).
    """

    name: str
    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    def __post_init__(self) -> None:
        if [len(row) for row in self.a] != list(range(len(self.b))):
            raise ValueError(f"{self.name}: row i of a must have i entries, one row a weight b_i")
        if abs(sum(self.b) - 1) > 1e-12:
            raise ValueError(f"{self.name}: the weights b sum to {sum(self.b)}, not to 1")

    @property
    def c(self) -> tuple[float, ...]:
        """Where the stages sit in the step, c_i = sum_j a_ij."""
        return tuple(sum(row) for row in self.a)


TABLEAUX = {
    tableau.name: tableau
    for tableau in (
        Tableau("euler", 1, ((),), (1.0,)),
        Tableau("midpoint", 2, ((), (0.5,)), (0.0, 1.0)),
        Tableau("heun", 2, ((), (1.0,)), (0.5, 0.5)),
        Tableau("rk4", 4, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
    )
}


def runge_kutta(schedule: Schedule, times: list[Scalar], tableau: Tableau, variable: str) -> Plan:
    """One plan for every tableau; a step whose stages would meet sigma = 0 is an Euler step.

    (The rule of Karras et al. 2022, algorithm 1: the velocity has no limit form at sigma = 0.)

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean.
        tableau: the method.
        variable: "t", or "rho" for sigma/alpha.
    """
    variables: dict[str, type[_InTime] | type[_InRho]] = {"t": _InTime, "rho": _InRho}
    enter = look_up("variable", variable, variables)(schedule)
    trace = Trace(times[0])
    x = trace.x
    for t, s in pairwise(times):
        u_t, u_s = enter.position(t), enter.position(s)
        h = u_s - u_t
        touches_zero = schedule.sigma(s) == 0 and 1.0 in tableau.c
        method = TABLEAUX["euler"] if touches_zero else tableau
        slopes: list[Form] = []
        for i, (c, row) in enumerate(zip(method.c, method.a, strict=True)):
            at = s if c == 1.0 else t if c == 0.0 else enter.time(u_t + c * h)
            stage = enter.state(x, t, at, _combine(row, slopes) * h)
            stage, d = (trace.stage if i else trace.denoise)(stage, at)
            if i == 0:
                x = stage
            slopes.append(enter.slope(stage, d, at))
        x = enter.state(x, t, s, _combine(method.b, slopes) * h)
    return trace.end(x, times[-1])


def _combine(weights: tuple[float, ...], slopes: list[Form]) -> Form:
    terms = [w * k for w, k in zip(weights, slopes, strict=True) if w]
    return sum(terms, Form({}))


@dataclass(frozen=True)
class _InTime:
    """dx/dt = alpha' d + sigma' (x - alpha d) / sigma."""

    schedule: Schedule

    def position(self, t: Scalar) -> Scalar:
        return t

    def time(self, u: Scalar) -> Scalar:
        return u

    def state(self, x: Form, t: Scalar, s: Scalar, increment: Form) -> Form:
        return x + increment

    def slope(self, x: Form, d: Form, t: Scalar) -> Form:
        alpha_t, sigma_t = self.schedule(t)
        alpha_dot, sigma_dot = self.schedule.derivatives(t)
        return alpha_dot * d + sigma_dot / sigma_t * (x - alpha_t * d)


@dataclass(frozen=True)
class _InRho:
    """y = x / alpha, dy/drho = (y - d) / rho."""

    schedule: Schedule

    def position(self, t: Scalar) -> Scalar:
        return self.schedule.rho(t)

    def time(self, u: Scalar) -> Scalar:
        return self.schedule.time_of(-log(u))

    def state(self, x: Form, t: Scalar, s: Scalar, increment: Form) -> Form:
        alpha_t, alpha_s = self.schedule.alpha(t), self.schedule.alpha(s)
        return alpha_s / alpha_t * x + alpha_s * increment

    def slope(self, x: Form, d: Form, t: Scalar) -> Form:
        return (x / self.schedule.alpha(t) - d) / self.schedule.rho(t)


def _method(tableau: Tableau) -> Callable[..., Plan]:
    def method(schedule: Schedule, times: list[Scalar], variable: str = "t") -> Plan:
        return runge_kutta(schedule, times, tableau, variable)

    stages = len(tableau.b)
    method.__name__ = method.__qualname__ = tableau.name
    method.__doc__ = f"""The {tableau.name} method on the probability-flow ODE.

    Order {tableau.order}, {stages} network evaluation{"s" * (stages > 1)} a step.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; sigma may be 0 at the end, alpha at the start in variable "t".
        variable: "t" (dx/dt = f x - g^2/2 score) or "rho" (dy/drho = eps, y = x/alpha,
            rho = sigma/alpha; the ODE of EDM).
    """
    in_rho = Claim(
        tableau.order,
        {"variable": "rho"},
        point_exact=True,
        exact=("noise", "rho", tableau.order),
    )
    return solver("Hairer, Norsett & Wanner 1993", Claim(tableau.order), in_rho)(method)


euler, midpoint, heun, rk4 = (_method(TABLEAUX[n]) for n in ("euler", "midpoint", "heun", "rk4"))
