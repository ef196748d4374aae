"""Packages that the core does without: imported where they are used, or asked for in a sentence."""

from __future__ import annotations

import importlib
from typing import Any

# The extra of each; else "bench", which holds "train" too.
_TRAIN = ("accelerate", "matplotlib", "PIL", "rich", "safetensors", "sklearn")
_EXTRA = dict.fromkeys(_TRAIN, "train")
_ALONE = ("tensorboard", "datasets")  # in no extra: large, and few need them


def optional(name: str, purpose: str) -> Any:
    """The module `name`; ImportError says what to install if it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        root = name.partition(".")[0]
        what = root if root in _ALONE else f"'sde_diffusion[{_EXTRA.get(root, 'bench')}]'"
        raise ImportError(f"{purpose} need {root}: pip install {what}") from error
