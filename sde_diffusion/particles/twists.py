r"""Twisting functions: estimates psi_t(x) of p(y | x_t = x) for y = A(x_0) + sigma_y n.

With x_0 | x_t taken as N(d, V), d = E[x_0 | x_t], a linear A gives N(y; A d, C), C = A V A^T +
sigma_y^2 I. The twists differ in V:

    isotropic   A V A^T = r_t^2 I                          any operator, also nonlinear
    projected   V = r_t^2 I                                linear; PiGDM's
    matched     projected's, and in C one direction more   linear; what tweedie's has beyond it
    tweedie     V = (sigma^2/alpha) dd/dx                  linear; MMPS's

    r_t^2 = v sigma^2 / (alpha^2 v + sigma^2),

the variance of x_0 | x_t for data N(., v I); the other is the model's own covariance. A twist
decides how many particles are needed, never what they converge to; so constants that are the same
for all particles are left out.

A twist that is narrower than p(y | x_t) costs most: a state that is undecided between two modes
has d between them, and a small r_t^2 calls y impossible there, until it falls to the right mode
and its weight leaps up by p(y | x_t)/psi_t. So few weigh so much that errors fall slower than
K^{-1/2} until K is large. The model's own covariance is wide at just such states. One that is much
wider in many directions decides late.

Wu et al. 2023, arXiv:2306.17775. Song et al., "Pseudoinverse-guided diffusion models for inverse
problems", 2023. Rozet et al., "Learning diffusion priors from observations by expectation
maximization", 2024, arXiv:2405.13712 (moment matching).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..gradient import Pull
from ..inverse.measurement import Measurement
from ..inverse.operator import LinearOperator
from ..states import along, inner


class Level(NamedTuple):
    """A noise level: alpha_t, sigma_t and r_t^2."""

    alpha: float
    sigma: float
    remaining: float


Twist = Callable[[Measurement, Tensor, Pull, Level], tuple[Tensor, Tensor]]
"""(measurement, d, pull, level) -> (log psi, (n,), and its gradient in x_t, d's shape). The
gradient is used for the proposal alone, so it may be an approximation."""


def isotropic(
    measurement: Measurement, d: Tensor, pull: Pull, level: Level
) -> tuple[Tensor, Tensor]:
    """log psi = -|y - A(d)|^2 / (2 (sigma_y^2 + r_t^2)), for any operator."""
    spread = measurement.noise**2 + level.remaining
    with torch.enable_grad():
        leaf = d.detach().requires_grad_()
        log_psi = -measurement.residual(leaf).square().flatten(1).sum(1) / (2 * spread)
        (gradient,) = torch.autograd.grad(log_psi.sum(), leaf)
    return log_psi.detach(), pull(gradient)


def projected(
    measurement: Measurement, d: Tensor, pull: Pull, level: Level
) -> tuple[Tensor, Tensor]:
    """log psi = -e^T (r_t^2 A A^T + sigma_y^2 I)^{-1} e / 2, e = y - A d, for a linear operator."""
    operator = _linear(measurement, "projected")
    e = measurement.residual(d)
    u = operator.solve(e, level.remaining, measurement.noise**2)
    return -inner(e, u).flatten() / 2, pull(operator.adjoint(u))


def matched(measurement: Measurement, d: Tensor, pull: Pull, level: Level) -> tuple[Tensor, Tensor]:
    """log psi of projected, widened where one product with the model's own C says so.

        M = r_t^2 A A^T + sigma_y^2 I,  u = M^{-1} e,  r = (C - M) u,
        C' = M + r r^T/(r^T u) where r^T u > 0, else C' = M,
        log psi = log N(y; A d, C') = -[e^T u - (r^T u)^2/(r^T u + q) + log(1 + q/(r^T u))]/2,

    q = r^T M^{-1} r, with C of `tweedie`. C' is the Nystrom approximation of C - M from u, so
    C' u = C u, and M <= C' <= C where C >= M. It is never narrower than M, whatever C is: k must
    not scale the whole of e, as k = <u, C u>/<u, M u> by itself would, for k grows with the
    part of e along which C is wide, and with it psi. C u takes the product with J^T that the
    gradient takes anyway: no more calls of the network than `projected`. For one measured number
    it is `tweedie` where that is wider than `projected`, else `projected`. The gradient is
    J^T A^T u/k, k as above and at least 1: u/k is a step of conjugate gradients to C^{-1} e. At
    alpha = 0 psi is that of projected.
    """
    operator = _linear(measurement, "matched")
    solve = lambda v: operator.solve(v, level.remaining, measurement.noise**2)
    e = measurement.residual(d)
    u = solve(e)
    gradient = pull(operator.adjoint(u))
    assumed = inner(e, u).flatten()
    if level.alpha == 0:
        return -assumed / 2, gradient
    own = level.sigma**2 / level.alpha * operator.apply(gradient) + measurement.noise**2 * u
    r = own - e
    beyond, q = inner(r, u).flatten(), inner(r, solve(r)).flatten()
    wider = beyond > 1e-6 * assumed  # by more than float32's rounding
    beyond = torch.where(wider, beyond, 1.0)
    explained = torch.where(wider, beyond**2 / (beyond + q), 0.0)
    wide = torch.where(wider, torch.log1p(q / beyond), 0.0)
    k = torch.where(wider, 1 + beyond / assumed, 1.0)
    return -(assumed - explained + wide) / 2, gradient / along(k, gradient)


def tweedie(measurement: Measurement, d: Tensor, pull: Pull, level: Level) -> tuple[Tensor, Tensor]:
    """log psi = log N(y; A d, C), C = (sigma^2/alpha) A J A^T + sigma_y^2 I, J = dd/dx_t.

    C is made whole, by one product with J^T for each number of y: for few measured numbers. Of J
    the symmetric part is taken, and its negative directions, which no covariance has, as 0. The
    gradient leaves out that of C. At alpha = 0 psi is 1.
    """
    operator = _linear(measurement, "tweedie")
    if level.alpha == 0:
        return d.new_zeros(len(d)), torch.zeros_like(d)
    shape = operator.measured_shape
    m = math.prod(shape)
    units = torch.eye(m, dtype=d.dtype, device=d.device).reshape(m, *shape)
    columns = [
        operator.apply(pull(operator.adjoint(unit.expand(len(d), *shape)))) for unit in units
    ]
    c = level.sigma**2 / level.alpha * torch.stack([v.flatten(1) for v in columns], -1)
    variances, basis = torch.linalg.eigh((c + c.mT) / 2)
    variances = variances.clamp(min=0) + measurement.noise**2
    turned = (measurement.residual(d).flatten(1)[:, None] @ basis)[:, 0]
    u = (basis @ (turned / variances)[..., None])[..., 0]
    log_psi = -((turned**2 / variances) + variances.log()).sum(1) / 2
    return log_psi, pull(operator.adjoint(u.reshape(len(d), *shape)))


TWISTS: dict[str, Twist] = {
    twist.__name__: twist for twist in (isotropic, projected, matched, tweedie)
}


def _linear(measurement: Measurement, name: str) -> LinearOperator:
    if not isinstance(measurement.operator, LinearOperator):
        raise TypeError(
            f"the twist {name!r} needs a linear operator, and "
            f"{type(measurement.operator).__name__} is none: use 'isotropic'"
        )
    return measurement.operator
