"""Devices by name: "cuda" is the current one, "cuda:0" if nothing else was said."""

from __future__ import annotations

import torch


def same_device(a: torch.device, b: torch.device) -> bool:
    """Whether two names are of one device."""
    return a.type == b.type and _index(a) == _index(b)


def _index(device: torch.device) -> int:
    if device.index is not None:
        return device.index
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.current_device()
    return 0
