"""Presets: samplers of other packages under their own names, with their grids and their errors.

A preset is a solver, its options and a grid. It gives the map that the peer gives on the same
network, to the peer's rounding: coefficients that are wrong there are wrong here, under a named
option of the solver, and `about` says so. For work without a peer to match take the solver.

    sd.sample(denoiser, shape, solver=sd.preset("k-diffusion dpmpp_2m Karras"), steps=20)

`docs/peers.md` lists which of our solvers is which sampler of a peer, and all differences found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from .names import look_up
from .plan import Plan
from .scalar import Scalar
from .schedule import Schedule
from .solvers import SOLVERS
from .times import check_steps, from_sigmas, from_timesteps, karras, leading, trailing, uniform

DIFFUSERS, K_DIFFUSION, AZULA = "diffusers 0.42.1", "k-diffusion 0.1.1", "azula 0.11.1"

Grid = Callable[[Schedule, int], Tensor]


@dataclass(frozen=True)
class Preset:
    """A peer's sampler: a solver, its options and a grid. To be given as `solver=` to `sample`.

    Attributes:
        name: the peer, its name for the sampler, its grid.
        peer: package and version that it was compared with.
        solver: a name of `SOLVERS`.
        grid: (schedule, steps) -> times.
        options: of the solver; a function is given the number of steps.
        about: which class or function it is, and what is known to be wrong with it.
    """

    name: str
    peer: str
    solver: str
    grid: Grid
    options: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""

    def __post_init__(self) -> None:
        look_up("solver", self.solver, SOLVERS)
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """The peer's grid."""
        check_steps(steps)
        grid = self.grid(schedule, steps)
        if len(grid) < 2:
            raise ValueError(
                f"steps = {steps} leaves {self.name!r} no step at all, since the peer's last one "
                "is left out: take at least 2"
            )
        return grid

    def plan(self, schedule: Schedule, steps: int) -> Plan:
        """The peer's table on the peer's grid."""
        return self(schedule, self.times(schedule, steps))

    def __call__(
        self, schedule: Schedule, times: Sequence[float] | Tensor, whole: int | None = None
    ) -> Plan:
        """The peer's table on any grid; a preset is a solver without options.

        Args:
            schedule: alpha_t, sigma_t.
            times: the grid.
            whole: steps of the grid of which these times are the last, by which some peers choose;
                default: they are all.
        """
        steps = len(times) - 1 if whole is None else whole
        options = {k: v(steps) if callable(v) else v for k, v in self.options.items()}
        return SOLVERS[self.solver](schedule, times, **options)

    def __str__(self) -> str:
        options = ", ".join(
            f"{k}=by steps" if callable(v) else f"{k}={v!r}" for k, v in self.options.items()
        )
        return f"{self.name} ({self.peer}) = {self.solver}({options}). {self.about}"


def preset(name: str) -> Preset:
    """The preset of this name, whatever its spaces and capitals.

    A sampler without its grid is the one on Karras levels, if there is one: "k-diffusion
    dpmpp_3m_sde", where the peer itself leaves the grid to its user.

    Raises:
        ValueError: if there is none, with the nearest right name.
    """
    known = {_plain(key): found for key, found in PRESETS.items()}
    for key in (_plain(name), _plain(name) + "karras"):
        if key in known:
            return known[key]
    return look_up("preset", name, PRESETS)


def _plain(name: str) -> str:
    return "".join(str(name).split()).casefold()


# Grids of diffusers, on schedules with integer timesteps.


def _rounded(schedule: Schedule, steps: int) -> Tensor:
    """steps + 1 rounded timesteps from N - 1 to 0, the last of them left out; then sigma = 0."""
    return from_timesteps(schedule, _even_labels(schedule, steps)[:-1])


def _rounded_to_first(schedule: Schedule, steps: int) -> Tensor:
    """The same, down to timestep 0, which has noise: no step to sigma = 0."""
    return from_timesteps(schedule, _even_labels(schedule, steps))[:-1]


def _even_labels(schedule: Schedule, steps: int) -> np.ndarray:
    return np.linspace(0, _timesteps(schedule) - 1, steps + 1).round()[::-1]


def _interpolated(schedule: Schedule, steps: int) -> Tensor:
    """sigma/alpha at even, fractional timesteps N - 1 .. 0, by lines between its values; then 0."""
    n = _timesteps(schedule)
    span = schedule.t_max - schedule.t_min
    known = [float(schedule.rho(schedule.t_min + span * (k + 1) / n)) for k in range(n)]
    places = np.linspace(0, n - 1, steps)[::-1]
    return from_sigmas(schedule, [*np.interp(places, np.arange(n), known), 0.0])


