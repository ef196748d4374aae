"""A folder of pictures, read as they are asked for."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..extras import optional
from .batch import Batch
from .data import UNIT, Data, from_bytes
from .images import check_form, to_pixels

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
HELD = 2**30  # bytes of decoded pixels that are kept in memory


class ImageFolder(Data):
    """Pictures in a folder and its subfolders, in [-1, 1].

    Each is resized, its shorter side to `size`, and cut to the middle square. What was decoded is
    kept as bytes, if all of it fits into a gibibyte; a batch is decoded by several threads.

    Args:
        path: the folder, searched to any depth for pictures, by their suffix.
        size: pixels of a side.
        channels: 3 (red, green, blue) or 1 (grey).
        labels: whether the folders directly in `path` are classes, numbered by name from 0;
            `names` then holds their names.
        threads: that decode.

    Raises:
        NotADirectoryError: no such folder.
        ValueError: no pictures in it; with labels, one that is in no subfolder.
        ImportError: without pillow.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int,
        channels: int = 3,
        labels: bool = False,
        threads: int = 4,
    ) -> None:
        check_form(size, channels)
        optional("PIL.Image", "pictures")
        self.path, self.size, self.channels = Path(path), size, channels
        if not self.path.is_dir():
            raise NotADirectoryError(f"{path}: there is no such folder")
        found = (f for f in self.path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
        self.files = sorted(found, key=lambda file: file.relative_to(self.path).as_posix())
        if not self.files:
            known = ", ".join(sorted(SUFFIXES))
            raise ValueError(f"{path} holds no pictures ({known}), nor do its subfolders")
        self.event_shape, self.range = (channels, size, size), UNIT
        self.names: tuple[str, ...] = ()
        self.context: Tensor | None = None
        if labels:
            self.names, self.context = self._classes()
        self.classes = len(self.names) if labels else None
        self._pool = ThreadPoolExecutor(threads)
        self._held: Tensor | None = None
        if len(self.files) * channels * size * size <= HELD:
            self._held = torch.empty((len(self.files), *self.event_shape), dtype=torch.uint8)
            self._known = torch.zeros(len(self.files), dtype=torch.bool)

    def _classes(self) -> tuple[tuple[str, ...], Tensor]:
        folders = [file.relative_to(self.path).parts for file in self.files]
        loose = next((parts[0] for parts in folders if len(parts) == 1), None)
        if loose is not None:
            raise ValueError(
                f"{self.path / loose} is in no subfolder, and so in no class: move it into one, or "
                "leave out labels"
            )
        names = sorted({parts[0] for parts in folders})
        return tuple(names), torch.tensor([names.index(parts[0]) for parts in folders])

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        chosen = indices.cpu()
        context = None if self.context is None else self.context[chosen]
        if self._held is None:
            return Batch(from_bytes(self._decode(chosen)), context)
        missing = chosen[~self._known[chosen]].unique()
        if len(missing):
            self._held[missing] = self._decode(missing)
            self._known[missing] = True
        return Batch(from_bytes(self._held[chosen]), context)

    def _decode(self, indices: Tensor) -> Tensor:
        pixels = list(self._pool.map(self._read, (self.files[i] for i in indices.tolist())))
        return torch.from_numpy(np.stack(pixels))

    def _read(self, file: Path) -> np.ndarray:
        try:
            with optional("PIL.Image", "pictures").open(file) as image:
                return to_pixels(image, self.size, self.channels)
        except Exception as error:  # what pillow says of a damaged file has many types
            raise ValueError(f"{file} is no picture to train on: {error}; remove it") from error

    def describe(self) -> str:
        total = hashlib.blake2b(digest_size=16)
        for file in self.files:
            name = file.relative_to(self.path).as_posix()
            total.update(f"{name} {file.stat().st_size}\n".encode())
        classes = f", {self.classes} classes" if self.classes else ""
        return (
            f"{len(self)} pictures, {self.event_shape}{classes}, digest of names and sizes "
            f"{total.hexdigest()}"
        )
