"""Results on disk: kept as they come, so that a run that was stopped goes on where it was.

One JSON file maps the digest of all that settles a cell (model, solver, NFE, seed, sizes) to its
numbers. It is written whole or not at all; a changed setting is another digest, and so a cell not
yet computed.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from .files import write_atomic

FORMAT = "sde_diffusion.cells/1"
Cell = dict[str, Any]


def digest(value: Any) -> str:
    """A fingerprint of plain data."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class Store:
    """Cells by digest.

    Args:
        path: the file; made when first saved.
        every: seconds between two savings while results come in.

    Raises:
        ValueError: if the file is damaged or something else.
    """

    def __init__(self, path: str | Path, every: float = 2.0) -> None:
        self.path, self.every = Path(path), every
        self.cells: dict[str, Cell] = {}
        self._saved = time.monotonic()
        if self.path.exists():
            self.cells = _read(self.path)

    def get(self, key: str) -> Cell | None:
        """The cell of a digest, if it was computed before."""
        return self.cells.get(key)

    def put(self, key: str, cell: Cell) -> None:
        """Keep a cell; on disk at the latest `every` seconds after, or by `save`."""
        self.cells[key] = cell
        if time.monotonic() - self._saved > self.every:
            self.save()

    def save(self) -> None:
        """Write all cells."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "cells": self.cells})
        write_atomic(self.path, text.encode())
        self._saved = time.monotonic()


def _read(path: Path) -> dict[str, Cell]:
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT or not isinstance(content["cells"], dict):
            raise ValueError(f"format {content['format']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged or holds no finished cells ({error}); delete it, or give another "
            "folder for the results"
        ) from error
    return content["cells"]
