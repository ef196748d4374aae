"""Plans in files: one JSON object with a digest, so that a table is what it was when measured.

    {"format": "sde_diffusion.plan", "version": 1, "digest": .., the table and its origin}

The digest is of everything else in the object, as plain data: other spaces or line ends leave it
as it is, another number does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import write_atomic
from .store import digest

FORMAT, VERSION = "sde_diffusion.plan", 1


def write_table(path: str | os.PathLike[str], table: Mapping[str, Any]) -> None:
    """Write plain data as a plan's file, atomically; floats are kept to the last bit.

    Raises:
        TypeError: something that JSON does not have (a tensor).
        ValueError: a number that is not finite.
        OSError: if it cannot be written; the file that was there stays as it was.
    """
    try:
        plain = json.loads(json.dumps({"format": FORMAT, "version": VERSION, **table}))
        text = json.dumps({**plain, "digest": digest(plain)}, indent=1, allow_nan=False)
    except TypeError as error:
        raise TypeError(
            f"{path} is not written: a plan's file holds plain values (words, numbers, lists, "
            f"mappings by words), but {error}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{path} is not written: its numbers must be finite, but {error}"
        ) from error
    write_atomic(path, text.encode())


def read_table(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The plain data of a plan's file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: if the file is damaged, no plan, of a newer version, or was altered.
    """
    try:
        table = json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: there is no such file of a plan; plan.save(path) and sde-diffusion tune "
            "write one"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); it is damaged or no plan") from error
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise ValueError(f"{path} is JSON but not a plan (no format {FORMAT!r})")
    version = table.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"{path} is a damaged plan: its version is {version!r}")
    if version > VERSION:
        raise ValueError(
            f"{path} was made by a newer version of sde_diffusion (plan version {version}; this "
            f"one reads up to {VERSION}): upgrade sde_diffusion"
        )
    written = table.pop("digest", None)
    if written is None:
        raise ValueError(
            f"{path} is a damaged plan, or was altered after it was saved: it has no digest. Take "
            "the file as it was saved"
        )
    if written != digest(table):
        raise ValueError(
            f"{path} was altered after it was saved: its content does not have the digest "
            f"{written!r} that is written in it, so what it says of itself may not hold. Take the "
            "file as it was saved; to change a plan, load that one, make another Plan of its rows "
            "and save this"
        )
    return table
