r"""Traces of Jacobians: exact, or from random probes that stay the same for a whole solve.

    exact        tr A = sum_i e_i^T A e_i                          D products
    Hutchinson   tr A ~ 1/m sum_k v_k^T A v_k,  E[v v^T] = I       m products
    Hutch++      tr A ~ tr(Q^T A Q) + 1/k sum_i g_i^T P A P g_i,   Q = orth(A S),  P = I - Q Q^T

Each term v_k^T A v_k is a lane of its own, integrated on its own; the spread of the lanes'
integrals gives the standard error of their mean. Probes are Rademacher (-1 or 1), Gaussian, or
orthogonal: m columns of a random rotation times sqrt(D). Those are exchangeable and all D of them
give the trace exactly, so the mean of m has the variance of sampling without replacement,

    SE^2 = s^2/m (1 - m/D),     s^2 the sample variance of the lanes.

Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989. Grathwohl et al.,
"FFJORD", 2019, arXiv:1810.01367, for one probe fixed for a solve. Meyer, Musco, Musco & Woodruff,
"Hutch++: optimal stochastic trace estimation", 2021, arXiv:2010.09649, algorithm 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..counts import check_count
from ..names import look_up
from ..noise import PerSampleNoise
from .reference import GaussianReference

_FEW = 2  # products up to which one after the other is faster than all at once


class Jacobian:
    """A = (dd/dx)^T - J_G at one point, known by its products with vectors.

    Args:
        x: states with a gradient, (batch, *event).
        d: the denoiser's answer there.
        reference, gain: J_G and its eigenvalues at this time.
        chunk: how many vectors at a time; None: all.
    """

    def __init__(
        self,
        x: Tensor,
        d: Tensor,
        reference: GaussianReference,
        gain: Tensor,
        chunk: int | None = None,
    ) -> None:
        self.x, self.d, self.reference, self.gain, self.chunk = x, d, reference, gain, chunk
        self.dimension = math.prod(x.shape[1:])

    def plain(self, vectors: Tensor) -> Tensor:
        """(dd/dx)^T v of vectors (k, batch, D)."""
        parts = vectors.split(self.chunk or len(vectors))
        return torch.cat([self._products(part) for part in parts]).reshape(vectors.shape)

    def _products(self, vectors: Tensor) -> Tensor:
        v = vectors.reshape(len(vectors), *self.x.shape)
        if len(v) <= _FEW:
            each = [torch.autograd.grad(self.d, self.x, one, retain_graph=True)[0] for one in v]
            return torch.stack(each)
        (found,) = torch.autograd.grad(self.d, self.x, v, retain_graph=True, is_grads_batched=True)
        return found

    def product(self, vectors: Tensor) -> Tensor:
        """A v of vectors (k, batch, D)."""
        return self.plain(vectors) - self.reference.product(self.gain, vectors)

    def exact_trace(self) -> Tensor:
        """tr A, (batch,), one unit vector after another."""
        total = -self.reference.trace(self.gain, self.dimension).expand(len(self.x))
        columns = torch.arange(self.dimension, device=self.x.device)
        for part in columns.split(self.chunk or self.dimension):
            unit = torch.zeros(
                len(part), len(self.x), self.dimension, dtype=self.x.dtype, device=self.x.device
            )
            unit[torch.arange(len(part)), :, part] = 1
            found = self._products(unit).reshape(unit.shape)
            total = total + (found * unit).sum((0, 2))
        return total


class Trace(ABC):
    """A way to find traces of a batch of matrices.

    Attributes:
        lanes: how many numbers it answers for a sample; their mean is the estimate.
        products: vector-Jacobian products a sample and call.
        signs: whether the probes are of signs alone, so that lanes may agree by accident.
    """

    lanes: int
    products: int
    signs = False

    @abstractmethod
    def __call__(self, jacobian: Jacobian) -> Tensor:
        """(batch, lanes)."""

    @abstractmethod
    def select(self, who: Tensor) -> Trace:
        """The same for some samples of the batch."""

    @abstractmethod
    def standard_error(self, lanes: Tensor) -> Tensor:
        """Of the mean of the lanes' integrals, (batch,), of each sample by its own lanes alone.

        Infinity where one lane tells nothing. What a batch adds, see `result`.
        """


class Exact(Trace):
    """Every diagonal entry."""

    lanes = 1

    def __init__(self, dimension: int) -> None:
        self.products = dimension

    def __call__(self, jacobian: Jacobian) -> Tensor:
        return jacobian.exact_trace()[:, None]

    def select(self, who: Tensor) -> Trace:
        return self

    def standard_error(self, lanes: Tensor) -> Tensor:
        return torch.zeros(len(lanes), dtype=lanes.dtype, device=lanes.device)


class Hutchinson(Trace):
    """v^T A v for each of the probes, (m, batch, D).

    Args:
        probes: with E[v v^T] = I.
        share: m/D for orthogonal probes, of which D are exact; 0 for independent ones.
        signs: whether they are Rademacher.
    """

    def __init__(self, probes: Tensor, share: float = 0.0, signs: bool = False) -> None:
        self.probes, self.share, self.signs = probes, share, signs
        self.lanes = self.products = len(probes)

    def __call__(self, jacobian: Jacobian) -> Tensor:
        return (self.probes * jacobian.product(self.probes)).sum(-1).T

    def select(self, who: Tensor) -> Trace:
        return Hutchinson(self.probes[:, who], self.share, self.signs)

    def standard_error(self, lanes: Tensor) -> Tensor:
        return _standard_error(lanes, 1 - self.share)


class HutchPlusPlus(Trace):
    """Hutch++: the trace on the range of A S, and Hutchinson's estimate on its complement.

    Args:
        sketch: S, (s, batch, D).
        probes: g, (k, batch, D).
    """

    signs = True

    def __init__(self, sketch: Tensor, probes: Tensor) -> None:
        self.sketch, self.probes = sketch, probes
        self.lanes, self.products = len(probes), 2 * len(sketch) + len(probes)

    def __call__(self, jacobian: Jacobian) -> Tensor:
        q = torch.linalg.qr(jacobian.product(self.sketch).permute(1, 2, 0)).Q.permute(2, 0, 1)
        inside = torch.einsum("sbd,kbd->skb", q, self.probes)
        outside = self.probes - torch.einsum("sbd,skb->kbd", q, inside)
        found = jacobian.product(torch.cat([q, outside]))
        traced = (q * found[: len(q)]).sum((0, 2))
        return (traced + (outside * found[len(q) :]).sum(-1)).T

    def select(self, who: Tensor) -> Trace:
        return HutchPlusPlus(self.sketch[:, who], self.probes[:, who])

    def standard_error(self, lanes: Tensor) -> Tensor:
        return _standard_error(lanes)


def _standard_error(lanes: Tensor, share: float = 1.0) -> Tensor:
    m = lanes.shape[1]
    if m == 1:
        return torch.full((len(lanes),), math.inf, dtype=lanes.dtype, device=lanes.device)
    return lanes.std(1) * math.sqrt(share / m)


Draw = Callable[[int], Tensor]
"""n -> standard normal numbers (n, batch, D)."""


def _rademacher(draw: Draw, probes: int) -> Trace:
    return Hutchinson(draw(probes).sign(), signs=True)


def _gaussian(draw: Draw, probes: int) -> Trace:
    return Hutchinson(draw(probes))


def _orthogonal(draw: Draw, probes: int) -> Trace:
    g = draw(probes).permute(1, 2, 0)
    dimension = g.shape[1]
    rotation = torch.linalg.qr(g).Q.permute(2, 0, 1)
    return Hutchinson(math.sqrt(dimension) * rotation, probes / dimension)


def _hutch_plus_plus(draw: Draw, probes: int) -> Trace:
    third = probes // 3
    if third < 1:
        raise ValueError(
            f"probes = {probes}: 'hutch++' spends a third of them each on a sketch, its range and "
            "the rest; give at least 3, and 6 for a standard error"
        )
    every = draw(probes - third).sign()
    return HutchPlusPlus(every[:third], every[third:])


TRACES: dict[str, Callable[[Draw, int], Trace]] = {
    "rademacher": _rademacher,
    "gaussian": _gaussian,
    "orthogonal": _orthogonal,
    "hutch++": _hutch_plus_plus,
}


def make_trace(name: str, probes: int, like: Tensor, seeds: Sequence[int]) -> Trace:
    """A trace for states like these, (batch, *event), of probes that depend on seeds alone.

    As many probes as coordinates cost what the exact trace costs, which is then taken.
    """
    dimension = math.prod(like.shape[1:])
    look_up("trace", name, {**TRACES, "exact": None})
    check_count("probes", probes)
    probes = int(probes)
    if name == "exact" or probes >= dimension:
        return Exact(dimension)

    def draw(n: int) -> Tensor:
        out = torch.empty(len(like), n, dimension, dtype=like.dtype, device=like.device)
        return PerSampleNoise(seeds).start(out).transpose(0, 1).contiguous()

    return TRACES[name](draw, probes)
