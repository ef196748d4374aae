r"""Blur: the data folded with a kernel, circularly: Fourier's waves are its singular vectors.

A x = F^{-1}(H F x),  H = F k,    (a A A^T + b I)^{-1} v = F^{-1}(F v / (a |H|^2 + b)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor

from ..normal import Values, real
from .operator import RANK, Constants, Diagonal, inverse, of_rank, shape_of


class Blur(Diagonal):
    """Circular convolution of the last dimensions with a kernel, for each channel.

    Waves that the kernel damps below `cutoff` of the most are taken out altogether: a zero of H
    that rounding hides would else be divided by.

    Args:
        kernel: k, one dimension or more, its middle (size // 2) the place of the answer.
        event_shape: of one datum; the kernel goes over its last dimensions.
        cutoff: relative, 0 <= cutoff < 1.

    Raises:
        ValueError: if the kernel is larger than the datum, not finite, or 0 everywhere, or the
            cutoff is out of range.
    """

    def __init__(self, kernel: Values, event_shape: tuple[int, ...], cutoff: float = RANK) -> None:
        kernel = real("kernel", kernel).cpu()
        self.event_shape = self.measured_shape = shape_of(event_shape, 1)
        if kernel.ndim > len(self.event_shape):
            raise ValueError(
                f"a kernel of shape {tuple(kernel.shape)} has more dimensions than data of shape "
                f"{self.event_shape}; one kernel is for all channels: give (rows, columns)"
            )
        self._sizes = self.event_shape[len(self.event_shape) - kernel.ndim :]
        if kernel.ndim == 0 or any(k > n for k, n in zip(kernel.shape, self._sizes, strict=True)):
            raise ValueError(
                f"a kernel of shape {tuple(kernel.shape)} is larger than the last dimensions of "
                f"{self.event_shape}; make it smaller"
            )
        if not bool(kernel.any()):
            raise ValueError("the kernel is 0 everywhere, so nothing is measured")
        if not (_is_number(cutoff) and 0 <= cutoff < 1):
            raise ValueError(f"cutoff = {cutoff!r} must be a number, relative, 0 <= cutoff < 1")
        self._dimensions = tuple(range(-kernel.ndim, 0))
        whole = torch.zeros(self._sizes, dtype=torch.float64)
        whole[tuple(slice(size) for size in kernel.shape)] = kernel
        middle = [-(size // 2) for size in kernel.shape]
        h = torch.fft.rfftn(whole.roll(middle, self._dimensions))
        h = of_rank(h, cutoff)
        self._constants = Constants(h, h.abs().square())

    def apply(self, x: Tensor) -> Tensor:
        h, _ = self._constants.like(x)
        return self._waves(x, h)

    def _adjoint(self, y: Tensor) -> Tensor:
        h, _ = self._constants.like(y)
        return self._waves(y, h.conj())

    def _solve(self, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        _, power = self._constants.like(v)
        return self._waves(v, inverse(a * power + b))

    def _adjoint_solve(self, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        h, power = self._constants.like(v)
        return self._waves(v, h.conj() * inverse(a * power + b))

    def _spectral(self, v: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        _, power = self._constants.like(v)
        return self._waves(v, function(power.reshape(*[1] * (v.ndim - power.ndim), *power.shape)))

    def _waves(self, x: Tensor, response: Tensor) -> Tensor:
        waves = torch.fft.rfftn(x, dim=self._dimensions)
        return torch.fft.irfftn(waves * response, s=self._sizes, dim=self._dimensions)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def gaussian_kernel(std: float, size: int | None = None) -> Tensor:
    """exp(-(i^2 + j^2) / 2 std^2), (size, size), of sum 1: a lens out of focus, roughly.

    Args:
        std: in pixels, positive.
        size: odd; default: 3 std to either side.
    """
    if not (_is_number(std) and 0 < std < math.inf):
        raise ValueError(f"std = {std!r} must be a positive number of pixels")
    size = 2 * math.ceil(3 * std) + 1 if size is None else size
    if type(size) is not int or size < 1 or size % 2 == 0:
        raise ValueError(f"size = {size!r} must be an odd whole number")
    i = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-(i**2) / (2 * std**2))
    return torch.outer(line, line) / line.sum() ** 2


def motion_kernel(length: float, angle: float = 0.0) -> Tensor:
    """A straight line of this length, of sum 1: a camera that moved while it looked.

    Args:
        length: in pixels, positive.
        angle: in degrees, 0 along the rows, anticlockwise.
    """
    if not (_is_number(length) and 0 < length < math.inf):
        raise ValueError(f"length = {length!r} must be a positive number of pixels")
    if not (_is_number(angle) and math.isfinite(angle)):
        raise ValueError(f"angle = {angle!r} must be a finite number of degrees")
    middle = math.ceil(length / 2)
    kernel = torch.zeros(2 * middle + 1, 2 * middle + 1, dtype=torch.float64)
    steps = torch.linspace(-0.5, 0.5, 64 * middle + 1, dtype=torch.float64) * length
    across = steps * math.cos(math.radians(angle)) + middle
    down = -steps * math.sin(math.radians(angle)) + middle
    i, j = (v.floor().clamp(0, 2 * middle - 1).long() for v in (down, across))
    y, x = down - i, across - j
    for di, dj, share in (
        (0, 0, (1 - y) * (1 - x)),
        (0, 1, (1 - y) * x),
        (1, 0, y * (1 - x)),
        (1, 1, y * x),
    ):
        kernel.index_put_((i + di, j + dj), share, accumulate=True)
    return kernel / kernel.sum()
