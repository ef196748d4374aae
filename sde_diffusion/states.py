"""Coefficients and products of states, sample by sample."""

from __future__ import annotations

from torch import Tensor

from .scalar import Scalar


def double(t: Tensor) -> Tensor:
    """Times in float64, where the device has it, so that alpha and sigma are right in float32."""
    if not t.is_floating_point():
        raise TypeError(
            f"times have dtype {t.dtype}; times are continuous (timestep k of N is (k + 1)/N on a "
            "schedule over [0, 1])"
        )
    return t if t.device.type == "mps" else t.double()


def along(coefficient: Scalar, x: Tensor) -> Scalar:
    """A coefficient that multiplies x: one a sample becomes (batch, 1, .., 1) in x's dtype."""
    if not isinstance(coefficient, Tensor):
        return coefficient
    if coefficient.ndim and coefficient.shape != x.shape[:1]:
        raise ValueError(
            f"times of shape {tuple(coefficient.shape)} for states of shape {tuple(x.shape)}: "
            "give one time, or one a sample"
        )
    c = coefficient.to(x)
    return c.reshape(-1, *[1] * (x.ndim - 1)) if c.ndim else c


def flat(x: Tensor) -> Tensor:
    """Each sample a row, (batch, D); D = 1 for events of shape ()."""
    return x.reshape(len(x), -1)


def inner(a: Tensor, b: Tensor, like: Tensor | None = None) -> Tensor:
    """<a, b> over the numbers of each sample, (batch, 1, .., 1) to multiply a, or `like`."""
    product = flat(a * b).sum(1)
    return product.reshape(-1, *[1] * ((a if like is None else like).ndim - 1))
