r"""Pairs to translate between: clean images, and an image made from each as its condition.

With y = c(x_0) a function of the clean image, a network trained on pairs (x_0, y) learns
E[x_0 | x_t, y], and its samples are of p(x_0 | y): what c has lost is drawn, not averaged.

    c                              samples are
    smaller, by means of squares   super-resolution (Saharia et al. 2021, arXiv:2104.07636)
    a part erased                  inpainting, uncropping (Saharia et al. 2021, arXiv:2111.05826)
    an outline                     outlines filled

Values are those of images in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from ..counts import check_count
from .batch import Batch
from .data import Data, checked_context, probe
from .describe import without_addresses


@dataclass(frozen=True)
class Smaller:
    """The mean of every square of factor x factor pixels.

    Args:
        factor: pixels along the side of a square, at least 1; divides height and width.
    """

    factor: int

    def __post_init__(self) -> None:
        check_count("factor", self.factor)

    def __call__(self, x: Tensor) -> Tensor:
        if any(side % self.factor for side in x.shape[2:]):
            raise ValueError(
                f"factor = {self.factor} does not divide images of {x.shape[2]} x {x.shape[3]} "
                "pixels: give one that divides both"
            )
        return avg_pool2d(x, self.factor)


@dataclass(frozen=True)
class Erased:
    """The image with a rectangle set to 0, and one channel more: 1 there, -1 elsewhere.

    Args:
        top, left: of the rectangle, in pixels from the upper left corner, at least 0.
        height, width: of the rectangle, at least 1; it lies within the image.
    """

    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.top, self.left) < 0 or min(self.height, self.width) < 1:
            raise ValueError(f"{self}: top and left are at least 0, height and width at least 1")

    def __call__(self, x: Tensor) -> Tensor:
        if self.top + self.height > x.shape[2] or self.left + self.width > x.shape[3]:
            raise ValueError(
                f"{self} reaches beyond images of {x.shape[2]} x {x.shape[3]} pixels: give a "
                "rectangle within them"
            )
        hole = torch.full_like(x[:, :1], -1.0)
        hole[:, :, self.top : self.top + self.height, self.left : self.left + self.width] = 1.0
        return torch.cat([torch.where(hole > 0, 0.0, x), hole], dim=1)


@dataclass(frozen=True)
class Outline:
    """How much brighter than a pixel the brightest of its eight neighbours is, less 1."""

    def __call__(self, x: Tensor) -> Tensor:
        return max_pool2d(x, 3, stride=1, padding=1) - x - 1


CONDITIONS: dict[str, Callable[..., Callable[[Tensor], Tensor]]] = {
    "smaller": Smaller,
    "erased": Erased,
    "outline": Outline,
}


class Pairs(Data):
    """Samples, and as the condition of each a function of it.

    Conditions that the data have of their own are left out.

    Args:
        data: the clean samples.
        condition: a function of clean samples (batch, *event), sample by sample, to images
            (batch, channels, rows, columns), such as `Smaller(2)`, or to tokens (batch, length,
            size), floating point.

    Raises:
        TypeError: data that are no Data, no function, or a condition that is neither.
        ValueError: another number of conditions than of samples, values that are not finite, or a
            condition that depends on the other samples of its batch.
    """

    def __init__(self, data: Data, condition: Callable[[Tensor], Tensor]) -> None:
        if not isinstance(data, Data):
            raise TypeError(
                f"data is {type(data).__name__}: give a data set, as TensorData(x) of a tensor"
            )
        if not callable(condition):
            raise TypeError(
                f"condition = {condition!r}: give a function of clean samples, as Smaller(2)"
            )
        self.data, self.condition = data, condition
        self.event_shape, self.range = data.event_shape, data.range
        first = data.batch(torch.arange(min(2, len(data)))).x
        made = condition(first)
        if not isinstance(made, Tensor) or not made.is_floating_point():
            what = made.dtype if isinstance(made, Tensor) else type(made).__name__
            raise TypeError(
                f"{without_addresses(condition)} makes {what} of samples: it must make images, "
                "floating point, (batch, channels, rows, columns), or tokens"
            )
        checked_context(made, len(first))
        if not _alike(made[:1], condition(first[:1])) and _alike(made, condition(first)):
            raise ValueError(
                f"{without_addresses(condition)} makes another condition of a sample alone than "
                "among others: it must go sample by sample, with means over x.flatten(1), dim=1, "
                "and not over the batch"
            )

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        x = self.data.batch(indices, generator).x
        return Batch(x, self.condition(x))

    def describe(self) -> str:
        made_by = without_addresses(self.condition)
        return f"{made_by} of {self.data.describe()}, digest {probe(self)}"


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether conditions are the same but for the rounding of a network."""
    if one.shape != other.shape:
        return False
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))
