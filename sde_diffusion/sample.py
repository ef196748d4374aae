"""The front door: samples from a denoiser in one line."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import transform
from .adaptive import ADAPTIVE, FIXED_STEPS
from .denoise import Denoiser, check_denoiser
from .few_steps import default_plan
from .form import number_of
from .grid import made_grid
from .langevin import LANGEVIN
from .names import look_up, unknown
from .noise import Noise, noise_from
from .plan import Plan
from .presets import PRESETS, Preset
from .run import Callback, check_callback, check_state, run
from .schedule import Schedule
from .solvers import SOLVERS
from .times import GRIDS, check_grid
from .variances import LEARNED, analytic_dpm

DEFAULT_STEPS = 20
NO_PLANS: dict[str, Callable[..., Any]] = {**ADAPTIVE, **LANGEVIN, **LEARNED}
LARGEST_SIGNAL = 0.25  # alpha/sigma above which the prior N(0, sigma^2) is plainly wrong


def sample(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    solver: str | os.PathLike[str] | Plan | Callable[..., Plan] = "default",
    steps: int | None = None,
    times: str | Callable[[Schedule, int], Tensor] | Sequence[float] | Tensor = "default",
    seed: int | Sequence[int] | Noise | None = None,
    start: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    analytic_first_step: bool | float = False,
    **options: Any,
) -> Tensor:
    """Draw samples: x_T ~ N(0, sigma_T^2 I), then the solver from noisy to clean.

    Args:
        denoiser: a network and how to read it (`NetworkDenoiser`), or any `Denoiser`.
        shape: (batch, *event).
        solver: a name of `SOLVERS`, `ADAPTIVE`, `LANGEVIN` or `PRESETS`, "analytic_dpm" with
            `moments`, "learned_variance", a solver of one's own (schedule, times, **options) ->
            Plan, a `Plan`, or the path of one ("plan.json"). A preset brings its own grid, a plan
            its times and options. The default is `default_plan`, which begins anew where the
            denoiser jumps (`Denoiser.jumps`), and "angular" where times or options are given; it
            was measured against those of other packages: benchmark page, "The default".
        steps: number of steps of the grid, 20 by default; not together with given times.
        times: a name of `times.GRIDS`, a function (schedule, steps) -> times, or the times.
        seed: one seed, or one a sample (then a sample does not depend on its batch), a `Noise`, or
            None for one from the system.
        start: x_T of one's own, in place of the draw.
        dtype: of the states; float32 or float64.
        device: of the states; default: the network's.
        callback: called at every grid point of a plan (see `run.Point`).
        progress: show a progress bar (needs the extra "bench").
        analytic_first_step: spare the first network call: True, or the variance of the data in
            one coordinate (see `transform.analytic_first_step`).
        options: of the solver, e.g. eta=0.5 for "ddim", method="RK45" for "scipy".

    Returns:
        Samples at the last time, shape `shape`.

    Raises:
        ValueError, TypeError: an unknown solver, option or grid (with the nearest right name), a
            bad shape, grid or seed, or a grid whose start is not noise while no `start` is given.
        FloatingPointError: if the run leaves the finite numbers.
    """
    check_denoiser(denoiser)
    schedule = denoiser.schedule
    chosen = choose(schedule, solver, steps, times, options, denoiser.jumps)
    method, grid = chosen.method, chosen.grid
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise TypeError(f"shape = {shape!r} must be a sequence (batch, *event), as (16, 3, 32, 32)")
    check_callback(callback)
    if not isinstance(analytic_first_step, bool | int | float):
        raise TypeError(
            f"analytic_first_step = {analytic_first_step!r}: give True, False or a variance"
        )
    noise = noise_from(seed)
    x = starting_state(denoiser, tuple(shape), grid[0], noise, start, dtype, device)
    spared = analytic_first_step is not False
    if is_no_plan(method):
        adaptive, takes = method in ADAPTIVE.values(), inspect.signature(method).parameters
        unheard = {
            "steps": adaptive and steps is not None and options.get("method") not in FIXED_STEPS,
            "callback": callback is not None,
            "progress": progress and "progress" not in takes,
            "analytic_first_step": spared,
        }
        wrong = [name for name, given in unheard.items() if given]
        if wrong:
            why = "chooses its own steps" if adaptive else "is no plan"
            accuracy = " (its accuracy is set by rtol and atol)" if adaptive else ""
            raise ValueError(f"{solver!r} {why}: leave out {' and '.join(wrong)}{accuracy}")
        common = {"noise": noise, "progress": progress}
        options |= {name: value for name, value in common.items() if name in takes}
        return method(denoiser, x, grid, **options).x
    plan = _traced(schedule, chosen, options)
    if spared:
        plan = transform.analytic_first_step(plan, schedule, float(analytic_first_step))
    return run(plan, denoiser, x, noise=noise, callback=callback, progress=progress)


def plan_for(
    schedule: Schedule,
    solver: str | os.PathLike[str] | Plan | Callable[..., Plan] = "default",
    steps: int | None = None,
    times: str | Callable[[Schedule, int], Tensor] | Sequence[float] | Tensor = "default",
    jumps: Sequence[float] = (),
    **options: Any,
) -> Plan:
    """The plan that `sample` runs for these arguments, which are as there.

    Args:
        jumps: of the denoiser, `denoiser.jumps`: the default begins anew there.

    Raises:
        ValueError: as `sample`; a solver that is no plan.
    """
    chosen = choose(schedule, solver, steps, times, options, jumps)
    if is_no_plan(chosen.method):
        raise ValueError(f"{solver!r} is no plan: its steps depend on the sample")
    return _traced(schedule, chosen, options)


def is_no_plan(method: Callable[..., Any]) -> bool:
    """Whether a sampler is of the second kind, which chooses its steps by the samples."""
    return any(method is known for known in NO_PLANS.values())


class Chosen(NamedTuple):
    """What is to be run.

    Attributes:
        method: the function that the solver's name stands for.
        grid: its times; of a plan the first alone.
        plan: the plan that was given or is the default, if any.
    """

    method: Callable[..., Any]
    grid: Sequence[float]
    plan: Plan | None


def choose(
    schedule: Schedule,
    solver: str | os.PathLike[str] | Plan | Callable[..., Plan],
    steps: int | None,
    times: str | Callable[[Schedule, int], Tensor] | Sequence[float] | Tensor,
    options: Mapping[str, Any],
    jumps: Sequence[float] = (),
) -> Chosen:
    """The solver and its grid from what users write, checked."""
    solver = load_plan(solver)
    if isinstance(solver, Plan):
        solver.check_schedule(schedule)
    method = find_solver(solver)
    check_options(method, options)
    given = not (isinstance(times, str) and times == "default")
    if isinstance(method, Preset) and not given:
        times = method.times  # a peer's sampler comes with the peer's grid
    if isinstance(solver, Plan):
        if steps is not None or given:
            raise ValueError("a Plan has its own times: leave out steps and times")
        return Chosen(method, [number_of(solver.rows[0].t)], solver)
    grid = grid_of(schedule, steps, times)
    usual = isinstance(solver, str) and solver == "default" and not given and not options
    return Chosen(
        method, grid, default_plan(schedule, len(grid) - 1, jumps=jumps) if usual else None
    )


def _traced(schedule: Schedule, chosen: Chosen, options: Mapping[str, Any]) -> Plan:
    plan = chosen.plan or chosen.method(schedule, chosen.grid, **options)
    if not isinstance(plan, Plan):
        raise TypeError(
            f"the solver returned {type(plan).__name__}, not a Plan (trace.end makes one)"
        )
    return plan


def load_plan(
    solver: str | os.PathLike[str] | Plan | Callable[..., Plan],
) -> str | Plan | Callable[..., Plan]:
    """The plan in a file, where a file is given; what else is given as it is."""
    if isinstance(solver, os.PathLike) or (isinstance(solver, str) and solver.endswith(".json")):
        return Plan.load(solver)
    return solver


def find_solver(solver: str | Plan | Callable[..., Plan]) -> Callable[..., Any]:
    """The function that a solver's name stands for; ValueError with the nearest right one."""
    if isinstance(solver, str):
        solver = "angular" if solver == "default" else solver
        known: dict[str, Callable[..., Any]] = {**SOLVERS, **NO_PLANS, **PRESETS}
        return look_up("solver", solver, known | {"analytic_dpm": analytic_dpm})
    if isinstance(solver, Plan):
        own = lambda: solver
        own.__name__ = "a Plan"  # as an error about options calls it
        return own
    if not callable(solver):
        raise TypeError(
            f"solver = {solver!r}: give a name, a function to a Plan, a Plan, or the path of one"
        )
    return solver


