"""k-diffusion's samplers under the probe: states in its variance-exploding scale, alpha = 1."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import types
from pathlib import Path
from typing import Any

import torch
from probe import Probe, Table, patched
from torch import Tensor

VERSION = "0.1.1.post1"


def _sampling() -> Any:
    """k_diffusion.sampling alone: the rest of the package asks for torchvision."""
    spec = importlib.util.find_spec("k_diffusion")
    package = types.ModuleType("_k_diffusion")
    package.__path__ = [str(Path(spec.origin).parent)]
    utils: Any = types.ModuleType("_k_diffusion.utils")
    utils.append_dims = lambda t, ndim: t[(...,) + (None,) * (ndim - t.ndim)]
    package.utils = utils
    sys.modules |= {"_k_diffusion": package, "_k_diffusion.utils": utils}
    return importlib.import_module("_k_diffusion.sampling")


sampling = _sampling()


class _Torch:
    """torch with the probe's draws in the place of randn_like."""

    def __init__(self, probe: Probe) -> None:
        self.randn_like = lambda x: probe.draw()

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def table(name: str, sigmas: Tensor, path: bool = False, **options: Any) -> Table:
    """What `sample_<name>` does on these noise levels.

    Args:
        sigmas: float64, noisier to cleaner.
        path: its draws are increments of one Brownian path in sigma, as its own tree gives
            them; otherwise independent.
    """
    probe, function = Probe(), getattr(sampling, f"sample_{name}")
    if "noise_sampler" in inspect.signature(function).parameters:
        options["noise_sampler"] = probe.draw if path else lambda *_: probe.draw()
    with patched("_k_diffusion.sampling", torch=_Torch(probe)):
        end = function(probe.answer, probe.start, sigmas, disable=True, **options)
    return probe.table(end)


def fast(sigma_min: float, sigma_max: float, n: int, wide: bool = True) -> Table:
    """`sample_dpm_fast`, which makes its own grid.

    Args:
        n: network calls.
        wide: make that grid in float64; False: as shipped, in torch's default dtype.
    """
    probe, default = Probe(), torch.get_default_dtype()
    levels = (torch.tensor(v, dtype=torch.float64) for v in (sigma_min, sigma_max))
    torch.set_default_dtype(torch.float64 if wide else default)
    try:
        end = sampling.sample_dpm_fast(probe.answer, probe.start, *levels, n, disable=True)
    finally:
        torch.set_default_dtype(default)
    return probe.table(end)
