"""Data to train on: clean samples by number, and the condition of each.

A stated range of the values is checked, because a network that learned from bytes 0..255 or from
[0, 1], where noise has standard deviation 1 around 0, learns a badly scaled problem in silence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..weights import digest_of
from .batch import Batch

UNIT = (-1.0, 1.0)  # range of images
SLACK = 1e-5  # of a range's width: what rounding may add
PROBED = 256  # samples that a digest of large data looks at
MOST_CLASSES = 10**6  # beyond it a label is a number of something else


class Data(ABC):
    """Samples x_0 and their conditions, asked for by number.

    Attributes:
        event_shape: shape of one sample.
        range: (lowest, highest) value, stated and checked; None: any finite value.
        classes: number of classes where the condition is a class label, else None.
    """

    event_shape: tuple[int, ...]
    range: tuple[float, float] | None = None
    classes: int | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The samples of these numbers.

        Args:
            indices: int64, shape (batch,), each in [0, len).
            generator: of random changes (flips), on the CPU; None: none are made.
        """

    @abstractmethod
    def describe(self) -> str:
        """What the data are, with a digest: the same text for the same data."""


class Stored(Data):
    """Samples kept somewhere: a subclass says how to read some, the rest is done here.

    Attributes:
        source: what an error calls them, when values are checked as they are read; None: they
            are checked already, or cannot be wrong.
        context: the conditions of all samples, or None.
    """

    source: str | None = None
    context: Tensor | None = None

    @abstractmethod
    def samples(self, indices: Tensor) -> Tensor:
        """The samples of these numbers, shape (batch, *event)."""

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        x = self.samples(indices)
        if self.source is not None:
            check_values(x, self.range, self.source, indices)
        if self.context is None:
            return Batch(x, None)
        return Batch(x, self.context[indices.to(self.context.device)])

    def _take_context(self, context: Tensor | None) -> None:
        """Check and keep the conditions; `len` must be known."""
        self.context = None if context is None else checked_context(context, len(self))
        self.classes = class_count(self.context)


class TensorData(Stored):
    """Samples in memory.

    Args:
        x: floating point, shape (n, *event); batches are of its dtype and on its device.
        context: class labels, integers of at least 0, shape (n,), or tokens, floating point,
            shape (n, length, size), or images, floating point, shape (n, channels, rows, columns);
            None: no conditions.
        range: (lowest, highest) value that x may hold; None: any finite value.

    Raises:
        TypeError: x is not floating point; a context that is neither labels nor tokens.
        ValueError: no samples, values that are not finite or outside the range, negative labels,
            or another number of conditions than of samples.
    """

    def __init__(
        self,
        x: Tensor,
        context: Tensor | None = None,
        range: tuple[float, float] | None = None,
    ) -> None:
        if not x.is_floating_point():
            raise TypeError(
                f"data has dtype {x.dtype}: noise is continuous; scale it to floating point, as in "
                "data.float() / 127.5 - 1 for bytes"
            )
        if x.ndim == 0 or len(x) == 0:
            raise ValueError(
                f"data of shape {tuple(x.shape)}: give at least one sample, (n, *event)"
            )
        self.x, self.event_shape, self.range = x.detach(), tuple(x.shape[1:]), checked_range(range)
        check_values(self.x, self.range, "data")
        self._take_context(context)

    def __len__(self) -> int:
        return len(self.x)

    def samples(self, indices: Tensor) -> Tensor:
        return self.x[indices.to(self.x.device)]

    def describe(self) -> str:
        tensors = {"data": self.x}
        if self.context is not None:
            tensors["context"] = self.context
        return f"{self.x.dtype} {tuple(self.x.shape)}, digest {digest_of(tensors)}"


class Flipped(Data):
    """Images mirrored left to right, each with probability 1/2 each time it is asked for.

    A condition that is an image is mirrored with its sample.

    Args:
        data: images, event shape (channels, height, width).

    Raises:
        ValueError: data of another shape.
    """

    def __init__(self, data: Data) -> None:
        if len(data.event_shape) != 3:
            raise ValueError(
                f"only images (channels, height, width) can be flipped, not {data.event_shape}"
            )
        self.data, self.event_shape = data, data.event_shape
        self.range, self.classes = data.range, data.classes

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        x, context = self.data.batch(indices, generator)
        if generator is not None:
            flip = torch.rand(len(x), generator=generator).to(x.device) < 0.5
            mirrored = lambda image: torch.where(flip[:, None, None, None], image.flip(-1), image)
            x = mirrored(x)
            if context is not None and context.ndim == 4:
                context = mirrored(context)
        return Batch(x, context)

    def describe(self) -> str:
        return f"flipped at random: {self.data.describe()}"


