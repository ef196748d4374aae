"""Where and when: hardware, versions and the command, for every file that is written."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path

import torch

PACKAGES = ("sde_diffusion", "torch", "numpy", "scipy", "torchdiffeq", "scikit-learn", "POT")


def where_and_when(module: str) -> dict[str, str]:
    """What a reader needs to judge or to repeat the numbers.

    Args:
        module: as in python -m module.
    """
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "command": shlex.join(["python", "-m", module, *without_folders(sys.argv[1:])]),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "load of the machine at the start": load,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def without_folders(words: list[str]) -> list[str]:
    """A command's words without the options whose value is a folder of this machine alone."""
    kept: list[str] = []
    for word in words:
        option, equals, value = word.partition("=")
        if kept and kept[-1].startswith("--") and os.path.isabs(word):
            kept.pop()
        elif not (option.startswith("--") and equals and os.path.isabs(value)):
            kept.append(word)
    return kept


def version(name: str) -> str:
    """The version of an installed package, or "none"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name == "sde_diffusion":
            from sde_diffusion import __version__

            return __version__
        return "none"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
