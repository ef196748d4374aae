"""Fewer pixels than there are, each the mean of a square block: super-resolution."""

from __future__ import annotations

from torch import Tensor

from .operator import Diagonal, inverse, shape_of


class Downsample(Diagonal):
    """The mean of each block of factor x factor pixels; A A^T = I / factor^2.

    Args:
        factor: positive; divides height and width.
        event_shape: of one datum, (.., height, width).

    Raises:
        ValueError: if the factor does not divide both, or there are not two dimensions.
    """

    def __init__(self, factor: int, event_shape: tuple[int, ...]) -> None:
        self.event_shape = shape_of(event_shape, 2)
        *channels, height, width = self.event_shape
        if type(factor) is not int or factor < 1 or height % factor or width % factor:
            raise ValueError(
                f"factor = {factor!r} must be a whole number that divides the height and width of "
                f"{self.event_shape}"
            )
        self.factor, self.power = factor, 1 / factor**2
        self.measured_shape = (*channels, height // factor, width // factor)

    def apply(self, x: Tensor) -> Tensor:
        rows, columns = self.measured_shape[-2:]
        blocks = x.reshape(*x.shape[:-2], rows, self.factor, columns, self.factor)
        return blocks.mean((-3, -1))

    def _adjoint(self, y: Tensor) -> Tensor:
        spread = y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)
        return spread / self.factor**2

    def _solve(self, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return v * inverse(a / self.factor**2 + b)
