"""Objects that a user names on the command line: "module:attribute", found from where they are."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from typing import Any

from .. import training
from ..denoise import Denoiser
from ..names import unknown


def load(path: str) -> Any:
    """The object that "module:attribute" names; the current directory is looked in first.

    Raises:
        ValueError: if the text is none of that form, or there is no such module or attribute.
    """
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"{path!r}: write module:attribute, as my_model:denoiser")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # something that the module itself imports
        raise ValueError(
            f"there is no module {module_name!r} (looked in {here} and among the installed "
            f"packages): for a file {module_name}.py, run the command in its folder"
        ) from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            public = [n for n in vars(found) if not n.startswith("_")]
            raise ValueError(unknown(f"attribute of {module_name}", name, public))
        found = getattr(found, name)
    return found


def load_denoiser(path: str) -> Denoiser:
    """A denoiser, or what a function without arguments of that name returns; or a checkpoint's.

    Raises:
        ValueError: as `load`, or if it is no denoiser; a checkpoint that cannot be read.
    """
    if path.endswith(".safetensors") or (":" not in path and Path(path).is_dir()):
        return training.load_denoiser(path)
    if ":" not in path:
        raise ValueError(
            f"{path!r} is no checkpoint (the folder of a training run, or a file "
            "step-*.safetensors in it); for an object write module:attribute, as my_model:denoiser"
        )
    found = load(path)
    if _takes_nothing(found):
        found = found()
    if not isinstance(found, Denoiser):
        raise ValueError(
            f"{path} is no Denoiser but {type(found).__name__}; say there how to read the network: "
            "denoiser = sde_diffusion.NetworkDenoiser(network, schedule, prediction='noise')"
        )
    return found


def _takes_nothing(found: Any) -> bool:
    """Whether it is a function that can be called without arguments."""
    if not inspect.isfunction(found):
        return False
    parameters = inspect.signature(found).parameters.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in optional for p in parameters)
