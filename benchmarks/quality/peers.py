"""Other libraries' samplers, run by their own code on the quality benchmark's models.

A `Setting` is one sampler of one library under one choice of spacing and options. Each library is
given what it offers a user: diffusers a table of betas, a spacing and its options; k-diffusion the
lists of sigmas of its own functions; azula its schedules, and one of Song's VP (two functions, as
its users write them). Where a library rounds the label of a time to an integer, the network is
here asked at the sampler's own sigma all the same: the reading in the library's favour. Calls of
the network are counted, not steps.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sde_diffusion import VPLinear

from ..peers import _load_sampling
from .models import Case

Network = Callable[[Tensor, float], Tensor]  # (y, rho) -> E[x_0 | y]


@dataclass(frozen=True)
class Setting:
    """One sampler of a peer under one choice of everything.

    Attributes:
        peer: the library.
        name: sampler, spacing and options, for people.
        solve: (network, y at rho_max, rho_max, steps) -> y at the end.
        stages: network calls a step.
        fixed: every step takes that many calls, the last one too, so that no more are tried.
    """

    peer: str
    name: str
    solve: Callable[[Network, Tensor, float, int], Tensor]
    stages: int = 1
    fixed: bool = False

    def run(self, case: Case, nfe: int, dtype: torch.dtype = torch.float64) -> Tensor | None:
        """The final y with the most steps that ask at most `nfe` times; None if there are none."""
        most = nfe // self.stages + (not self.fixed)
        for steps in range(most, max(nfe // self.stages - 2, 0), -1):
            calls = itertools.count(1)
            asked = 0

            def network(y: Tensor, rho: float) -> Tensor:
                nonlocal asked
                asked = next(calls)  # noqa: B023
                if asked > nfe:
                    raise _TooMany
                return case.denoised(y, rho)

            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return self.solve(network, case.start.to(dtype), case.rho_max, steps)
            except _TooMany:
                continue
        return None


class _TooMany(Exception):
    """A sampler asked more often than allowed."""


def settings() -> list[Setting]:
    """All settings of the libraries that are installed."""
    found: list[Setting] = []
    for name, make in (("k_diffusion", _k_diffusion), ("azula", _azula), ("diffusers", _diffusers)):
        if importlib.util.find_spec(name):
            found += make()
    return found


def _song_time(rho: float) -> float:
    """The time of VP (beta 0.1 .. 20) at a rho."""
    return float(VPLinear().time_of(-math.log(rho)))


# k-diffusion -------------------------------------------------------------------------------------


def _from(make: Any, low: float, *more: float) -> Callable[[int, float], Tensor]:
    """A list of sigmas from the largest to `low`, as k-diffusion makes it."""
    return lambda n, top: make(n, low, top, *more)


def _k_diffusion() -> Iterator[Setting]:
    K = _load_sampling()
    samplers: dict[str, tuple[Any, dict[str, Any], int]] = {
        "euler": (K.sample_euler, {}, 1),
        "heun": (K.sample_heun, {}, 2),
        "dpm_2": (K.sample_dpm_2, {}, 2),
        "dpmpp_2s": (K.sample_dpmpp_2s_ancestral, {"eta": 0.0}, 2),
        "dpmpp_2m": (K.sample_dpmpp_2m, {}, 1),
        "dpmpp_2m_sde midpoint eta=0": (K.sample_dpmpp_2m_sde, {"eta": 0.0}, 1),
        "dpmpp_2m_sde heun eta=0": (
            K.sample_dpmpp_2m_sde,
            {"eta": 0.0, "solver_type": "heun"},
            1,
        ),
        "dpmpp_3m_sde eta=0": (K.sample_dpmpp_3m_sde, {"eta": 0.0}, 1),
        **{f"lms order={n}": (K.sample_lms, {"order": n}, 1) for n in (2, 3, 4)},
    }

    def vp(n: int, top: float) -> Tensor:  # beta_d so that its largest sigma is the range's
        beta_d = 2 * math.log1p(top**2) - 2 * 0.1
        return K.get_sigmas_vp(n, beta_d=beta_d, eps_s=1e-3)

    def vp_rough(n: int, top: float) -> Tensor:
        beta_d = 2 * math.log1p(top**2) - 2 * 0.1
        return K.get_sigmas_vp(n, beta_d=beta_d, eps_s=1e-2)

    grids: dict[str, Callable[[int, float], Tensor]] = {"vp": vp, "vp eps=0.01": vp_rough}
    for low in (0.002, 0.01, 0.03, 0.06):
        for rho in (3.0, 5.0, 7.0, 10.0):
            grids[f"karras rho={rho:g} from {low:g}"] = _from(K.get_sigmas_karras, low, rho)
        grids[f"exponential from {low:g}"] = _from(K.get_sigmas_exponential, low)
        for power in (1.5, 0.7):
            name = f"polyexponential {power} from {low:g}"
            grids[name] = _from(K.get_sigmas_polyexponential, low, power)
    for (name, (sample, options, stages)), (title, grid) in itertools.product(
        samplers.items(), grids.items()
    ):

        def solve(
            network: Network,
            y: Tensor,
            top: float,
            steps: int,
            sample: Any = sample,
            grid: Any = grid,
            options: dict[str, Any] = options,
        ) -> Tensor:
            sigmas = grid(steps, top).to(y.dtype)
            sigmas[0] = top
            if steps == 1:
                sigmas = torch.tensor([top, 0.0], dtype=y.dtype)
            model = lambda x, sigma: network(x, float(sigma[0]))
            extra = {"noise_sampler": lambda *_: 0.0} if "eta" in options else {}
            return sample(model, y, sigmas, disable=True, **options, **extra)

        yield Setting("k-diffusion", f"{name}, {title}", solve, stages)


# azula -------------------------------------------------------------------------------------------


def _azula() -> Iterator[Setting]:
    from azula import noise as N
    from azula import sample as A
    from azula.denoise import Denoiser, DiracPosterior

    class SongVP(N.Schedule):
        def __init__(self, top: float, low: float) -> None:
            self.t, self.low, self.vp = _song_time(top), low, VPLinear()

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            alpha = torch.as_tensor(self.vp.alpha(self.t * t.double()))
            return alpha.to(t), (1 - alpha**2 + self.low**2).sqrt().to(t)

    class Asked(Denoiser):
        def __init__(self, network: Network, schedule: Any) -> None:
            super().__init__()
            self.network, self.schedule = network, schedule

        def forward(self, x_t: Tensor, t: Tensor) -> Any:
            alpha, sigma = self.schedule(t)
            return DiracPosterior(self.network(x_t / alpha, float(sigma / alpha)))

    samplers: dict[str, tuple[Any, dict[str, Any], int]] = {
        "Euler": (A.EulerSampler, {}, 1),
        "Heun": (A.HeunSampler, {}, 2),
    }
    for kind, order in itertools.product(("zAB", "vAB", "zEAB", "xEAB", "REAB"), (2, 3, 4)):
        samplers[f"{kind} order={order}"] = (getattr(A, f"{kind}Sampler"), {"order": order}, 1)
    schedules: dict[str, Callable[[float, float], Any]] = {
        "VE": lambda top, low: N.VESchedule(low, top),
        "VP": lambda top, low: N.VPSchedule(1 / math.sqrt(1 + top**2), low),
        "cosine": lambda top, low: N.CosineSchedule(1 / math.sqrt(1 + top**2), low),
        "rectified": lambda top, low: N.RectifiedSchedule(1 / top, low),
        "decay 0.1": lambda top, low: N.DecaySchedule(1 / top, low, 0.1),
        "decay 0.01": lambda top, low: N.DecaySchedule(1 / top, low, 0.01),
        "Song's VP": SongVP,
    }
    for (name, (sampler, options, stages)), (title, make), low in itertools.product(
        samplers.items(), schedules.items(), (1e-3, 1e-2, 3e-2)
    ):

        def solve(
            network: Network,
            y: Tensor,
            top: float,
            steps: int,
            sampler: Any = sampler,
            make: Any = make,
            options: dict[str, Any] = options,
            low: float = low,
        ) -> Tensor:
            schedule = make(top, low)
            alpha, _ = schedule(torch.ones((), dtype=torch.float64))
            run = sampler(
                Asked(network, schedule), steps=steps, silent=True, dtype=y.dtype, **options
            )
            last, _ = schedule(torch.zeros((), dtype=torch.float64))
            return run(alpha.to(y) * y) / last.to(y)

        yield Setting("azula", f"{name}, {title} from {low:g}", solve, stages)


# diffusers ---------------------------------------------------------------------------------------


@cache
def _betas(top: float, kind: str) -> np.ndarray:
    """1,000 betas whose last sigma/alpha is `top`: of Song's VP, or of even steps in lambda."""
    share = np.arange(1, 1001) / 1000
    if kind == "vp":
        vp, last = VPLinear(), _song_time(top)
        abar = np.array([float(vp.alpha(last * s)) ** 2 for s in share])
    else:
        abar = 1 / (1 + np.exp(np.log(0.002) + (np.log(top) - np.log(0.002)) * share) ** 2)
    return 1 - abar / np.concatenate([[1.0], abar[:-1]])


