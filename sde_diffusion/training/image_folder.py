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
from ..progress import Progress
from .data import UNIT, Stored, from_bytes
from .images import check_depth, check_form, to_pixels

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
HELD = 2**30  # bytes of decoded pixels that are kept in memory
AT_ONCE = 1024  # files looked at between two words of progress
CURE = "remove it; if a run with it is to go on, put a good picture of the same name in its place"


class ImageFolder(Stored):
    """Pictures in a folder and its subfolders, in [-1, 1].

    Each is resized, its shorter side to `size`, and cut to the middle square; what is transparent
    shows white. All files are looked at once, before anything is trained on them: their headers,
    and their checksums where the format has them. What was decoded is kept as bytes, if all of it
    fits into a gibibyte; a batch is decoded by several threads.

    Args:
        path: the folder, searched to any depth for pictures, by their suffix.
        size: pixels of a side.
        channels: 3 (red, green, blue) or 1 (grey).
        labels: whether the folders directly in `path` are classes, numbered by name from 0;
            `names` then holds their names.
        threads: that decode.

    Raises:
        NotADirectoryError: no such folder.
        ValueError: no pictures in it, or a file that is none; with labels, one that is in no
            subfolder; no thread.
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
        if type(threads) is not int or threads < 1:
            raise ValueError(f"threads = {threads!r}: give a whole number, at least 1")
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
        context: Tensor | None = None
        if labels:
            self.names, context = self._classes()
        self._take_context(context)
        self._pool = ThreadPoolExecutor(threads)
        self._look_at_all()
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

    def _look_at_all(self) -> None:
        """ValueError, naming them, if files are no pictures: now, not in the middle of a run."""
        wrong: list[tuple[Path, str]] = []
        with Progress(len(self.files)) as progress:
            for start in range(0, len(self.files), AT_ONCE):
                some = self.files[start : start + AT_ONCE]
                found = zip(some, self._pool.map(_fault, some), strict=True)
                wrong += [(file, fault) for file, fault in found if fault]
                progress.advance(len(some), f"looking at the pictures in {self.path}")
        if wrong:
            file, fault = wrong[0]
            others = ", ".join(other.name for other, _ in wrong[1:5])
            more = f" (and {len(wrong) - 1} more: {others}{', ..' * (len(wrong) > 5)})"
            raise ValueError(
                f"{file} is no picture to train on: {fault}{more if others else ''}; {CURE}"
            )

    def samples(self, indices: Tensor) -> Tensor:
        chosen = indices.cpu()
        if self._held is None:
            return from_bytes(self._decode(chosen))
        missing = chosen[~self._known[chosen]].unique()
        if len(missing):
            self._held[missing] = self._decode(missing)
            self._known[missing] = True
        return from_bytes(self._held[chosen])

    def _decode(self, indices: Tensor) -> Tensor:
        pixels = list(self._pool.map(self._read, (self.files[i] for i in indices.tolist())))
        return torch.from_numpy(np.stack(pixels))

    def _read(self, file: Path) -> np.ndarray:
        try:
            with optional("PIL.Image", "pictures").open(file) as image:
                return to_pixels(image, self.size, self.channels)
        except Exception as error:  # what pillow says of a damaged file has many types
            raise ValueError(f"{file} is no picture to train on: {error}; {CURE}") from error

    def describe(self) -> str:
        total = hashlib.blake2b(digest_size=16)
        for file in self.files:
            total.update(f"{file.relative_to(self.path).as_posix()}\n".encode())
        classes = f", {self.classes} classes" if self.classes else ""
        return (
            f"{len(self)} pictures, {self.event_shape}{classes}, digest of their names "
            f"{total.hexdigest()}"
        )


def _fault(file: Path) -> str:
    """What is wrong with a picture, as far as it shows without decoding it; "": nothing."""
    try:
        with optional("PIL.Image", "pictures").open(file) as image:
            check_depth(image)
            image.verify()
    except Exception as error:  # what pillow says of a damaged file has many types
        return str(error) or type(error).__name__
    return ""
