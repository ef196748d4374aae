r"""Resampling: weighted particles become equally weighted ones, without bias.

Ancestors a_1 .. a_K of weights W_1 .. W_K are drawn so that the number of offspring

    N_k = #{j: a_j = k},    E[N_k] = K W_k

has the right mean for every particle. The schemes differ in its variance, and so in what the
resampling itself adds to the error:

    "multinomial"  a_j = F^{-1}(u_j), independent                 Var[N_k] = K W_k (1 - W_k)
    "residual"     floor(K W_k) copies, the rest multinomial      never more
    "stratified"   a_j = F^{-1}((j + u_j)/K)                      never more
    "systematic"   a_j = F^{-1}((j + u)/K), one u for all         N_k within 1 of K W_k

with F the cumulative weights and u uniform on [0, 1).

Douc, Cappe & Moulines, "Comparison of resampling schemes for particle filtering", 2005,
arXiv:cs/0507025.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Scheme = Callable[[Tensor, Tensor], Tensor]
"""(log_weights (groups, K), uniforms (groups, n)) -> n ancestors of each group, (groups, n), int64;
n = K in a particle filter. The weights need not be normalised; the uniforms lie in [0, 1), and a
scheme uses as many of them as it needs."""

_BELOW_ONE = 1 - 2**-53  # the largest double under 1


def multinomial(log_weights: Tensor, uniforms: Tensor) -> Tensor:
    """Independent draws: a_j = F^{-1}(u_j). The simplest, and the one of most variance.

    Args:
        log_weights: (groups, K), normalised or not.
        uniforms: (groups, n), in [0, 1).
    """
    return _inverse(log_weights.softmax(-1), uniforms)


def stratified(log_weights: Tensor, uniforms: Tensor) -> Tensor:
    """One draw in each n-th of the cumulative weights: a_j = F^{-1}((j + u_j)/n).

    Kitagawa, "Monte Carlo filter and smoother for non-Gaussian nonlinear state space models", 1996.

    Args:
        log_weights: (groups, K), normalised or not.
        uniforms: (groups, n), in [0, 1).
    """
    n = uniforms.shape[-1]
    places = torch.arange(n, dtype=uniforms.dtype, device=uniforms.device)
    return _inverse(log_weights.softmax(-1), (places + uniforms) / n)


def systematic(log_weights: Tensor, uniforms: Tensor) -> Tensor:
    """A comb of n teeth laid over the cumulative weights: a_j = F^{-1}((j + u)/n).

    Carpenter, Clifford & Fearnhead, "Improved particle filter for nonlinear problems", 1999.

    Args:
        log_weights: (groups, K), normalised or not.
        uniforms: (groups, n), in [0, 1); the first of each group is used.
    """
    return stratified(log_weights, uniforms[..., :1].expand_as(uniforms))


def residual(log_weights: Tensor, uniforms: Tensor) -> Tensor:
    """floor(n W_k) copies of each, and what is left of the weights drawn multinomially.

    Liu & Chen, "Sequential Monte Carlo methods for dynamic systems", 1998.

    Args:
        log_weights: (groups, K), normalised or not.
        uniforms: (groups, n), in [0, 1); those of the places that the copies leave are used.
    """
    n = uniforms.shape[-1]
    expected = n * log_weights.softmax(-1)
    copies = expected.floor()
    places = torch.arange(n, dtype=expected.dtype, device=expected.device).expand_as(uniforms)
    filled = copies.cumsum(-1)
    copied = torch.searchsorted(filled, places.contiguous(), right=True)
    rest = _inverse(expected - copies, uniforms)
    return torch.where(places < filled[..., -1:], copied, rest)


SCHEMES: dict[str, Scheme] = {
    scheme.__name__: scheme for scheme in (multinomial, stratified, systematic, residual)
}


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(sum_k W_k)^2 / sum_k W_k^2, between 1 (one particle has all) and K (all alike).

    Kong, Liu & Wong, "Sequential imputations and Bayesian missing data problems", 1994.

    Args:
        log_weights: (..., K), normalised or not.

    Returns:
        (...), of the weights' dtype.
    """
    return (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()


def uniform_draws(seeds: Sequence[int], stream: int) -> Callable[[int], Tensor]:
    """n -> fresh uniforms on [0, 1), (groups, n), float64; each group's from its own seed alone."""
    generators = [np.random.default_rng([seed, stream]) for seed in seeds]
    return lambda n: torch.from_numpy(np.stack([g.random(n) for g in generators]))


def _inverse(weights: Tensor, uniforms: Tensor) -> Tensor:
    """F^{-1}(u): the first particle whose cumulative weight exceeds u, so never one of weight 0."""
    cumulative = weights.cumsum(-1)
    total = cumulative[..., -1:]  # not positive where there is nothing to draw from
    cumulative = cumulative / total.where(total > 0, 1.0)
    found = torch.searchsorted(cumulative, uniforms.clamp(max=_BELOW_ONE).contiguous(), right=True)
    return found.clamp(max=weights.shape[-1] - 1)
