"""Other packages' samplers, as functions that take a number of steps without a network.

k-diffusion's package asks for torchvision when imported; its `sampling.py` needs only one helper
of the rest, so that file is loaded alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Loop = Callable[[], Tensor]
INSTALL = {
    "diffusers": "pip install diffusers",
    "k_diffusion": "pip install --no-deps k-diffusion && pip install scipy torchsde tqdm",
}


def loops(x: Tensor, out: Tensor, steps: int) -> dict[str, Loop]:
    """Name -> a function that takes all steps from x with `out` as every network output."""
    found: dict[str, Loop] = {}
    if importlib.util.find_spec("diffusers"):
        found |= _diffusers(x, out, steps)
    if importlib.util.find_spec("k_diffusion"):
        found |= _k_diffusion(x, out, steps)
    return found


def missing() -> list[str]:
    """One line for each peer that is not installed."""
    return [
        f"{name} is not installed; to compare: {how}"
        for name, how in INSTALL.items()
        if not importlib.util.find_spec(name)
    ]


def _diffusers(x: Tensor, out: Tensor, steps: int) -> dict[str, Loop]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    def loop(scheduler: Any) -> Loop:
        scheduler.set_timesteps(steps)
        fresh = dict(scheduler.__dict__)

        def take() -> Tensor:
            # What set_timesteps leaves behind, without its cost.
            scheduler.__dict__.update(fresh)
            if "model_outputs" in fresh:
                scheduler.model_outputs = [None] * len(fresh["model_outputs"])
            state = x
            for t in scheduler.timesteps:
                state = scheduler.step(out, t, state, return_dict=False)[0]
            return state

        return take

    return {
        "diffusers DDIM": loop(DDIMScheduler(num_train_timesteps=1000)),
        "diffusers DPM++2M": loop(DPMSolverMultistepScheduler(num_train_timesteps=1000)),
    }


def _k_diffusion(x: Tensor, out: Tensor, steps: int) -> dict[str, Loop]:
    sampling = _load_sampling()
    sigmas = torch.cat([torch.logspace(1, -2, steps, dtype=x.dtype), x.new_zeros(1)])

    def model(state: Tensor, sigma: Tensor) -> Tensor:
        return out

    return {
        "k-diffusion 2M": lambda: sampling.sample_dpmpp_2m(model, x, sigmas, disable=True),
        "k-diffusion Euler": lambda: sampling.sample_euler(model, x, sigmas, disable=True),
    }


def _load_sampling() -> Any:
    """k_diffusion.sampling, with the one helper that it needs in place of k_diffusion.utils."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or spec.origin is None:
        raise ImportError(INSTALL["k_diffusion"])
    package = types.ModuleType("_k_diffusion")
    package.__path__ = [str(Path(spec.origin).parent)]
    utils: Any = types.ModuleType("_k_diffusion.utils")
    utils.append_dims = lambda t, ndim: t[(...,) + (None,) * (ndim - t.ndim)]
    package.utils = utils  # type: ignore[attr-defined]
    sys.modules |= {"_k_diffusion": package, "_k_diffusion.utils": utils}
    return importlib.import_module("_k_diffusion.sampling")
