"""Weights and training runs in files: numbers and text, nothing in them is executed.

One safetensors file, with a description and a checksum in its header, put in place whole or not at
all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .extras import optional
from .files import write_atomic
from .names import look_up

T = TypeVar("T")

TRAINING = "sde_diffusion.training/2"
WEIGHTS = "sde_diffusion.weights/1"
CURE = "delete it, or give another path"


def save_weights(
    network: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a network's weights to one safetensors file, whole or not at all.

    Args:
        network: the module whose state_dict is written.
        path: the file; replaced if it exists, left as it was if writing fails.
        metadata: anything JSON can hold, given back by `load_weights`.
    """
    header = {"metadata": dict(metadata or {}), "network": describe(network)}
    write_file(Path(path), WEIGHTS, network.state_dict(), header)


def load_weights(
    network: nn.Module, path: str | os.PathLike[str], average: str | float | None = None
) -> dict[str, Any]:
    """Read weights into a network, from `save_weights` or from a checkpoint of `Trainer`.

    Args:
        network: changed in place.
        path: the file, or the folder of a run: then its latest checkpoint.
        average: of a checkpoint: which of its averages, by relative width, as 0.05, or by name, as
            "sigma_rel 0.05"; default: the first.

    Returns:
        the metadata given to `save_weights`; for a checkpoint, its step, configuration, names of
        averages and description of the model.

    Raises:
        FileNotFoundError: no such file, or no checkpoint in the folder.
        ValueError: if the file is damaged, of another kind or of another network, which is then
            unchanged; an average that is not there.
    """
    file = latest(path)
    tensors, header = read_file(file, WEIGHTS, TRAINING)
    return fill_weights(network, tensors, header, file, average)


def fill_weights(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    header: dict[str, Any],
    path: Path,
    average: str | float | None = None,
) -> dict[str, Any]:
    """What `load_weights` does, from a file that is read already."""
    metadata, saved = header.get("metadata"), header.get("network")
    if metadata is None:
        metadata = header
        tensors = averaged(tensors, header, "network", average)
        saved = under(f"{header['parts']['network']}.", header["configuration"]["network"])
    elif average is not None:
        raise ValueError(f"{path} holds one set of weights, no averages: leave average={average!r}")
    asked = describe(network)
    if saved != asked:  # an equal one fits, though its dropout may be another
        model, own = header.get("model") or {}, getattr(network, "configuration", None)
        old = {"network": saved, "model": model.get("network")}
        new = {"network": asked, "model": own if isinstance(own, Mapping) else None}
        check_same(old, new, path)
    network.load_state_dict(tensors)
    return metadata


def averaged(
    tensors: Mapping[str, Tensor],
    header: dict[str, Any],
    part: str,
    average: str | float | None = None,
) -> dict[str, Tensor]:
    """The state of a part of a checkpoint's objective, "network" or "schedule", as averaged."""
    names = {name: which for which, name in enumerate(header["averages"])}
    name = header["averages"][0] if average is None else average_name(average)
    which = look_up("average of this checkpoint", name, names)
    place = header["parts"][part]
    return under(f"objective.{place}.", tensors) | under(f"average.{which}.{place}.", tensors)


def average_name(average: str | float) -> str:
    """A relative width as the name of its average; a name as it is."""
    try:
        return f"sigma_rel {float(average):g}"
    except ValueError:
        return str(average)


def checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a folder, oldest first; none if there is no such folder."""
    return sorted(Path(folder).glob("step-*.safetensors"))


def latest(path: str | os.PathLike[str]) -> Path:
    """The last checkpoint in a folder; a file as it is.

    Raises:
        FileNotFoundError: there is none.
    """
    found = checkpoints(path) if Path(path).is_dir() else [Path(path)]
    if not found or not found[-1].exists():
        raise FileNotFoundError(f"{path} holds no checkpoint (step-*.safetensors): train first")
    return found[-1]


def describe(network: nn.Module) -> dict[str, str]:
    """Name, dtype and shape of every tensor of a network."""
    tensors = network.state_dict().items()
    return {name: f"{value.dtype} {tuple(value.shape)}" for name, value in tensors}


def check_same(saved: dict[str, Any], asked: dict[str, Any], path: Path) -> None:
    """Raise ValueError, naming what differs, unless both describe the same run.

    Networks are told apart by "model", their configurations, where both have one that differs,
    else by "network", their tensors. The seed of initial weights, which are replaced, is no matter,
    nor is an argument that is None, which a file of an earlier version may not know.
    """
    both = (saved, asked)
    models = [_form(d.get("model") or {}) for d in both]
    parts = models if all(models) and models[0] != models[1] else [d["network"] for d in both]
    old, new = (
        {k: v for k, v in d.items() if k not in ("model", "network")}
        | {f"network {k}": v for k, v in part.items()}
        for d, part in zip(both, parts, strict=True)
    )
    names = [k for k in old | new if old.get(k) != new.get(k)]
    if names:
        lines = [f"{k}: {old.get(k)} in the file, {new.get(k)} asked" for k in names[:5]]
        more = f"; and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(f"{path} is of another run: {'; '.join(lines)}{more}; match it, {CURE}")


def _form(model: dict[str, Any]) -> dict[str, Any]:
    """What settles the form of a network, of its configuration."""
    return {k: v for k, v in model.items() if k != "seed" and v is not None}


def under(prefix: str, tensors: Mapping[str, T]) -> dict[str, T]:
    """The entries whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def digest_of(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """A fingerprint of named tensors and of a text."""
    total = hashlib.blake2b(text.encode(), digest_size=16)
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def write_file(
    path: Path, kind: str, tensors: Mapping[str, Tensor], header: dict[str, Any]
) -> None:
    """One safetensors file with its description, put in place whole or not at all."""
    safetensors = optional("safetensors.torch", "checkpoints and weights")
    own = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    text = json.dumps({"format": kind, **header})
    write_atomic(path, safetensors.save(own, {"header": f"{digest_of(own, text)} {text}"}))


def read_file(path: Path, *kinds: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, description) of a file of `write_file`."""
    safetensors = optional("safetensors.torch", "checkpoints and weights")
    blob = path.read_bytes()
    try:
        tensors = safetensors.load(blob)
        front = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or is no safetensors file ({error}); {CURE}"
        ) from error
    digest, _, text = front.get("__metadata__", {}).get("header", "").partition(" ")
    if not text.startswith('{"format": "sde_diffusion.'):
        raise ValueError(f"{path} was not written by this library; {CURE}")
    if digest != digest_of(tensors, text):
        raise ValueError(f"{path} is damaged: its contents do not match its checksum; {CURE}")
    header = json.loads(text)
    if header["format"] not in kinds:
        raise ValueError(f"{path} is a {header['format']}, not a {' or '.join(kinds)}; {CURE}")
    return tensors, header
