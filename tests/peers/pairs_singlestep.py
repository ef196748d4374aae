"""diffusers' singlestep DPM-Solver and ours.

Its stages are the points of its own grid: of order 2, two of its steps are one of ours, with r1
where the middle point lies. So it is compared with a chain of single steps, each of its own r1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import diffusers_peer as peer
import torch
from pairs_diffusers import VP, at_sigmas
from pairs_diffusers import pair as whole
from parity import Pair, written
from probe import Chain, difference

import sde_diffusion as sd

NAME = "DPMSolverSinglestep"
TWO = {"dpmsolver++": "dpm_solver_pp_2s", "dpmsolver": "dpm_solver_2"}
ONE = {"dpmsolver++": "ddim", "dpmsolver": "dpm_solver_1", "sde-dpmsolver++": "sde_dpm_solver_pp_1"}
END = {"dpmsolver++": "zero", "dpmsolver": "sigma_min", "sde-dpmsolver++": "sigma_min"}


def on_lambdas(steps: int, places: tuple[float, ...]) -> dict[str, Any]:
    """Betas for which timesteps 1 .. n are even steps in lambda from -2.3 to 2.3, with stages.

    Args:
        places: of the stages in each step, as fractions of its length in lambda.
    """
    parts = [(i + r) / steps for i in range(steps) for r in (0.0, *places)]
    lam = 4.6 * torch.tensor([*parts, 1.0], dtype=torch.float64) - 2.3
    bar = torch.sigmoid(2 * lam).flip(0)  # alpha^2
    betas = 1 - bar / torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    return {
        "solver_order": len(places) + 1,
        "num_train_timesteps": len(bar),
        "trained_betas": betas.tolist(),
        "final_sigmas_type": "sigma_min",
    }


def even(kind: str, solver_type: str, r1: float) -> Pair:
    """One plan of ours, r1 the same in every step."""
    options = {"r1": r1, "solver_type": solver_type}

    def measure(wide: bool) -> float:
        config = {**on_lambdas(8, (r1,)), "algorithm_type": kind, "solver_type": solver_type}
        table, made = peer.table(NAME, 16, wide=wide, **config)
        schedule, times = at_sigmas(made)
        return difference(table, sd.SOLVERS[TWO[kind]](schedule, times[::2], **options))

    name = written(NAME, {"solver_order": 2, "algorithm_type": kind, "solver_type": solver_type})
    theirs = f"{name}, middles at {r1}"
    ours = written(TWO[kind], options)
    return Pair(theirs, ours, partial(measure, True), partial(measure, False), 2e-5)


def chain(kind: str, solver_type: str, steps: int, **config: Any) -> Pair:
    """Its own grid: every pair of steps with an r1 of its own, the others of order 1."""
    config = {"algorithm_type": kind, "solver_type": solver_type, **config}

    def measure(wide: bool) -> float:
        table, made = peer.table(
            NAME, steps, wide=wide, solver_order=2, final_sigmas_type=END[kind], **config
        )
        _, times = at_sigmas(made)
        orders, plans, i = [*made.order_list, 1], [], 0
        while i < steps:
            size = orders[i + 1]  # 2 where the next step ends a pair
            own = times[i : i + size + 1]
            if size == 1:
                plans.append(sd.SOLVERS[ONE[kind]](VP, own))
            else:
                low, at, high = (VP.half_log_snr(t) for t in own)
                r1 = float((at - low) / (high - low))
                plans.append(sd.SOLVERS[TWO[kind]](VP, own[::2], r1=r1, solver_type=solver_type))
            i += size
        return difference(table, Chain(plans))

    theirs = f"{written(NAME, {'solver_order': 2, **config})}, {steps} steps"
    ours = f"{TWO[kind]}(solver_type={solver_type!r}), r1 by step"
    return Pair(theirs, ours, partial(measure, True), partial(measure, False), 2e-4)


PAIRS = [
    *(
        whole(
            NAME,
            ours,
            algorithm_type=kind,
            solver_order=1,
            final_sigmas_type=END[kind],
            rounding=1e-3,
        )
        for kind, ours in ONE.items()
    ),
    *(even(k, s, r1) for k in TWO for s in ("midpoint", "heun") for r1 in (0.5, 0.3)),
    *(chain(k, s, steps) for k in TWO for s in ("midpoint", "heun") for steps in (20, 21)),
    *(chain("dpmsolver++", s, 20, use_karras_sigmas=True) for s in ("midpoint", "heun")),
]