def check_options(
    method: Callable[..., Any],
    options: Mapping[str, Any],
    door: Callable[..., Any] = sample,
) -> None:
    """TypeError for an option that a solver does not have, or without one that it needs.

    Its error names the options of the door, the function that was given them, too.
    """
    parameters = inspect.signature(method).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    asked = inspect.signature(door).parameters.values()
    own = [p.name for p in asked if p.kind is p.KEYWORD_ONLY]
    known = {p.name for p in parameters} - {
        *("schedule", "times", "denoiser", "x", "noise", "progress")
    }
    for option in options:
        if option not in known:
            name = getattr(method, "__name__", "the solver")
            what = f"option of {door.__name__} with {name}"
            raise TypeError(unknown(what, option, [*known, *own]))
    if method is analytic_dpm and "moments" not in options:
        raise TypeError(
            "analytic_dpm needs moments, as measure_moments(denoiser, data, times) returns them. "
            "Where only names can be given, give the file of a plan that was made with them: "
            'analytic_dpm(schedule, times, moments).save("plan.json"), solver "plan.json"'
        )


def grid_of(
    schedule: Schedule,
    steps: int | None,
    times: str | Callable[[Schedule, int], Tensor] | Sequence[float] | Tensor,
) -> Sequence[float]:
    """The grid, from a name or function and a number of steps (20 by default), or as given."""
    if isinstance(times, str):
        times = look_up("grid", times, GRIDS)
    if callable(times):
        steps = DEFAULT_STEPS if steps is None else steps
        times = made_grid(times, schedule, steps)
    elif steps is not None:
        raise ValueError(f"steps = {steps} beside given times: leave out one of them")
    return [float(t) for t in check_grid(schedule, times)]


def starting_state(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    t: float,
    noise: Noise,
    start: Tensor | None,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Tensor:
    """x_t of shape (batch, *event): the given start, or N(0, sigma_t^2 I) where that is noise."""
    if not shape or not all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 1 for n in shape
    ):
        raise ValueError(f"shape = {shape} must be (batch, *event), every size at least 1")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"dtype = {dtype}: states are float32 or float64, whatever the network's dtype"
        )
    if start is not None:
        check_state(start)
        if tuple(start.shape) != shape:
            raise ValueError(f"start has shape {tuple(start.shape)}, but shape = {shape}")
        return start if device is None else start.to(device)
    alpha_t, sigma_t = denoiser.schedule(t)
    if alpha_t > LARGEST_SIGNAL * sigma_t:
        raise ValueError(
            f"the grid starts at t = {t:g}, where alpha = {alpha_t:.3g} and sigma = "
            f"{sigma_t:.3g}: pure noise is no sample there; start at more noise, or pass a state "
            "of that time to what has start: sample(.., start=x_t)"
        )
    where = device if device is not None else getattr(denoiser, "device", None)
    return noise.start(torch.empty(shape, dtype=dtype, device=where)) * sigma_t
