"""k-diffusion's samplers and ours. Both work in float64; its levels are Karras', 80 to 0.01, 0."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import k_diffusion_peer as peer
import torch
from parity import Pair, written
from probe import Chain, difference

import sde_diffusion as sd

EDM = sd.EDM(sigma_max=80.0 * 2**0.5)  # churn rises above the first level
SIGMAS = sd.times.karras(sd.EDM(sigma_min=0.01, sigma_max=80.0), 9)
ABOVE_ZERO = SIGMAS[:-1]
MANY = sd.times.karras(sd.EDM(sigma_min=0.03, sigma_max=15.0), 60)  # a long last step


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


def fast(n: int) -> Pair:
    """Even steps in lambda of order 3; the last, or the last two, of the order that n leaves."""
    steps = n // 3 + 1
    orders = [3] * (steps - 2) + [2, 1] if n % 3 == 0 else [3] * (steps - 1) + [n % 3]
    levels = torch.logspace(1, -1, steps + 1, dtype=torch.float64).tolist()

    def measure(wide: bool) -> float:
        plans = [
            sd.SOLVERS[f"dpm_solver_{order}"](EDM, step)
            for order, step in zip(orders, pairwise(levels), strict=True)
        ]
        return difference(peer.fast(levels[-1], levels[0], n, wide), Chain(plans))

    ours = "dpm_solver_3, then " + ", ".join(f"dpm_solver_{k}" for k in orders if k < 3)
    return Pair(
        f"sample_dpm_fast(n={n})", ours, partial(measure, True), partial(measure, False), 2e-5
    )


PAIRS = [
    pair("euler", "ddim"),
    pair("euler", "euler", {"variable": "rho"}),
    pair("euler_ancestral", "ddim", {"eta": 1.0}),
    pair("euler_ancestral", "ddim", {"eta": 0.6}, eta=0.6),
    pair("heun", "heun", {"variable": "rho"}),
    *(pair("lms", "deis", {"order": n, "variable": "rho"}, order=n) for n in (1, 2, 3, 4)),
    pair("dpmpp_2m", "dpm_solver_pp_2m"),
    pair("dpmpp_2m", "dpm_solver_pp_2m", sigmas=ABOVE_ZERO),
    pair("lms", "lms"),
    pair("lms", "lms", {"last_step": "latest"}, sigmas=MANY),
    *(
        pair(theirs, ours, {"s_churn": churn, "s_noise": 1.003}, s_churn=churn, s_noise=1.003)
        for theirs, ours in (("euler", "edm_euler"), ("heun", "edm_heun"), ("dpm_2", "dpm_2"))
        for churn in (0.0, 3.0, 40.0)
    ),
    *(
        pair(theirs, ours, {"eta": eta}, eta=eta)
        for theirs, ours in (
            ("euler_ancestral", "euler_ancestral"),
            ("dpm_2_ancestral", "dpm_2_ancestral"),
            ("dpmpp_2s_ancestral", "dpm_solver_pp_2s_ancestral"),
        )
        for eta in (0.5, 1.0)
    ),
    *(
        pair("dpmpp_2m_sde", "sde_dpm_solver_pp_2m", {**kind, "eta": eta}, **kind, eta=eta)
        for kind in ({"solver_type": "midpoint"}, {"solver_type": "heun"})
        for eta in (0.0, 0.5, 1.0)
    ),
    *(
        pair("dpmpp_3m_sde", "sde_dpm_solver_pp_3m", {"difference": "shipped", "eta": eta}, eta=eta)
        for eta in (0.0, 0.5, 1.0)
    ),
    pair("dpmpp_2s_ancestral", "dpm_solver_pp_2s", eta=0.0),
    pair("dpmpp_sde", "dpm_solver_pp_2s", eta=0.0),
    *(fast(n) for n in (10, 11, 12)),
]
