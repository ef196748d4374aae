"""k-diffusion's samplers and ours. Both work in float64; its levels are Karras', 80 to 0.01, 0."""

from __future__ import annotations

from typing import Any

import k_diffusion_peer as peer
from parity import Pair, written
from probe import difference

import sde_diffusion as sd

EDM = sd.EDM()
SIGMAS = sd.times.karras(sd.EDM(sigma_min=0.01), 9)
ABOVE_ZERO = SIGMAS[:-1]


def pair(
    theirs: str,
    ours: str,
    options: dict[str, Any] | None = None,
    sigmas: Any = SIGMAS,
    path: bool = False,
    **their_options: Any,
) -> Pair:
    options = options or {}

    def measure() -> float:
        plan = sd.SOLVERS[ours](EDM, sigmas, **options)
        return difference(peer.table(theirs, sigmas, path, **their_options), plan)

    return Pair(written(f"sample_{theirs}", their_options), written(ours, options), measure)


PAIRS = [
    pair("euler", "ddim"),
    pair("euler", "euler", {"variable": "rho"}),
    pair("euler_ancestral", "ddim", {"eta": 1.0}),
    pair("euler_ancestral", "ddim", {"eta": 0.6}, eta=0.6),
    pair("heun", "heun", {"variable": "rho"}),
    *(pair("lms", "deis", {"order": n, "variable": "rho"}, order=n) for n in (1, 2, 3, 4)),
    pair("dpmpp_2m", "dpm_solver_pp_2m"),
    pair("dpmpp_2m", "dpm_solver_pp_2m", sigmas=ABOVE_ZERO),
]