def _diffusers() -> Iterator[Setting]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers as D
    D.utils.logging.set_verbosity_error()
    product = itertools.product
    ways: dict[str, dict[str, Any]] = {
        "linspace": {"timestep_spacing": "linspace"},
        "trailing": {"timestep_spacing": "trailing"},
        "leading": {"timestep_spacing": "leading", "steps_offset": 1},
        "karras": {"use_karras_sigmas": True},
        "exponential": {"use_exponential_sigmas": True},
        "beta": {"use_beta_sigmas": True},
    }
    made: list[tuple[str, Any, dict[str, Any], int]] = []
    for order, kind, lower, (way, spacing) in product(
        (2, 3), ("dpmsolver++", "dpmsolver"), (True, False), ways.items()
    ):
        own = {"solver_order": order, "algorithm_type": kind, "lower_order_final": lower}
        if kind == "dpmsolver":
            own["final_sigmas_type"] = "sigma_min"
        title = f"{kind} order={order} lower_order_final={lower}, {way}"
        made.append((title, D.DPMSolverMultistepScheduler, {**own, **spacing}, 1))
    for lower, order in product((True, False), (2, 3)):
        own = {"solver_order": order, "lower_order_final": lower, "use_lu_lambdas": True}
        title = f"dpmsolver++ order={order} lower_order_final={lower}, lu"
        made.append((title, D.DPMSolverMultistepScheduler, own, 1))
    for order, kind, lower, (way, spacing) in product(
        (2, 3), ("bh1", "bh2"), (True, False), ways.items()
    ):
        own = {"solver_order": order, "solver_type": kind, "lower_order_final": lower}
        title = f"UniPC order={order} {kind} lower_order_final={lower}, {way}"
        made.append((title, D.UniPCMultistepScheduler, {**own, **spacing}, 1))
    for order, lower, (way, spacing) in product((2, 3), (True, False), ways.items()):
        own = {"solver_order": order, "lower_order_final": lower}
        title = f"DEIS order={order} lower_order_final={lower}, {way}"
        made.append((title, D.DEISMultistepScheduler, {**own, **spacing}, 1))
    for order, (way, spacing) in product((2, 3), ways.items()):
        own = {"predictor_order": order, "corrector_order": order, "tau_func": lambda t: 0.0}
        made.append((f"SA tau=0 order={order}, {way}", D.SASolverScheduler, {**own, **spacing}, 1))
    for name, scheduler, stages in (
        ("Euler", D.EulerDiscreteScheduler, 1),
        ("Heun", D.HeunDiscreteScheduler, 2),
        ("KDPM2", D.KDPM2DiscreteScheduler, 2),
        ("LMS", D.LMSDiscreteScheduler, 1),
    ):
        made += [(f"{name}, {way}", scheduler, spacing, stages) for way, spacing in ways.items()]
    for way in ("linspace", "trailing", "leading"):
        made.append((f"DDIM, {way}", D.DDIMScheduler, {**ways[way], "clip_sample": False}, 1))
        own = {**ways[way], "skip_prk_steps": True, "set_alpha_to_one": True}
        made.append((f"PNDM, {way}", D.PNDMScheduler, own, 1))
    for name, scheduler, options, stages in made:
        for table in ("vp", "log"):
            yield Setting(
                "diffusers", f"{name}, {table} table", discrete(scheduler, options, table), stages
            )
    for order, rho, lower in product((2, 3), (3.0, 5.0, 7.0, 10.0, None), (True, False)):
        own = {"solver_order": order, "lower_order_final": lower}
        own |= {"sigma_schedule": "exponential"} if rho is None else {"rho": rho}
        title = f"EDMDPM order={order} lower_order_final={lower}, " + (
            "exponential" if rho is None else f"karras rho={rho:g}"
        )
        yield Setting("diffusers", title, _edm(D.EDMDPMSolverMultistepScheduler, own))
    for rho in (5.0, 7.0):
        title = f"EDMEuler, karras rho={rho:g}"
        yield Setting("diffusers", title, _edm(D.EDMEulerScheduler, {"rho": rho}))


