"""azula's samplers under the probe, on our schedules."""

from __future__ import annotations

import types
from typing import Any

import azula.sample
import torch
from probe import Probe, Table, patched

VERSION = "0.11.1"


class _Denoiser:
    def __init__(self, probe: Probe, schedule: Any) -> None:
        self.schedule = lambda t: tuple(
            torch.as_tensor(v, dtype=torch.float64) for v in schedule(t.double())
        )
        self._probe = probe

    def __call__(self, x: torch.Tensor, t: torch.Tensor, **_: Any) -> Any:
        return types.SimpleNamespace(mean=self._probe.answer(x, t))


class _Torch:
    def __init__(self, probe: Probe) -> None:
        self.randn_like = lambda x: probe.draw()

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def table(name: str, schedule: Any, times: torch.Tensor, **options: Any) -> Table:
    """What azula's sampler does on this grid."""
    kind = getattr(azula.sample, f"{name}Sampler")
    grid = property(lambda self: times)
    probe = Probe()
    sampler = type(name, (kind,), {"timesteps": grid})(
        _Denoiser(probe, schedule), steps=len(times) - 1, silent=True, **options
    )
    with patched("azula.sample", torch=_Torch(probe)):
        end = sampler(probe.start)
    return probe.table(end)
