"""Tensors and plain values in a file, so that a long job which is stopped goes on where it was.

A .npz archive: the plain values as JSON text, and each tensor in them as an array of its own.
Nothing in it is executed (no pickle), and a file is whole or absent.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..denoise import Denoiser
from ..files import write_atomic

FORMAT = "sde_diffusion.kept/1"
_ARRAY = "array of this file"  # the key that stands for a tensor in the JSON text
_SAME = 1e-4  # how far a network's answers may be off, relative, and be those of the same network


def keep(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values (None, words, numbers, lists, mappings by words) and tensors."""
    arrays: list[np.ndarray] = []

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            arrays.append(value.detach().cpu().numpy())
            return {_ARRAY: len(arrays) - 1}
        if isinstance(value, Mapping):
            return {str(key): plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return value

    text = json.dumps({"format": FORMAT, "values": plain(values)})
    content = io.BytesIO()
    named = {f"array{i}": array for i, array in enumerate(arrays)}
    np.savez(content, allow_pickle=False, text=np.array(text), **named)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.getvalue())


def kept(path: Path, *names: str) -> dict[str, Any] | None:
    """What `keep` wrote, tensors on the CPU; None if there is no such file, or it is damaged.

    Args:
        path: of the file.
        names: of the values to read; default: all.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = json.loads(str(archive["text"]))
            if content["format"] != FORMAT:
                return None

            def whole(value: Any) -> Any:
                if isinstance(value, dict) and _ARRAY in value:
                    return torch.from_numpy(archive[f"array{value[_ARRAY]}"])
                if isinstance(value, dict):
                    return {key: whole(inner) for key, inner in value.items()}
                if isinstance(value, list):
                    return [whole(inner) for inner in value]
                return value

            values = content["values"]
            return {name: whole(values[name]) for name in names or values}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def fingerprint(*tensors: Tensor) -> str:
    """A digest of the numbers in some tensors."""
    found = hashlib.blake2b(digest_size=16)
    for x in tensors:
        found.update(x.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def probe(denoiser: Denoiser, starts: Tensor, t_start: float, t_end: float) -> Tensor:
    """What the denoiser answers at (alpha_t + sigma_t) z, the same two z ~ N(0, I) at three times.

    Of the starts only the shape, the dtype and the device matter.
    """
    schedule = denoiser.schedule
    last = max(t_end, schedule.t_clean)
    seeded = torch.Generator().manual_seed(0)
    z = torch.randn(2, *starts.shape[1:], generator=seeded, dtype=torch.float64).to(starts)
    times = (t_start, (t_start + last) / 2, last)
    answers = [denoiser(z * float(sum(schedule(t))), t) for t in times]
    return torch.stack(answers).double().cpu()


def check_same(answers: Tensor, before: Tensor, path: Path, label: str) -> None:
    """Raise ValueError if a network does not answer as the one did whose results a file keeps."""
    if answers.shape == before.shape:
        size = before.norm()
        off = float((answers - before).norm() / size) if size else float(answers.norm())
        if off <= _SAME:
            return
        found = f"its answers differ by {off:.1%}"
    else:
        found = f"its samples have shape {tuple(before.shape[2:])}"
    raise ValueError(
        f"{path} was made with another network, also under the label {label!r} ({found}): give "
        "this network another label, or another folder"
    )
