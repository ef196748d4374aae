r"""What all methods for inverse problems have in common: d_y = E[x_0 | x_t, y], approximately.

A conditional mean is all that a sampler needs, so a method is a denoiser made of a denoiser and a
measurement y = A(x_0) + sigma_y n, and every plan runs it. With d = E[x_0 | x_t] and its Jacobian
J = (alpha/sigma^2) Cov[x_0 | x_t], Bayes' rule reads

    d_y = d + (sigma^2/alpha) grad log p(y | x_t),    p(y | x_t) = int p(y | x_0) p(x_0 | x_t) dx_0.

The integral is what nobody knows; N(d, V) in place of p(x_0 | x_t), and A linear or nearly so, give

    grad log p(y | x_t) = J^T A^T (A V A^T + sigma_y^2 I)^{-1} (y - A(d)),

and the methods differ in V, in how the system is solved, and in whether J is kept. V = r_t^2 I with

    r_t^2 = v sigma^2/(v alpha^2 + sigma^2)

is right for data N(m, v I). Where alpha = 0, x_t says nothing of x_0, and J/alpha is 0/0: methods
with J begin inside. Where sigma = 0, x_t says all, and d_y = d.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import cast

import torch
from torch import Tensor

from ..conditions import one_count
from ..denoise import Denoiser, check_denoiser
from ..gradient import Pull, denoise_with_pull, leaf_of, score_to_mean, tracked
from ..scalar import Scalar
from ..states import along, double, inner
from .measurement import Measurement
from .operator import LinearOperator, Operator


class Posterior(Denoiser):
    """A denoiser of the posterior, d_y = rule(Here): what the functions of this package return.

    Args:
        denoiser: of the prior, d = E[x_0 | x_t].
        measurement: y, A and sigma_y.
        rule: what the method makes of them at one state.

    Raises:
        TypeError: no Denoiser or no Measurement.
    """

    def __init__(
        self, denoiser: Denoiser, measurement: Measurement, rule: Callable[[Here], Tensor]
    ) -> None:
        check_posed(denoiser, measurement)
        self.denoiser, self.measurement, self.rule = denoiser, measurement, rule
        self.schedule = denoiser.schedule

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        t = double(t) if isinstance(t, Tensor) else t
        alpha, sigma = self.schedule(t)
        if not isinstance(sigma, Tensor) and sigma == 0:
            return self.denoiser(x, t)
        return self.rule(Here(self.denoiser, self.measurement, x, t, alpha, sigma))

    def __repr__(self) -> str:
        return f"Posterior({type(self.denoiser).__name__}, {self.measurement!r})"

    @property
    def device(self) -> torch.device | None:
        """Where the network is; None: unknown."""
        return getattr(self.denoiser, "device", None)

    @property
    def samples(self) -> int | None:
        own = len(self.measurement.y) if self.measurement.per_sample else None
        return one_count((own, self.denoiser.samples))

    def select(self, who: Tensor) -> Posterior:
        chosen = copy.copy(self)
        chosen.denoiser = self.denoiser.select(who)
        chosen.measurement = self.measurement.select(who)
        return chosen


@dataclass(frozen=True)
class Here:
    """All that a method sees when it is asked: the state, its scales, the prior, the measurement.

    Attributes:
        x: the state, (batch, *event).
        t: its time, or one a sample; alpha and sigma likewise.
    """

    denoiser: Denoiser
    measurement: Measurement
    x: Tensor
    t: Scalar
    alpha: Scalar
    sigma: Scalar

    @property
    def operator(self) -> LinearOperator:
        """A, of a method that checked that it is linear."""
        return cast(LinearOperator, self.measurement.operator)

    @property
    def gain(self) -> Scalar:
        """sigma^2/alpha, with which grad log p(y | x_t) moves the mean; ValueError at alpha = 0."""
        return along(score_to_mean(self.denoiser.schedule, self.t), self.x)

    def spread(self, variance: float) -> Scalar:
        """r_t^2 = v sigma^2/(v alpha^2 + sigma^2); v = inf: sigma^2/alpha^2."""
        return remaining(variance, self.alpha, self.sigma)

    def prior(self) -> Tensor:
        """d = E[x_0 | x_t]."""
        return self.denoiser(self.x, self.t)

    def prior_with_pull(self) -> tuple[Tensor, Pull]:
        """d, and v -> J^T v."""
        return denoise_with_pull(self.denoiser, self.x, self.t)

    def around(self, d: Tensor) -> Linearised:
        """y - A and the derivative of A at d."""
        return Linearised(self.measurement, d)

    def precision(self, around: Linearised, g: Tensor, variance: float) -> tuple[Tensor, Tensor]:
        """1/s_t^2 and r_t^2/s_t^2, s_t^2 = sigma_y^2 + r_t^2 |A'g|^2/|g|^2; 0 where g = 0.

        s_t^2 is the variance of y - A(d) along A'g, if Cov[x_0 | x_t] = r_t^2 I. Both are of shape
        (batch, 1, .., 1), and finite where r_t^2 is not; g of x's shape.
        """
        above, below = (along(c, g) for c in _fraction(variance, self.alpha, self.sigma))
        q = around.push(g)
        squared, wide = inner(g, g), above * inner(q, q, like=g)
        total = below * (self.measurement.noise**2 * squared) + wide
        share = torch.where(total > 0, squared / total, torch.zeros_like(total))
        return below * share, above * share


class Linearised:
    """y - A(d), and A' = dA/dx at d: for a linear operator A itself.

    Args:
        measurement: y, A and sigma_y.
        d: (batch, *event); where it has a graph and autograd is on, so have all answers.
    """

    def __init__(self, measurement: Measurement, d: Tensor) -> None:
        self.keep = torch.is_grad_enabled() and d.requires_grad
        self.operator, self.d = measurement.operator, d
        self.residual = measurement.residual(d)

    @cached_property
    def _graph(self) -> tuple[Tensor, Tensor]:
        name = type(self.operator).__name__
        leaf = self.d if self.keep else leaf_of(self.d, name)
        with tracked(name):
            measured = self.operator.apply(leaf)
        self._check_seen(measured)
        return leaf, measured

    def _check_seen(self, found: Tensor) -> None:
        if not found.requires_grad:
            raise ValueError(
                f"{type(self.operator).__name__} has no gradient for autograd (it detaches, rounds "
                "or works in numpy); this method needs one, particles.steer does not"
            )

    def pull(self, u: Tensor) -> Tensor:
        """A'^T u; u of shape (batch, *measured_shape)."""
        if isinstance(self.operator, LinearOperator):
            return self.operator.adjoint(u)
        leaf, measured = self._graph
        v = u.to(measured.dtype)
        back = torch.autograd.grad(measured, leaf, v, retain_graph=True, create_graph=self.keep)[0]
        return back.to(u.dtype)

    def push(self, v: Tensor) -> Tensor:
        """A' v; v of shape (batch, *event). The derivative of pull, which is linear in u, by u."""
        if isinstance(self.operator, LinearOperator):
            return self.operator.apply(v)
        leaf, measured = self._graph
        with torch.enable_grad():
            u = torch.zeros_like(measured).requires_grad_()
            (pulled,) = torch.autograd.grad(measured, leaf, u, create_graph=True)
            self._check_seen(pulled)
            there = v.to(leaf.dtype)
            return torch.autograd.grad(pulled, u, there, create_graph=self.keep)[0].to(v.dtype)

    def no_farther(self, p: Tensor) -> Tensor:
        """p, shortened where d + p would be farther from y than d is, A linearised.

        With e = y - A(d) and q = A' p: p min(1, 2 <e, q>/|q|^2), and 0 where <e, q> < 0. The push
        of a normal posterior never is too long: there q = K e, 0 <= K <= 1, so <e, q> >= |q|^2.
        """
        q = self.push(p)
        agreement, length = inner(self.residual, q, like=p), inner(q, q, like=p)
        share = torch.where(length > 0, 2 * agreement / length, torch.ones_like(length))
        return share.clamp(0, 1).to(p) * p


