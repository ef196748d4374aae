"""azula's samplers and ours, on three schedules; float64 throughout."""

from __future__ import annotations

from typing import Any

import azula_peer as peer
import torch
from parity import Pair, written
from probe import difference

import sde_diffusion as sd

SCHEDULES = {"VP": sd.VPLinear(), "flow matching": sd.FlowMatching(), "VE": sd.VE()}
TIMES = torch.linspace(0.95, 0.02, 9, dtype=torch.float64)


def pair(theirs: str, ours: str, options: dict[str, Any] | None = None, **more: Any) -> Pair:
    options = options or {}

    def measure() -> float:
        return max(
            difference(
                peer.table(theirs, schedule, TIMES, **more),
                sd.SOLVERS[ours](schedule, TIMES, **options),
            )
            for schedule in SCHEDULES.values()
        )

    return Pair(written(f"{theirs}Sampler", more), written(ours, options), measure)


def adams(theirs: str, order: int, prediction: str, variable: str) -> Pair:
    options = {"order": order, "prediction": prediction, "variable": variable}
    return pair(theirs, "adams", options, order=order)


PAIRS = [
    pair("DDPM", "ddpm", {"variance": "posterior"}),
    pair("DDIM", "ddim"),
    pair("DDIM", "ddim", {"eta": 0.7}, eta=0.7**2),
    pair("Euler", "ddim"),
    pair("Euler", "euler", {"variable": "rho"}),
    pair("Heun", "heun", {"variable": "rho"}),
    pair("Ito", "ddim", eta=0.0),
    *(pair("Ito", "sde_dpm_solver_1", {"eta": eta**2}, eta=eta) for eta in (0.5, 1.0)),
    *(adams("xEAB", n, "data", "lambda") for n in (1, 2, 3, 4)),
    *(adams("zEAB", n, "noise", "lambda") for n in (1, 2, 3, 4)),
    *(adams("zAB", n, "noise", "rho") for n in (1, 2, 3, 4)),
    *(adams("vAB", n, "velocity", "phi") for n in (1, 2, 3, 4)),
]
