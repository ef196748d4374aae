"""diffusers' schedulers and ours, on the grid that the scheduler makes.

Its formulas are run twice: in float64, where they must be ours to rounding, and as shipped, in
float32, where tables of betas and noise levels carry 6e-8 of their own and differences of nearly
equal levels amplify it (most in Euler ancestral, whose sigma_up is such a difference).
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import diffusers_peer as peer
import torch
from diffusers_peer import as_angular, as_edm, as_epsilon, as_flow, as_sample, as_vp_epsilon
from parity import Pair, written
from probe import difference

import sde_diffusion as sd

VP = sd.ddpm_linear()
ROUNDING = 2e-5


def at_labels(made: Any) -> tuple[Any, Any]:
    """Integer timesteps, then sigma = 0."""
    return VP, sd.times.from_timesteps(VP, made.timesteps.tolist())


def at_sigmas(made: Any) -> tuple[Any, Any]:
    """Its noise levels, variance-preserving."""
    return VP, sd.times.from_sigmas(VP, levels(made))


def at_sigmas_ve(made: Any) -> tuple[Any, Any]:
    """Its noise levels, alpha = 1."""
    return sd.EDM(1e-3, 200.0), levels(made)


def at_flow(made: Any) -> tuple[Any, Any]:
    """The times of flow matching."""
    return sd.FlowMatching(), levels(made)


def at_pndm(made: Any) -> tuple[Any, Any]:
    """Integer timesteps, then timestep 0, as with set_alpha_to_one=False."""
    labels = [*(int(k) for k in made._timesteps[::-1]), 0]
    return VP, sd.times.from_timesteps(VP, labels)[:-1]


def at_angular(made: Any) -> tuple[Any, Any]:
    """sigma = betas, alpha = sqrt(1 - sigma^2)."""
    return VP, sd.times.from_sigmas(VP, (made.betas / made.alphas).double())


def levels(made: Any) -> list[float]:
    """Noise levels without the repetitions of two-stage schedulers."""
    return list(dict.fromkeys(made.sigmas.double().tolist()))


def pair(
    theirs: str,
    ours: str,
    options: dict[str, Any] | None = None,
    grid: Any = at_sigmas,
    steps: int = 20,
    answer: Any = as_sample,
    rounding: float = ROUNDING,
    step: dict[str, Any] | None = None,
    **config: Any,
) -> Pair:
    options = options or {}

    def measure(wide: bool) -> float:
        table, made = peer.table(theirs, steps, answer, wide, step, **config)
        return difference(table, sd.SOLVERS[ours](*grid(made), **options))

    name = written(theirs, {**config, **(step or {})}) + f", {steps} steps"
    return Pair(
        name, written(ours, options), partial(measure, True), partial(measure, False), rounding
    )


def ve(theirs: str, ours: str, options: dict[str, Any] | None = None, **more: Any) -> Pair:
    return pair(theirs, ours, options, grid=at_sigmas_ve, **more)


def deis(order: int, steps: int) -> Pair:
    options = {"order": order, "prediction": "noise", "lower_last": steps < 15}
    return pair("DEISMultistep", "adams", options, steps=steps, solver_order=order)


MULTISTEP_1 = {
    "dpmsolver++": "ddim",
    "dpmsolver": "dpm_solver_1",
    "sde-dpmsolver++": "sde_dpm_solver_pp_1",
    "sde-dpmsolver": "sde_dpm_solver_1",
}
MULTISTEP_2 = {
    "dpmsolver++": "dpm_solver_pp_2m",
    "dpmsolver": "dpm_solver_2m",
    "sde-dpmsolver++": "sde_dpm_solver_pp_2m",
    "sde-dpmsolver": "sde_dpm_solver_2m",
}
MULTISTEP_3 = {
    "dpmsolver++": "dpm_solver_pp_3m",
    "dpmsolver": "dpm_solver_3m",
    "sde-dpmsolver++": "sde_dpm_solver_pp_3m",
}
END = {kind: "zero" if kind.endswith("++") else "sigma_min" for kind in MULTISTEP_1}


def multistep(kind: str, ours: str, steps: int, option: str, value: str, **config: Any) -> Pair:
    return pair(
        "DPMSolverMultistep",
        ours,
        {option: value, "lower_last": steps < 15},
        steps=steps,
        algorithm_type=kind,
        final_sigmas_type=END[kind],
        rounding=1e-3,  # the noise is a difference of nearly equal numbers
        **config,
    )


UNIPC = [(v, p) for v in ("bh1", "bh2") for p in ("data", "noise")]


def unipc(order: int, steps: int, variant: str, prediction: str, end: str = "sigma_min") -> Pair:
    """It lowers the order of its last steps at any number of steps."""
    return pair(
        "UniPCMultistep",
        "unipc",
        {"order": order, "variant": variant, "prediction": prediction, "lower_last": True},
        steps=steps,
        solver_order=order,
        solver_type=variant,
        predict_x0=prediction == "data",
        final_sigmas_type=end,
    )


def sa_solver(orders: tuple[int, int], tau: float, prediction: str) -> Pair:
    """Through two outputs, its data prediction takes the row "bh1", its noise prediction not."""
    predictor, corrector = orders
    options = {
        "predictor": predictor,
        "corrector": corrector,
        "tau": tau,
        "prediction": prediction,
        "variant": "bh1" if prediction == "data" else "exact",
        "lower_last": True,
    }
    return pair(
        "SASolver",
        "sa_solver",
        options,
        # Its coefficients are differences of nearly equal numbers: as shipped, with noise
        # prediction through 3 or 4 outputs, half of an entry may be rounding.
        rounding=1.0 if prediction == "noise" else 1e-2,
        predictor_order=predictor,
        corrector_order=corrector,
        algorithm_type=f"{prediction}_prediction",
        tau_func=partial(_constant, tau),
    )


def _constant(tau: float, label: Any) -> torch.Tensor:
    return torch.tensor(tau, dtype=torch.float64)


def ipndm(steps: int) -> Pair:
    """Its sines, a little below 1 at the start: from alpha = 0 its first step is another."""
    sines = [0.999 * math.sin(math.pi / 2 * (1 - i / steps)) ** 2 for i in range(steps + 1)]
    options = {"order": 4, "coefficients": "even"}
    made = pair(
        "IPNDM",
        "ipndm",
        options,
        grid=at_angular,
        steps=steps,
        answer=as_angular,
        trained_betas=sines,
    )
    return replace(made, peer=f"IPNDM(trained_betas=0.999 sin^2), {steps} steps")


SPACINGS = ("linspace", "leading", "trailing")

PAIRS = [
    *(
        pair("DDIM", "ddim", {"eta": eta}, grid=at_labels, steps=10, step={"eta": eta})
        for eta in (0.0, 0.5, 1.0)
    ),
    pair("DDIM", "ddim", grid=at_labels, steps=10, timestep_spacing="trailing"),
    *(
        pair("DDPM", "ddpm", {"variance": ours}, grid=at_labels, variance_type=theirs)
        for theirs, ours in (("fixed_small", "posterior"), ("fixed_large", "beta"))
    ),
    *(ve("EulerDiscrete", "ddim", timestep_spacing=s) for s in SPACINGS),
    ve("EulerDiscrete", "ddim", use_karras_sigmas=True),
    *(
        ve(
            "EulerAncestralDiscrete",
            "ddim",
            {"eta": 1.0},
            answer=as_epsilon,
            rounding=2e-3,
            timestep_spacing=s,
        )
        for s in SPACINGS
    ),
    ve("HeunDiscrete", "heun", {"variable": "rho"}),
    ve("HeunDiscrete", "heun", {"variable": "rho"}, use_karras_sigmas=True),
    *(
        ve("LMSDiscrete", "deis", {"order": n, "variable": "rho"}, step={"order": n})
        for n in (1, 2, 3, 4)
    ),
    *(deis(order, steps) for order in (1, 2, 3) for steps in (10, 20)),
    *(
        pair("DPMSolverMultistep", "dpm_solver_pp_2m", steps=steps, timestep_spacing=s)
        for steps in (10, 20)
        for s in SPACINGS
    ),
    pair("DPMSolverMultistep", "dpm_solver_pp_2m", use_karras_sigmas=True),
    *(
        multistep(kind, ours, steps, "solver_type", s, solver_type=s)
        for kind, ours in MULTISTEP_2.items()
        for s in ("midpoint", "heun")
        for steps in (10, 20)
    ),
    *(
        multistep(kind, ours, steps, "difference", "diffusers", solver_order=3)
        for kind, ours in MULTISTEP_3.items()
        for steps in (10, 20)
    ),
    *(
        pair(
            "DPMSolverMultistep",
            ours,
            algorithm_type=kind,
            solver_order=1,
            final_sigmas_type=END[kind],
            rounding=1e-3,
        )
        for kind, ours in MULTISTEP_1.items()
    ),
    ve("KDPM2Discrete", "dpm_2", answer=as_epsilon),
    ve("KDPM2AncestralDiscrete", "dpm_2_ancestral", answer=as_epsilon, rounding=2e-3),
    ve("EulerAncestralDiscrete", "euler_ancestral", answer=as_epsilon, rounding=2e-3),
    ve("LMSDiscrete", "lms", {"last_step": "latest"}),
    pair("PNDM", "pndm", grid=at_pndm, answer=as_vp_epsilon, steps_offset=1, rounding=2e-4),
    *(ipndm(steps) for steps in (4, 20)),
    pair("FlowMatchEulerDiscrete", "euler", grid=at_flow, answer=as_flow),
    pair("FlowMatchHeunDiscrete", "heun", grid=at_flow, answer=as_flow),
    ve("EDMEuler", "ddim", answer=as_edm),
    *(
        ve(
            "EDMDPMSolverMultistep",
            f"dpm_solver_pp_{n}m",
            {"lower_last": steps < 15, **({"difference": "diffusers"} if n == 3 else {})},
            answer=as_edm,
            steps=steps,
            solver_order=n,
        )
        for n in (2, 3)
        for steps in (10, 20)
    ),
    *(unipc(order, steps, v, p) for order in (1, 2, 3) for steps in (10, 20) for v, p in UNIPC),
    *(unipc(order, steps, "bh2", "data", "zero") for order in (2, 3) for steps in (10, 20)),
    *(
        sa_solver(orders, tau, prediction)
        for orders in ((1, 1), (2, 1), (2, 2), (3, 3), (3, 4))
        for tau in (0.0, 0.6, 1.0)
        for prediction in ("data", "noise")
    ),
]
