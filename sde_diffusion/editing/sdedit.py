r"""SDEdit: noise a picture to some level, and sample from there.

    x_t = alpha_t x_0 + sigma_t z,    then any sampler from t to the clean end.

The more noise, the nearer the result is to the law of the data and the farther from the picture.
On data N(mu, v) in one coordinate, in the limit of small steps,

    result - mu = c (x_0 - mu) + sqrt(1 - c^2) sqrt(v) z,    level = sigma_t/alpha_t,

    c = 1/sqrt(1 + level^2/v)    by the probability-flow ODE ("ddim", "heun", ..),
    c = 1/(1 + level^2/v)        by the reverse SDE ("ddpm", ..), which forgets more.

Coordinates in which the data vary more than the level keep the picture's values, the others are
drawn anew.

Meng et al., "SDEdit: guided image synthesis and editing with stochastic differential equations",
2022, arXiv:2108.01073, algorithm 1 (there with Euler-Maruyama on a VE process).
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..adaptive import ADAPTIVE, FIXED_STEPS
from ..counts import check_count, checked_number
from ..denoise import Denoiser, check_denoiser
from ..form import number_of
from ..noise import Noise, noise_from
from ..plan import Plan
from ..presets import Preset
from ..run import Callback, check_conditions
from ..sample import choose, find_solver, grid_of, load_plan, sample
from ..schedule import Schedule
from .grid import Grid, grid_with
from .picture import check_editing_options, checked_picture


def sdedit(
    denoiser: Denoiser,
    picture: Tensor,
    *,
    level: float | None = None,
    t: float | None = None,
    last: int | None = None,
    solver: str | os.PathLike[str] | Plan | Callable[..., Plan] = "default",
    steps: int | None = None,
    times: Grid = "default",
    seed: int | Sequence[int] | Noise | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    **options: Any,
) -> Tensor:
    """Noise a picture and denoise it again: x_t = alpha_t x_0 + sigma_t z, then a sampler from t.

    Where it starts is said in one of three ways:

        level   at the t with sigma_t/alpha_t = level; then `steps` steps, laid out from there
        t       the same, by the time itself
        last    the last k of the n = `steps` steps of the whole grid t_0 > .. > t_n: the picture
                is noised to t_(n-k), where the (n-k+1)-th of n steps would begin, and k steps
                are made, k network calls each where the solver has one a step

    The sampler starts afresh on its grid: a multistep method has no history of steps that were
    not made. A Plan starts at its own first time.

    Meng et al., "SDEdit", 2022, arXiv:2108.01073, algorithm 1. `strength` of diffusers' pipelines
    is last = min(floor(n * strength), n), the floor of the product as it comes out in floating
    point: strength 0.29 of 100 steps makes 28.

    Args:
        denoiser: a Denoiser, guided or not.
        picture: x_0, (batch, *event), in the range of the data that the network was trained on.
        level: sigma/alpha, from 0 (the picture comes back) to the schedule's noisiest.
        t: time in [t_min, t_max].
        last: k, from 0 (the picture comes back) to n.
        solver, steps, times, callback, progress, options: as for `sample`; with level or t, times
            is a grid that can start anywhere (a name, or a function of schedule, steps, t_start).
        seed: one, or one a sample, or a Noise: of z, and of the sampler's own draws.

    Returns:
        Edited pictures, (batch, *event), float32 or wider.

    Raises:
        ValueError: none or several of level, t and last; one outside its range; a Plan beside
            them; a grid that cannot start anywhere; steps or last with a sampler that chooses
            its own steps.
        TypeError: an option that the solver does not have, one of `sample` among them (dtype,
            device, shape, start, analytic_first_step: the picture says all that).
        TypeError, ValueError: a picture of integers, or not finite; what `sample` refuses.

    Warns:
        UserWarning: a picture in the range of bytes.
    """
    check_denoiser(denoiser)
    x_0 = checked_picture(picture)
    check_conditions(denoiser, x_0)
    schedule, solver = denoiser.schedule, load_plan(solver)
    method = find_solver(solver)
    _check_sampler(solver, method, steps, last, options)
    noise = noise_from(seed)
    z = noise.start(torch.empty_like(x_0))
    ways = {"level": level, "t": t, "last": last}
    said = [name for name, value in ways.items() if value is not None]
    if isinstance(solver, Plan):
        if said or steps is not None or not isinstance(times, str) or times != "default":
            raise ValueError(
                f"a Plan starts at its own first time, {solver.times[0]:g} here: leave out level, "
                "t, last, steps and times"
            )
        solver.check_schedule(schedule)
        grid: Sequence[float] = solver.times
    elif len(said) != 1:
        raise ValueError(
            f"{', '.join(said) or 'none'} of level, t and last given: say in one way how much "
            "noise is added, as level=1.0 (sigma/alpha), or last=10, steps=20"
        )
    elif last is not None:
        whole = choose(schedule, solver, steps, times, options).grid
        _check_last(last, len(whole) - 1)
        grid = whole[len(whole) - 1 - last :]
        if isinstance(method, Preset):  # peers choose orders by the steps of the whole grid
            solver = partial(method, whole=len(whole) - 1)
    else:
        if isinstance(method, Preset) and isinstance(times, str) and times == "default":
            times = _grid_of(method)
        grid = _grid_from(schedule, times, steps, _time(schedule, level, t))
    if len(grid) == 1:  # no steps: the picture
        return x_0.clone()
    alpha_t, sigma_t = (float(c) for c in schedule(grid[0]))
    x_t = z * sigma_t + alpha_t * x_0
    if not isinstance(solver, Plan):
        options |= {"times": grid}
    return sample(
        denoiser,
        tuple(x_t.shape),
        solver=solver,
        seed=noise,
        start=x_t,
        callback=callback,
        progress=progress,
        **options,
    )


def _check_sampler(
    solver: object,
    method: Callable[..., Any],
    steps: int | None,
    last: int | None,
    options: dict[str, Any],
) -> None:
    """What `sample` could not refuse: it is handed a start, and times in place of a number."""
    check_editing_options(sdedit, method, options)
    counted = steps is not None or last is not None
    if counted and method in ADAPTIVE.values() and options.get("method") not in FIXED_STEPS:
        raise ValueError(
            f"{solver!r} chooses its own steps: leave out steps and last, and say where to start "
            "by level or t (its accuracy is set by rtol and atol)"
        )


def _grid_of(preset: Preset) -> Callable[..., Tensor]:
    """The grid of a peer's sampler, if it can start anywhere."""
    if "t_start" not in inspect.signature(preset.grid).parameters:
        raise ValueError(
            f"{preset.name!r} comes with the grid of its package, which starts at the noisiest "
            "time alone: say where to start by last=k, its last k steps, or give another grid, "
            "times='default', 'uniform' or 'karras'"
        )
    return preset.grid


