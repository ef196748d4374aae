"""Where samples go: an archive of numbers, one picture of all, or a folder of pictures."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..extras import optional
from ..files import write_atomic
from ..training.pictures import has_picture, picture

Span = tuple[float, float]
ABOUT = "samples.json"  # in a folder of pictures: what they are


class Output(ABC):
    """A place for samples 0 .. n-1, given in any order; nothing is half written."""

    def missing(self, n: int) -> list[int]:
        """Numbers of the samples that are not there yet."""
        return list(range(n))

    @abstractmethod
    def add(self, numbers: list[int], x: Tensor) -> None:
        """Take some samples."""

    @abstractmethod
    def finish(self, labels: Tensor | None) -> None:
        """All are there."""


class Whole(Output):
    """One file, written when all samples are there.

    Args:
        path: .npz (`samples` and, for classes, `labels`) or .png.
        span: values shown as black and white.
        turns: classes that take turns.
    """

    def __init__(self, path: Path, span: Span | None, turns: int | None) -> None:
        self.path, self.span, self.turns = path, span, turns
        self.parts: list[Tensor] = []

    def add(self, numbers: list[int], x: Tensor) -> None:
        self.parts.append(x.cpu())

    def finish(self, labels: Tensor | None) -> None:
        x = torch.cat(self.parts)
        if self.path.suffix == ".png":
            write_atomic(self.path, picture(x, self.span, self.turns))
            return
        file = io.BytesIO()
        if labels is None:
            np.savez(file, samples=x.numpy())
        else:
            np.savez(file, samples=x.numpy(), labels=labels.numpy())
        write_atomic(self.path, file.getvalue())


class Folder(Output):
    """One picture a sample, 000000.png and so on; those that are there are not made again.

    Args:
        path: the folder, made if it is not there.
        span: values that become the bytes 0 and 255; beyond them values are cut off.
        about: what settles the samples, as JSON has it.

    Raises:
        ValueError: the folder holds other samples, or other things.
    """

    def __init__(self, path: Path, span: Span, about: dict[str, Any]) -> None:
        self.path, self.span = path, span
        self.images = optional("PIL.Image", "pictures")
        path.mkdir(exist_ok=True)
        there = path / ABOUT
        if not there.exists():
            if any(path.iterdir()):
                raise ValueError(f"{path} is not empty, and not of this command: give a new folder")
            write_atomic(there, json.dumps(about, indent=1).encode())
            return
        old = json.loads(there.read_text())
        other = [key for key in about if old.get(key) != about[key]]
        if other:
            lines = [f"{key}: {old.get(key)} there, {about[key]} asked" for key in other]
            raise ValueError(f"{path} holds other samples ({'; '.join(lines)}): give a new folder")

    def missing(self, n: int) -> list[int]:
        return [i for i in range(n) if not self._file(i).exists()]

    def _file(self, number: int) -> Path:
        return self.path / f"{number:06d}.png"

    def add(self, numbers: list[int], x: Tensor) -> None:
        low, high = self.span
        pixels = ((x.cpu().float() - low) / (high - low)).clamp(0, 1).mul(255).round()
        for number, image in zip(numbers, pixels.to(torch.uint8).movedim(1, -1), strict=True):
            plain = image.squeeze(-1) if image.shape[-1] == 1 else image
            file = io.BytesIO()
            self.images.fromarray(plain.numpy()).save(file, format="png")
            write_atomic(self._file(number), file.getvalue())

    def finish(self, labels: Tensor | None) -> None:
        return


def check_out(path: Path, event_shape: tuple[int, ...]) -> None:
    """ValueError unless samples of this shape can be written there."""
    if not path.parent.is_dir():
        raise ValueError(f"--out {path}: there is no folder {path.parent}; make it")
    if path.suffix not in ("", ".npz", ".png"):
        raise ValueError(f"--out {path}: give a file .npz or .png, or a folder for one .png each")
    if path.suffix and path.is_dir():
        raise ValueError(f"--out {path} is a folder: give the name of a file in it")
    if not path.suffix and path.is_file():
        raise ValueError(f"--out {path} is a file: give another name for a folder")
    alone = len(event_shape) == 3  # points are drawn together only
    shown = has_picture(event_shape) and (path.suffix == ".png" or alone)
    if path.suffix != ".npz" and not shown:
        raise ValueError(
            f"--out {path}: samples of shape {event_shape} are no pictures; give a file .npz"
        )
