r"""Losses between laws: samples beside data, with no path that leads from one to the other.

Sliced Wasserstein-2: project both sets on directions theta, where the optimal transport between
two sets of one size is the sorted one,

    SW_2^2 = mean over theta of mean_i (x_(i) . theta - y_(i) . theta)^2.

That is a mean over samples of |r_i|^2, r_i the gaps of sample i to its partner on each direction:
an ordinary `Loss`, whose partners are found anew each time. In a batch of n, even samples of the
data itself have SW_2^2 of order 1/n: large batches, or a small difference drowns. With features f
it is the distance of the laws of f(x): pixels alone see little of what tells images apart.

Rabin et al., "Wasserstein barycenter and its application to texture mixing", 2011.

Frechet distance: the optimal transport between the Gaussians that have the moments of the two sets
is linear, and known,

    T(x) = m_y + A (x - m_x),     A = C_x^{-1/2} (C_x^{1/2} C_y C_x^{1/2})^{1/2} C_x^{-1/2},

    mean_i |x_i - T(x_i)|^2 = |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^{1/2} C_y C_x^{1/2})^{1/2}),

so that it, too, is a mean of |r_i|^2, with r_i = x_i - T(x_i), and its gradient is the one at fixed
partners T(x_i), which are the best there are. With features f it is what samples are commonly
judged by. Two sets of n samples of one law in d dimensions have a distance of order d/n.

Dowson & Landau, "The Frechet distance between multivariate normal distributions", 1982. Knott &
Smith, "On the optimal mapping of distributions", 1984 (the map). Heusel et al., "GANs trained by a
two time-scale update rule converge to a local Nash equilibrium", 2017, arXiv:1706.08500 (features).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..states import flat
from .loss import Loss, Residual
from .pairs import Pairs

RANK = 1e-10  # of the largest eigenvalue of a covariance: below it there is no spread


def sliced(
    scale: float = float("inf"),
    directions: int = 64,
    seed: int = 0,
    features: Callable[[Tensor], Tensor] | None = None,
) -> Loss:
    """Sliced Wasserstein-2, squared, between the last states and the ends of the pairs.

    The ends may be samples of the data, in any order: only their law counts, and so the loss can
    judge stochastic plans. Give a fit all samples at once, or large batches.

    Args:
        scale: of the loss, in units of data; infinity is SW_2^2 itself.
        directions: number of random unit vectors theta.
        seed: of these.
        features: f, differentiable, (batch, *event) -> (batch, ...): laws of f(x) are compared. To
            compare those of x too, let f give both, x and features, side by side.

    Raises:
        ValueError: if there is no direction.
    """
    if directions < 1:
        raise ValueError(f"directions = {directions}: at least 1 is needed")
    return Loss("sliced", _gaps(directions, seed, features or (lambda x: x)), scale)


def _gaps(directions: int, seed: int, features: Callable[[Tensor], Tensor]) -> Residual:
    def residual(states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
        x = flat(features(states[-1]))
        with torch.no_grad():
            y = flat(features(pairs.ends.to(states)))
        generator = torch.Generator().manual_seed(seed)
        theta = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64)
        theta = (theta / theta.norm(dim=0)).to(x)
        a, b = x @ theta, (y @ theta).sort(dim=0).values
        partner = b.gather(0, a.detach().argsort(dim=0).argsort(dim=0))
        return (a - partner) / directions**0.5

    return residual


def frechet(
    scale: float = float("inf"), features: Callable[[Tensor], Tensor] | None = None
) -> Loss:
    """The squared Frechet distance between the last states and the ends of the pairs.

    The ends may be samples of the data, in any order, as in `sliced`. Give a fit all samples at
    once, or batches of many times the dimension.

    Args:
        scale: of the loss, in units of the features; infinity is the squared distance itself.
        features: f, differentiable, (batch, *event) -> (batch, ...): moments of f(x) are compared;
            default: those of x.
    """
    return Loss("frechet", _to_gaussian(features or (lambda x: x)), scale)


def _to_gaussian(features: Callable[[Tensor], Tensor]) -> Residual:
    def residual(states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
        x = flat(features(states[-1]))
        with torch.no_grad():
            partner, left = _partners(x, flat(features(pairs.ends.to(states))))
        return torch.cat([x - partner, left], 1)

    return residual


def _partners(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """T(x_i), and what no map can reach: the spread of y where x has none, (n, 1).

    That is tr(C_y - A C_x A), for which the optimal coupling draws noise.
    """
    (m_x, c_x), (m_y, c_y) = _moments(x), _moments(y)
    half, inverse = _power(c_x, 0.5), _power(c_x, -0.5)
    a = inverse @ _power(half @ c_y @ half, 0.5) @ inverse
    partner = m_y + (x.double() - m_x) @ a
    left = (c_y.trace() - (a @ c_x @ a).trace()).clamp(min=0).sqrt()
    return partner.to(x), left.to(x).expand(len(x), 1)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the points themselves, float64."""
    mean = x.double().mean(0)
    away = x.double() - mean
    return mean, away.T @ away / len(x)


def _power(c: Tensor, power: float) -> Tensor:
    """A power of a covariance on the space where it is not 0 to rounding."""
    values, vectors = torch.linalg.eigh(c)
    there = values > RANK * values.max().clamp(min=0)
    powers = torch.where(there, values.where(there, values.new_ones(())) ** power, 0.0)
    return (vectors * powers) @ vectors.T