def _grid_from(schedule: Schedule, times: Grid, steps: int | None, t: float) -> Sequence[float]:
    """The grid that starts at t; t alone where that is clean."""
    clean = t == schedule.t_min
    made = grid_with(schedule, times, steps, t_start=schedule.t_max if clean else t)
    return [t] if clean else grid_of(schedule, None, made)


def _check_last(last: int, steps: int) -> None:
    check_count("last", last, least=0)
    if last > steps:
        raise ValueError(
            f"last = {last} steps of a grid that has {steps}: give at most {steps}, or more steps"
        )


def _time(schedule: Schedule, level: float | None, t: float | None) -> float:
    """The time at which to start, from the level or the time."""
    if t is not None:
        t = checked_number(t, "t")
        if not schedule.t_min <= t <= schedule.t_max:
            raise ValueError(
                f"t = {t:g} lies outside [{schedule.t_min:g}, {schedule.t_max:g}], the range of "
                f"{schedule!r}"
            )
        return t
    low, high = (float(schedule.rho(end)) for end in (schedule.t_min, schedule.t_max))
    level = checked_number(level, "level")
    if not low <= level <= high:
        raise ValueError(
            f"level = {level:g} lies outside [{low:g}, {high:g}], the range of sigma/alpha of "
            f"{schedule!r}"
        )
    if level in (low, high):
        return float(schedule.t_min if level == low else schedule.t_max)
    return number_of(schedule.time_of(-math.log(level)))
