r"""Latents: the noise x_T that the probability flow carries a sample to, and the way back.

`encode` goes from data to noise, `decode` from noise to data, by any deterministic solver of the
library: plans on their reversed grid (`sde_diffusion.inversion`), adaptive solvers on the mirror
image of the process (`likelihood.mirror`). The two are inverse to each other up to the solver's
error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..adaptive import ADAPTIVE, FIXED_STEPS, Solution
from ..denoise import Denoiser, check_denoiser
from ..inversion import invert
from ..langevin import LANGEVIN
from ..names import look_up
from ..run import check_state_for, run
from ..schedule import Schedule
from ..solvers import SOLVERS
from ..times import GRIDS, check_grid, check_steps
from ..variances import LEARNED
from .mirror import Mirror

STEPS = 40  # of a grid where none is asked for
_FULL = 6  # steps from which the first ones are taken at full order
Times = str | Callable[[Schedule, int], Tensor] | Sequence[float] | Tensor
_STOCHASTIC = ("gotta_go_fast",)
DETERMINISTIC = {name: s for name, s in ADAPTIVE.items() if name not in _STOCHASTIC}


@torch.no_grad()
def encode(
    denoiser: Denoiser,
    x: Tensor,
    *,
    solver: str = "default",
    steps: int | None = None,
    times: Times = "default",
    t_end: float | None = None,
    **options: Any,
) -> Solution:
    """The latents x_T of states x at the clean end of a grid.

    Args:
        denoiser: E[x_0 | x_t].
        x: states at the grid's last time, (batch, *event).
        solver: a deterministic one of `SOLVERS`, or "per_sample_ode", "dpm_solver_adaptive",
            "torchdiffeq" or "scipy". The default is "angular" with lower_last=False and,
            from 6 steps on, first_steps="full": on closed-form data the best of those tried.
        steps: of the grid; default 40. Adaptive solvers choose their own.
        times: a name of `times.GRIDS`, a function (schedule, steps) -> times, or the times, noisy
            to clean as ever.
        t_end: the clean end of a named grid; default t_min, or t_clean where sigma(t_min) = 0.
        options: of the solver.

    Returns:
        A `Solution`, of which `x` is x_T.

    Raises:
        ValueError, TypeError: an unknown or stochastic solver, a grid that ends at sigma = 0, a
            bad state.
    """
    grid = grid_of(denoiser, steps, times, t_end)
    check_start(denoiser, x)
    return upwards(denoiser, x, grid, solver, options)


@torch.no_grad()
def decode(
    denoiser: Denoiser,
    latents: Tensor,
    *,
    solver: str = "default",
    steps: int | None = None,
    times: Times = "default",
    t_end: float | None = None,
    **options: Any,
) -> Solution:
    """The states x at a grid's clean end that have these latents x_T; arguments of `encode`."""
    grid = grid_of(denoiser, steps, times, t_end)
    check_start(denoiser, latents)
    solver, options = chosen(solver, options, len(grid) - 1)
    method = _method(solver)
    if method in DETERMINISTIC.values():
        solution: Solution = method(denoiser, latents, grid, **options)
        return solution
    plan = method(denoiser.schedule, grid, **options)
    invert(solver, denoiser.schedule, grid, **options)  # refuses what has no inverse
    return Solution(run(plan, denoiser, latents), plan.nfe)


def upwards(
    denoiser: Denoiser, x: Tensor, grid: list[float], solver: str, options: dict[str, Any]
) -> Solution:
    """From states at grid[-1], clean, to those at grid[0], noisy."""
    solver, options = chosen(solver, options, len(grid) - 1)
    method = _method(solver)
    if method in DETERMINISTIC.values():
        solution: Solution = method(Mirror(denoiser), x, [-t for t in reversed(grid)], **options)
        return solution
    plan = invert(solver, denoiser.schedule, grid, **options)
    return Solution(run(plan, denoiser, x), plan.nfe)


def coarser(
    grid: list[float], solver: str, options: dict[str, Any], factor: float = 10.0
) -> tuple[list[float], dict[str, Any]]:
    """The same path with every second step, or solved to tolerances so much looser.

    Raises:
        ValueError: one step, which has no half.
    """
    steps = len(grid) - 1
    solver, options = chosen(solver, options, steps)
    method = _method(solver)
    defaults = inspect.signature(method).parameters
    if "rtol" not in defaults or options.get("method") in FIXED_STEPS:
        if steps == 1:
            raise ValueError(
                "one step has no coarser grid that would tell its error: give steps=2 or more, or "
                "tolerance_error=False"
            )
        if steps == 4:  # two steps err no more than four, and told 44 % of the errors on a ring
            return [*grid[:2], *grid[3:]], options
        return [*grid[:-1:2], grid[-1]], options
    loose = {n: factor * options.get(n, defaults[n].default) for n in ("rtol", "atol")}
    return grid, {**options, **loose}


def grid_of(
    denoiser: Denoiser, steps: int | None, times: Times, t_end: float | None = None
) -> list[float]:
    """The grid, noisy to clean, that ends where sigma > 0."""
    check_denoiser(denoiser)
    schedule = denoiser.schedule
    count = STEPS if steps is None else steps
    check_steps(count)
    if isinstance(times, str):
        method = look_up("grid", times, GRIDS)
        clean = schedule.t_clean if schedule.sigma(schedule.t_min) == 0 else schedule.t_min
        if "t_end" in inspect.signature(method).parameters:
            grid = method(schedule, count, t_end=clean if t_end is None else t_end)
        elif t_end is None:
            grid = method(schedule, count + 1)[:-1]  # without the step to t_min
        else:
            raise ValueError(f"times = {times!r} chooses its own end: leave out t_end")
    elif t_end is not None:
        raise ValueError("give t_end, or times that end there, not both")
    elif callable(times):
        grid = times(schedule, count)
    elif steps is not None:
        raise ValueError("give steps or times, not both: times are their own number of steps")
    else:
        grid = torch.as_tensor(times, dtype=torch.float64)
    found = [float(t) for t in check_grid(schedule, grid)]
    if schedule.sigma(found[-1]) == 0:
        raise ValueError(
            f"the grid ends at t = {found[-1]:g}, where sigma = 0 and a likelihood is not "
            f"defined for every model: end it inside, t_end={schedule.t_clean:g} (t_clean)"
        )
    return found


def check_start(denoiser: Denoiser, x: Tensor) -> None:
    """Raise unless x is a state to start from."""
    if isinstance(x, Tensor) and not x.is_floating_point():
        raise TypeError(
            f"x has dtype {x.dtype}; a density is one of real numbers: scale images as the network "
            "saw them, or call bits_per_dimension(denoiser, images, levels=256)"
        )
    check_state_for(denoiser, x)
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; give (batch, *event), as x[:, None]")


def chosen(solver: str, options: dict[str, Any], steps: int) -> tuple[str, dict[str, Any]]:
    """What "default" stands for on a grid of so many steps."""
    if solver != "default":
        return solver, options
    first = "full" if steps >= _FULL else "lower"
    return "angular", {"first_steps": first, "lower_last": False, **options}


def _method(solver: str) -> Callable[..., Any]:
    if solver in (*_STOCHASTIC, *LEARNED, *LANGEVIN, "analytic_dpm"):
        raise ValueError(
            f"{solver!r} draws noise, as a solver of `sample` may, and the probability flow has "
            "none: choose one of SOLVERS that draws none, or one of "
            f"{', '.join(DETERMINISTIC)}"
        )
    known: dict[str, Callable[..., Any]] = {**SOLVERS, **DETERMINISTIC}
    return look_up("solver", solver, known)