def as_data(data: Any, range: tuple[float, float] | None = None) -> Data:
    """Data from what a user has: a tensor or an array, (samples, conditions), or `Data` as it is.

    Args:
        data: tensor, array, pair of them, or an object with what `Data` has.
        range: (lowest, highest) value allowed in a tensor; `Data` state their own.

    Raises:
        TypeError, ValueError: as `TensorData`; something else, or a range beside `Data`.
    """
    if all(hasattr(data, name) for name in ("batch", "event_shape", "describe", "__len__")):
        if range is not None and getattr(data, "range", None) != range:
            raise ValueError(f"range = {range} beside data that state {data.range}: leave it out")
        return data
    x, context = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    x, context = _tensor(x), None if context is None else _tensor(context)
    if not isinstance(x, Tensor) or not isinstance(context, Tensor | None):
        raise TypeError(
            f"data is {_kind(data)}: give a tensor, a pair (samples, labels), or one of "
            "sde_diffusion.training's digits, NumpyData, ImageFolder and HuggingFaceData"
        )
    return TensorData(x, context, range)


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(type(part).__name__ for part in value)})"
    return f"the {type(value).__name__} {value!r}"[:80]


def from_bytes(pixels: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1, 1]: x / 127.5 - 1."""
    return pixels.float().div_(127.5).sub_(1.0)


def checked_range(range: tuple[float, float] | None) -> tuple[float, float] | None:
    """The range as two floats; ValueError if it is none."""
    if range is None:
        return None
    try:
        low, high = (float(end) for end in range)
    except (TypeError, ValueError) as error:
        raise ValueError(f"range = {range!r}: give (lowest, highest), as (-1, 1)") from error
    if not low < high:
        raise ValueError(f"range = ({low:g}, {high:g}): the lowest must be below the highest")
    return low, high


def check_values(
    x: Tensor, range: tuple[float, float] | None, what: str, numbers: Tensor | None = None
) -> None:
    """ValueError unless every value is finite and within the range.

    Args:
        x: samples, shape (batch, *event).
        range: (lowest, highest) value allowed; None: any finite value.
        what: whose values they are.
        numbers: of the samples, shape (batch,); default: 0, 1, 2, ..
    """
    low, high = (float(end) for end in torch.aminmax(x)) if x.numel() else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        where = int((~x.reshape(len(x), -1).isfinite()).any(1).nonzero()[0])
        where = where if numbers is None else int(numbers[where])
        raise ValueError(f"{what} must be finite, but sample {where} is not: remove it or mend it")
    if range is None:
        return
    slack = SLACK * (range[1] - range[0])
    if low < range[0] - slack or high > range[1] + slack:
        wrong = high if high > range[1] + slack else low
        raise ValueError(
            f"{what} holds {wrong:g}, outside the stated range [{range[0]:g}, {range[1]:g}] (its "
            f"values go from {low:g} to {high:g}): {_cure(low, high, range)}"
        )


def _cure(low: float, high: float, range: tuple[float, float]) -> str:
    """How to bring values into [-1, 1], or how to state another range."""
    state = f"state range=({low:g}, {high:g})"
    if range != UNIT:
        return state
    if low >= 0 and 2 < high <= 255:
        return f"write data / 127.5 - 1, or {state}"
    if low >= 0 and high <= 2:
        return f"write 2 * data - 1, or {state}"
    return f"scale it, 2 * (data - {low:g}) / {high - low:g} - 1, or {state}"


def checked_context(context: Tensor, count: int) -> Tensor:
    """Labels as int64 (n,), tokens (n, length, size), or images (n, channels, rows, columns)."""
    context = context.detach()
    labels = context.ndim == 1 and not context.is_floating_point() and not context.is_complex()
    vectors = context.ndim in (3, 4) and context.is_floating_point()
    if context.dtype is torch.bool or not (labels or vectors):
        raise TypeError(
            f"the conditions have dtype {context.dtype} and shape {tuple(context.shape)}: give "
            "class labels, integers of shape (n,), or floating-point tokens, (n, length, size), or "
            "images, (n, channels, rows, columns)"
        )
    if len(context) != count:
        raise ValueError(f"{len(context)} conditions for {count} samples: give one each")
    if vectors:
        check_values(context, None, "the conditions")
        return context
    if int(context.min()) < 0:
        raise ValueError(f"a class label is {int(context.min())}: labels are 0, 1, 2, ..")
    if int(context.max()) >= MOST_CLASSES:
        raise ValueError(
            f"a class label is {int(context.max())}: labels number the classes 0, 1, 2, .., fewer "
            f"than {MOST_CLASSES:,}; number them anew, as by np.unique(labels, return_inverse=True)"
        )
    return context.long()


def class_count(context: Tensor | None) -> int | None:
    """Number of classes of labels; None for other conditions and for none."""
    is_labels = context is not None and not context.is_floating_point()
    return int(context.max()) + 1 if context is not None and is_labels else None


def probe(data: Data) -> str:
    """A digest of evenly spaced samples, for data too large to be read whole."""
    chosen = torch.linspace(0, len(data) - 1, min(PROBED, len(data)), dtype=torch.float64).long()
    x, context = data.batch(chosen)
    return digest_of({"x": x} if context is None else {"x": x, "context": context})
