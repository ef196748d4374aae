"""Data by name: what a configuration can ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..extras import optional
from ..names import look_up
from ..options import made
from .data import Data, Flipped
from .digits import digits
from .hugging_face import HuggingFaceData
from .image_folder import ImageFolder
from .numpy_data import NumpyData
from .pairs import CONDITIONS, Pairs


def _saved(
    path: str,
    split: str | None = None,
    x: str = "image",
    labels: str | None = None,
    size: int | None = None,
    channels: int = 3,
    range: tuple[float, float] | None = None,
) -> Data:
    """A data set in the folder where `save_to_disk` put it."""
    dataset = optional("datasets", "data sets of Hugging Face").load_from_disk(path)
    if split is not None:
        dataset = look_up("split", split, dataset)
    return HuggingFaceData(dataset, x, labels, size, channels, range)


SOURCES: dict[str, Callable[..., Data]] = {
    "digits": digits,
    "numpy": NumpyData,
    "folder": ImageFolder,
    "datasets": _saved,
}


def data_of(table: Mapping[str, Any], where: str = "data") -> Data:
    """The data of a table, as {"kind": "folder", "path": "faces", "size": 32, "flip": True}.

    With "condition", a table of one of `CONDITIONS`, as {"kind": "smaller", "factor": 4}, an image
    made from each is its condition.

    Raises:
        ValueError: no or an unknown kind, unknown or missing keys (with the nearest right one),
            values that the data refuse.
    """
    flip, condition = table.get("flip", False), table.get("condition")
    if not isinstance(flip, bool):
        raise ValueError(f"{where}: flip = {flip!r}: give true or false")
    beside = ("flip", "condition")
    data = made(where, {k: v for k, v in table.items() if k not in beside}, SOURCES, beside)
    data = Flipped(data) if flip else data
    if condition is None:
        return data
    place = f"{where} condition"
    made_by = made(place, condition, CONDITIONS)
    try:
        return Pairs(data, made_by)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from error
