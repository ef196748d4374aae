"""Packages that the core does without: imported where they are used, or asked for in a sentence."""

from __future__ import annotations

import importlib
from typing import Any


def optional(name: str, purpose: str) -> Any:
    """The module `name`; ImportError says what to install if it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        cure = f"{name.partition('.')[0]}: pip install 'sde_diffusion[bench]'"
        raise ImportError(f"{purpose} need {cure}") from error