def _stable_diffusion(schedule: Schedule, steps: int) -> Tensor:
    """ "leading" timesteps with offset 1; the last step goes to timestep 0, not to sigma = 0."""
    grid = leading(schedule, steps, offset=1)
    grid[-1] = schedule.t_min + (schedule.t_max - schedule.t_min) / _timesteps(schedule)
    return grid


def _karras_open(schedule: Schedule, steps: int) -> Tensor:
    """Karras levels without a step to sigma = 0; the peer's own last step has length 0."""
    return karras(schedule, steps)[:-1]


def _timesteps(schedule: Schedule) -> int:
    if schedule.timesteps is None:
        raise ValueError(
            f"{schedule!r} has no integer timesteps, on which this preset's grid is made: take a "
            "discrete schedule (ddpm_linear, ddpm_scaled_linear, Tabulated) or give times"
        )
    return schedule.timesteps


def _below_15(steps: int) -> bool:
    """Where diffusers lowers the order of its last steps."""
    return steps < 15


def _tau_200_800(t: Scalar) -> float:
    """1 from timestep 200 to timestep 800 of 1,000, else 0."""
    return float(0.201 - 1e-9 <= t <= 0.801 + 1e-9)


_ROUNDED_TIMES = "Times are rounded to integers, which leaves a floor under the error."
_ROUNDED_LABELS = (
    "diffusers tells the network the nearest integer timestep of each level; here the label is "
    "what the denoiser makes of the level."
)
_EXACT = "Nothing known to be wrong."


def _diffusers() -> list[Preset]:
    def entry(name: str, solver: str, grid: Grid, about: str, **options: Any) -> Preset:
        return Preset(f"diffusers {name}", DIFFUSERS, solver, grid, options, about)

    return [
        entry(
            "DDIM",
            "ddim",
            leading,
            "DDIMScheduler: 'leading' timesteps never reach the noisiest one.",
        ),
        entry(
            "DDIM trailing",
            "ddim",
            trailing,
            "DDIMScheduler(timestep_spacing='trailing'). Only where the steps divide the number "
            "of timesteps: elsewhere the peer steps to t - N//steps, not to its next time.",
        ),
        entry(
            "DDIM Stable Diffusion",
            "ddim",
            _stable_diffusion,
            "DDIMScheduler(steps_offset=1, set_alpha_to_one=False): the result keeps the noise of "
            "timestep 0.",
        ),
        entry(
            "DDPM",
            "ddpm",
            leading,
            "DDPMScheduler, variance_type='fixed_small'.",
            variance="posterior",
        ),
        entry("Euler", "ddim", _interpolated, f"EulerDiscreteScheduler. {_ROUNDED_LABELS}"),
        entry("Euler Karras", "ddim", karras, f"EulerDiscreteScheduler. {_ROUNDED_LABELS}"),
        entry(
            "Euler a",
            "ddim",
            _interpolated,
            "EulerAncestralDiscreteScheduler, which computes sigma_up by a difference of float32 "
            "noise levels.",
            eta=1.0,
        ),
        entry("Heun", "heun", _interpolated, f"HeunDiscreteScheduler. {_EXACT}", variable="rho"),
        entry(
            "LMS",
            "lms",
            _interpolated,
            f"LMSDiscreteScheduler, order 4. {_EXACT}",
            last_step="latest",
        ),
        entry(
            "DPM++ 2M",
            "dpm_solver_pp_2m",
            _rounded,
            f"DPMSolverMultistepScheduler. {_ROUNDED_TIMES}",
        ),
        entry(
            "DPM++ 2M Karras",
            "dpm_solver_pp_2m",
            karras,
            f"DPMSolverMultistepScheduler(use_karras_sigmas=True). {_ROUNDED_LABELS}",
        ),
        entry(
            "DPM++ 3M",
            "dpm_solver_pp_3m",
            _rounded,
            "DPMSolverMultistepScheduler(solver_order=3): its second difference counts half, so "
            f"its order is 2; below 15 steps the last two have orders 2 and 1. {_ROUNDED_TIMES}",
            difference="diffusers",
            lower_last=_below_15,
        ),
        *(
            entry(
                f"DPM++ 2M SDE{title}",
                "sde_dpm_solver_pp_2m",
                grid,
                "DPMSolverMultistepScheduler(algorithm_type='sde-dpmsolver++'"
                f"{', use_karras_sigmas=True' if title else ''}). {note}",
            )
            for title, grid, note in (
                ("", _rounded, _ROUNDED_TIMES),
                (" Karras", karras, _ROUNDED_LABELS),
            )
        ),
        entry(
            "DPM++ 3M SDE",
            "sde_dpm_solver_pp_3m",
            _rounded,
            "DPMSolverMultistepScheduler(algorithm_type='sde-dpmsolver++', solver_order=3): a "
            "wrong sign leaves it with weak order 1 on even steps, and it does not converge on "
            "steps that alternate in length. For comparison only.",
            difference="diffusers",
            lower_last=_below_15,
        ),
        *(
            entry(
                f"UniPC{title}",
                "unipc",
                grid,
                f"UniPCMultistepScheduler{call}, order 2, bh2; it lowers the order of its last "
                f"steps at any number of steps. {note}",
                lower_last=True,
            )
            for title, call, grid, note in (
                ("", "", _rounded, _ROUNDED_TIMES),
                (" Karras", "(use_karras_sigmas=True)", karras, _ROUNDED_LABELS),
            )
        ),
        entry(
            "SA-Solver",
            "sa_solver",
            _rounded_to_first,
            "SASolverScheduler, orders 2 and 2, tau = 1 from timestep 200 to 800. "
            f"{_ROUNDED_TIMES} The result keeps the noise of timestep 0.",
            tau=lambda steps: _tau_200_800,
            variant="bh1",
            lower_last=True,
        ),
        entry("DPM2", "dpm_2", _interpolated, f"KDPM2DiscreteScheduler. {_EXACT}"),
        entry("DPM2 a", "dpm_2_ancestral", _interpolated, "KDPM2AncestralDiscreteScheduler."),
        entry(
            "PNDM",
            "pndm",
            _stable_diffusion,
            "PNDMScheduler(steps_offset=1): four calls in each of the first three steps; weights "
            "of even steps on uneven ones, so its order is 2. The result keeps the noise of "
            "timestep 0. The variant skip_prk_steps=True has no preset.",
        ),
        entry(
            "DEIS",
            "adams",
            _rounded_to_first,
            "DEISMultistepScheduler, order 2. It interpolates eps in lambda, so it is none of "
            "the tAB and rhoAB of the paper; below 15 steps the last one has order 1. "
            f"{_ROUNDED_TIMES} The result keeps the noise of timestep 0.",
            order=2,
            prediction="noise",
            lower_last=_below_15,
        ),
        entry(
            "DEIS Karras",
            "adams",
            _karras_open,
            "DEISMultistepScheduler(use_karras_sigmas=True), order 2. Its last noise level stands "
            "twice: its last network call changes nothing, is left out here, and the result keeps "
            "the noise of timestep 0.",
            order=2,
            prediction="noise",
        ),
    ]


