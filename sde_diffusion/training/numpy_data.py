"""Samples in a numpy file; .npy is mapped into memory, not read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..names import unknown
from .data import UNIT, Stored, checked_range, from_bytes, probe

Array = np.ndarray
CHANNELS = (1, 3, 4)  # of images


class NumpyData(Stored):
    """Samples of a .npy file (mapped into memory) or of a .npz archive (read whole).

    Bytes (uint8) are pixels and become x / 127.5 - 1; floating-point values stay as they are, in
    float32.

    Args:
        path: the file; nothing pickled is loaded.
        x: name of the samples in an archive; may be left out if there is but one array.
        labels: the conditions: a name in the archive, or beside a .npy file another .npy file.
        range: (lowest, highest) value allowed, checked as it is read; default (-1, 1) for
            bytes, else none.
        channels_last: whether images are (n, height, width, channels) and must be turned; must
            be said, True or False, where the shape looks like it.

    Raises:
        FileNotFoundError: no such file.
        TypeError: neither uint8 nor floating point.
        ValueError: another kind of file, an unknown name, values outside the range, or images
            that seem to have their channels last.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        x: str | None = None,
        labels: str | os.PathLike[str] | None = None,
        range: tuple[float, float] | None = None,
        channels_last: bool | None = None,
    ) -> None:
        self.path, self.channels_last, self.source = Path(path), bool(channels_last), str(path)
        self._x, context = _arrays(self.path, x, labels)
        kind = self._x.dtype
        if kind != np.uint8 and kind.kind != "f":
            raise TypeError(
                f"{path} holds {kind}: give bytes (uint8), which are scaled to [-1, 1], or "
                "floating-point values"
            )
        self.range = checked_range(UNIT if range is None and kind == np.uint8 else range)
        shape = self._x.shape[1:]
        if self._x.ndim == 0 or len(self._x) == 0:
            raise ValueError(f"{path} has shape {self._x.shape}: give one sample or more")
        if channels_last and len(shape) != 3:
            raise ValueError(f"channels_last needs (n, height, width, channels), not (n, *{shape})")
        turned = len(shape) == 3 and shape[2] in CHANNELS and shape[0] not in CHANNELS
        if turned and channels_last is None:
            raise ValueError(
                f"{path} has shape {self._x.shape}, which reads as {shape[0]} channels of "
                f"{shape[1]} x {shape[2]} pixels: say channels_last = true if these are images (n, "
                "height, width, channels), channels_last = false if they are not"
            )
        self.event_shape = (shape[2], *shape[:2]) if channels_last else shape
        self._take_context(None if context is None else torch.from_numpy(np.array(context)))

    def __len__(self) -> int:
        return len(self._x)

    def samples(self, indices: Tensor) -> Tensor:
        x = torch.from_numpy(self._x[indices.cpu().numpy()])  # a copy, read now
        x = from_bytes(x) if x.dtype is torch.uint8 else x.float()
        return x.movedim(-1, 1).contiguous() if self.channels_last else x

    def describe(self) -> str:
        return f"{self._x.dtype} {tuple(self._x.shape)}, digest {probe(self)}"


def _arrays(
    path: Path, x: str | None, labels: str | os.PathLike[str] | None
) -> tuple[Array, Array | None]:
    """(samples, conditions) of a file."""
    found = _load(path)
    if isinstance(found, Array):
        if x is not None:
            raise ValueError(f"{path} holds one array without a name: leave out x = {x!r}")
        beside = None if labels is None else _load(Path(labels))
        if not isinstance(beside, Array | None):
            raise ValueError(f"labels = {str(labels)!r} must be a .npy file, as {path} is")
        return found, beside
    if x is None and len(found) != 1:
        raise ValueError(f"{path} holds {', '.join(found)}: say which are the samples, x='...'")
    x = next(iter(found)) if x is None else x
    for name in (x, labels):
        if name is not None and name not in found:
            raise ValueError(unknown(f"array of {path}", name, found))
    return found[x], None if labels is None else found[str(labels)]


def _load(path: Path) -> Array | dict[str, Array]:
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"{path}: give a .npy or .npz file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except PermissionError:
        raise
    except Exception:  # what numpy says of a damaged file has many types, and bad advice
        raise ValueError(
            f"{path} is damaged, or holds objects, which are not loaded: save it again as an array "
            "of numbers, np.save(path, np.asarray(x, dtype=np.float32)), in an archive np.savez"
        ) from None
    return {name: value for name, value in found.items() if isinstance(value, Array)}