def check_posed(denoiser: object, measurement: object) -> None:
    """TypeError unless these are a Denoiser and a Measurement."""
    check_denoiser(denoiser, "the prior")
    if not isinstance(measurement, Measurement):
        raise TypeError(
            f"the measurement is {type(measurement).__name__}; say how it was made: "
            "Measurement(operator, y, noise)"
        )


def check_linear(method: str, measurement: Measurement) -> None:
    """TypeError unless the operator is linear."""
    operator: Operator = measurement.operator
    if not isinstance(operator, LinearOperator):
        raise TypeError(
            f"{method} needs a linear operator, and {type(operator).__name__} is none (or does "
            "not say so: make it a LinearOperator); for nonlinear ones take dps, mpgd, tmpd, mmps "
            "or daps"
        )


def remaining(variance: float, alpha: Scalar, sigma: Scalar) -> Scalar:
    """r_t^2 = v sigma^2/(v alpha^2 + sigma^2), what x_t leaves of the variance v of the data.

    Raises:
        ValueError: v = inf where alpha = 0: x_t says nothing, and all of it is left.
    """
    above, below = _fraction(variance, alpha, sigma)
    if not isinstance(below, Tensor) and below == 0:
        raise ValueError(
            "variance = inf at a time where alpha = 0: x_t says nothing of x_0 there, so that it "
            "has no spread; give the variance of the data, or begin where alpha > 0"
        )
    return above / below


def _fraction(variance: float, alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar]:
    """r_t^2 as a fraction, of which v = inf is the limit."""
    if variance == math.inf:
        return sigma**2, alpha**2
    return variance * sigma**2, variance * alpha**2 + sigma**2


def check_setting(
    name: str, value: float, above: bool = False, most: float = math.inf, finite: bool = False
) -> None:
    """ValueError unless 0 <= value <= most, or 0 < value if it must be above."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    inside = number and 0 <= value <= most and not (finite and value == math.inf)
    if not inside or (above and value == 0):
        least = "above 0" if above else "at least 0"
        end = "" if most == math.inf else f" and at most {most:g}"
        kind = "finite number" if finite else "number"
        raise ValueError(f"{name} = {value!r} must be a {kind} {least}{end}")
