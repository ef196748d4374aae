r"""Losses between laws: samples beside data, with no path that leads from one to the other.

Sliced Wasserstein-2: project both sets on directions theta, where the optimal transport between
two sets of one size is the sorted one,

    SW_2^2 = mean over theta of mean_i (x_(i) . theta - y_(i) . theta)^2.

That is a mean over samples of |r_i|^2, r_i the gaps of sample i to its partner on each direction:
an ordinary `Loss`, whose partners are found anew each time. In a batch of n, even samples of the
data itself have SW_2^2 of order 1/n: large batches, or a small difference drowns. With features f
it is the distance of the laws of f(x): pixels alone see little of what tells images apart.

Rabin et al., "Wasserstein barycenter and its application to texture mixing", 2011.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .loss import Loss, Residual, flat
from .pairs import Pairs


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