def _k_diffusion() -> list[Preset]:
    def entry(name: str, solver: str, about: str, **options: Any) -> Preset:
        title = f"k-diffusion {name} Karras"
        return Preset(title, K_DIFFUSION, solver, karras, options, f"sample_{name}. {about}")

    return [
        entry("euler", "ddim", _EXACT),
        entry("euler_ancestral", "ddim", "eta = 1. " + _EXACT, eta=1.0),
        entry("heun", "heun", _EXACT, variable="rho"),
        entry("lms", "lms", "Order 4. " + _EXACT, last_step="latest"),
        entry("dpm_2", "dpm_2", _EXACT),
        entry("dpm_2_ancestral", "dpm_2_ancestral", "eta = 1. " + _EXACT),
        entry("dpmpp_2s_ancestral", "dpm_solver_pp_2s_ancestral", "eta = 1. " + _EXACT),
        entry("dpmpp_2m", "dpm_solver_pp_2m", _EXACT),
        entry("dpmpp_2m_sde", "sde_dpm_solver_pp_2m", "eta = 1, midpoint. " + _EXACT),
        entry(
            "dpmpp_3m_sde",
            "sde_dpm_solver_pp_3m",
            "eta = 1. Its second difference counts half.",
            difference="shipped",
        ),
    ]


def _azula() -> list[Preset]:
    def entry(name: str, solver: str, about: str, **options: Any) -> Preset:
        return Preset(f"azula {name}", AZULA, solver, uniform, options, about)

    def multistep(name: str, prediction: str, variable: str) -> Preset:
        about = f"{name}Sampler, order 2. {_EXACT}"
        options = {"prediction": prediction, "variable": variable, "last_step": "latest"}
        return entry(name, "adams", about, order=2, **options)

    return [
        entry("DDPM", "ddpm", "DDPMSampler. " + _EXACT, variance="posterior"),
        entry(
            "DDIM",
            "ddim",
            "DDIMSampler at eta = 0; its eta is the square of ours.",
        ),
        entry("Heun", "heun", "HeunSampler; ends at sigma > 0.", variable="rho"),
        multistep("xEAB", "data", "lambda"),
        multistep("zEAB", "noise", "lambda"),
        multistep("zAB", "noise", "rho"),
        multistep("vAB", "velocity", "phi"),
    ]


PRESETS: dict[str, Preset] = {
    entry.name: entry for entry in (*_diffusers(), *_k_diffusion(), *_azula())
}
