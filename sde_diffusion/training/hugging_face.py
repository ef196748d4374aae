"""A data set of the package `datasets`, its columns named."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..names import unknown
from .data import UNIT, Stored, checked_range, from_bytes, probe
from .images import check_form, to_pixels


class HuggingFaceData(Stored):
    """A `datasets.Dataset`, read as it is asked for.

    Args:
        dataset: one split, with a length.
        x: column of the samples: pictures, which need a size and become x / 127.5 - 1, or arrays
            of numbers of one shape, which stay as they are.
        labels: column of class labels or of tokens; None: no conditions.
        size: pixels of a side of the pictures; see `ImageFolder`.
        channels: of the pictures, 3 or 1.
        range: (lowest, highest) value allowed in arrays; pictures are in [-1, 1].

    Raises:
        TypeError: something else, as a dictionary of splits.
        ValueError: an unknown column (with the nearest right one); pictures without a size.
    """

    def __init__(
        self,
        dataset: Any,
        x: str = "image",
        labels: str | None = None,
        size: int | None = None,
        channels: int = 3,
        range: tuple[float, float] | None = None,
    ) -> None:
        if isinstance(dataset, dict):
            raise TypeError(f"a dictionary of splits: give one of them, {', '.join(dataset)}")
        if not hasattr(dataset, "column_names") or not hasattr(dataset, "__len__"):
            raise TypeError(
                f"a {type(dataset).__name__} is no datasets.Dataset with a length; a stream must "
                "be made one first"
            )
        for column in (x, labels):
            if column is not None and column not in dataset.column_names:
                raise ValueError(unknown("column", column, dataset.column_names))
        if len(dataset) == 0:
            raise ValueError("the data set is empty: give one sample or more")
        dataset = dataset.with_format(None)
        self.dataset, self.x, self.size, self.channels = dataset, x, size, channels
        self._pictures = hasattr(dataset[0][x], "convert")
        if self._pictures:
            if size is None:
                raise ValueError(f"column {x!r} holds pictures: say their size, as size=32")
            check_form(size, channels)
        self.range = checked_range(UNIT if self._pictures else range)
        self.source = None if self._pictures else f"column {x!r}"
        self._take_context(None if labels is None else torch.tensor(dataset[labels][:]))
        self.event_shape = tuple(self.samples(torch.tensor([0])).shape[1:])

    def __len__(self) -> int:
        return len(self.dataset)

    def samples(self, indices: Tensor) -> Tensor:
        column = self.dataset[indices.tolist()][self.x]
        if self._pictures and self.size is not None:
            pixels = [to_pixels(image, self.size, self.channels) for image in column]
            return from_bytes(torch.from_numpy(np.stack(pixels)))
        return torch.tensor(column, dtype=torch.float32)

    def describe(self) -> str:
        return f"data set of {len(self)}, {self.event_shape}, digest {probe(self)}"