def discrete(scheduler_class: Any, options: dict[str, Any], table: str) -> Any:
    def solve(network: Network, y: Tensor, top: float, steps: int) -> Tensor:
        scheduler = scheduler_class(trained_betas=_betas(top, table), **options)
        scheduler.set_timesteps(steps)
        stretched = hasattr(scheduler, "init_noise_sigma") and hasattr(scheduler, "sigmas")
        ve = stretched and scheduler_class.__name__.split("Discrete")[0] in (
            ("Euler", "Heun", "KDPM2", "LMS")
        )
        x = y if ve else y / math.sqrt(1 + top**2)
        cumulated = scheduler.alphas_cumprod.double()
        for i, t in enumerate(scheduler.timesteps):
            if hasattr(scheduler, "sigmas") and "PNDM" not in scheduler_class.__name__:
                index = scheduler.step_index if scheduler.step_index is not None else i
                rho = float(scheduler.sigmas[index])
            else:
                rho = float((1 / cumulated[int(t)] - 1).sqrt())
            size = 1.0 if ve else math.sqrt(1 + rho**2)
            d = network(x * size, rho)
            eps = (x * size - d) / rho
            x = scheduler.step(eps, t, x, return_dict=False)[0].to(y)
        return x

    return solve


def _edm(scheduler_class: Any, options: dict[str, Any]) -> Any:
    def solve(network: Network, y: Tensor, top: float, steps: int) -> Tensor:
        scheduler = scheduler_class(sigma_max=top, **options)
        scheduler.set_timesteps(steps)
        x, half = y, 0.5
        for i, t in enumerate(scheduler.timesteps):
            rho = float(scheduler.sigmas[i])
            d = network(x, rho)
            skip, out = half**2 / (rho**2 + half**2), rho * half / math.sqrt(rho**2 + half**2)
            x = scheduler.step((d - skip * x) / out, t, x, return_dict=False)[0].to(y)
        return x

    return solve
