r"""Inversion: from data back to the noise that a deterministic sampler makes it from.

The probability-flow ODE runs both ways, and so does a solver's text: on the reversed grid, clean to
noisy, its plan goes from x_0 to x_T with the order that it has in sampling. Then sampling x_T
returns to x_0 but for the error of both ways: O(h) for DDIM (Song et al., "Denoising diffusion
implicit models", 2021, arXiv:2010.02502, section 5.4). For a Runge-Kutta method of even order p it
is O(h^(p + 1)), since the leading errors of the two ways, h^p and (-h)^p, cancel.

For a sampler that is algebraically its own inverse (`o_belm`) there is no such error, if the way
back begins with the states in which the way there ended: `resume`. Measured on a mixture of two
Gaussians, from lambda = 2 to -2 and back, relative: DDIM 0.079 and 0.0079 in 20 and 200 steps,
O-BELM 5e-16 and 1e-15.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .names import look_up
from .plan import Plan, SingularError
from .presets import PRESETS, Preset
from .run import Point
from .sample import NO_PLANS, is_no_plan
from .scalar import Scalar
from .schedule import Schedule
from .solvers import SOLVERS
from .solvers.solver import traced, zeros
from .times import check_grid


def invert(
    solver: str | Callable[..., Plan],
    schedule: Schedule,
    times: Sequence[float] | Tensor,
    **options: Any,
) -> Plan:
    """The plan of a solver on its grid taken backwards, clean to noisy.

    Run it from data: `run(invert("ddim", schedule, times), denoiser, x_0)` is x_T. Its order of
    convergence is the solver's.

    Args:
        solver: a name of `SOLVERS`, or one of its functions.
        schedule: alpha_t, sigma_t.
        times: the grid of the sampler, noisy to clean as ever; sigma > 0 at its end.
        options: of the solver.

    Raises:
        ValueError: an unknown solver; one that draws noise; a grid that ends at sigma = 0, or
            begins at alpha = 0 with a solver that cannot step there.
        TypeError: something else than a solver of `SOLVERS`; an unknown option.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"invert needs a Schedule second, not {type(schedule).__name__}")
    name = _name_of(solver)
    grid = check_grid(schedule, times)
    if schedule.sigma(grid[-1]) == 0:
        raise ValueError(
            f"the grid ends at t = {float(grid[-1]):g}, where sigma = 0: no noise can be read out "
            "of a state without noise; end it inside, as in times.uniform(schedule, steps, "
            f"t_end=schedule.t_clean), t_clean = {schedule.t_clean:g} here"
        )
    try:
        forward = traced(name, schedule, grid, options)
        if forward.stochastic:
            raise ValueError(
                f"{forward.name} draws noise, and what was drawn cannot be undone: choose a "
                "deterministic solver, or options that make it one (eta = 0, tau = 0, s_churn = 0)"
            )
        return traced(name, schedule, grid[::-1], options, "inverse of ")
    except SingularError as error:
        raise SingularError(_no_inverse(name, schedule, grid)) from error


_INSIDE = (
    "start it inside, as times.karras(schedule, steps, t_start=schedule.time_of(-4.6), "
    "t_end=schedule.t_clean) does, or "
)


def _no_inverse(name: str, schedule: Schedule, grid: list[Scalar]) -> str:
    """What to say of a grid out of reach, one way or the other; solvers found by their tables."""
    few = [*grid[:4], *grid[-3:]] if len(grid) > 7 else grid

    def goes(other: str) -> bool:
        try:
            plans = [traced(other, schedule, way, {}) for way in (few, few[::-1])]
        except ValueError:
            return False
        return not any(plan.stochastic for plan in plans)

    able = ", ".join(repr(other) for other in SOLVERS if goes(other))
    return (
        f"{name} has no inverse on this grid: it divides by zero ({zeros(schedule, grid)}); "
        + ("" if schedule.alpha(grid[0]) else _INSIDE)
        + (f"take a solver that goes there and back: {able}" if able else "give other times")
    )


def _name_of(solver: object) -> str:
    """The name in `SOLVERS`; TypeError for what has no text there to run backwards."""
    known = {**PRESETS, **NO_PLANS}.get(solver) if isinstance(solver, str) else solver
    cure = "give a name of SOLVERS, as 'o_belm', 'ddim' or 'heun'"
    if isinstance(solver, Plan):
        what = f"the plan {solver.name!r}"
    elif isinstance(solver, os.PathLike) or (isinstance(solver, str) and solver.endswith(".json")):
        what = f"the plan of {str(solver)!r}"
    elif isinstance(known, Preset):
        what = f"the preset {known.name!r}"
        options = "".join(f", {k}={v!r}" for k, v in known.options.items() if not callable(v))
        cure = f"give the solver that it is made of, {known.solver!r}{options}"
    elif callable(known) and is_no_plan(known):
        what = f"{getattr(known, '__name__', solver)}, whose steps depend on the samples"
    elif isinstance(solver, str):
        look_up("solver", solver, SOLVERS)
        return solver
    elif any(solver is entered for entered in SOLVERS.values()):
        return str(getattr(solver, "__name__", ""))
    elif callable(solver):
        what = f"{getattr(solver, '__name__', repr(solver))}, a function that is not in SOLVERS"
        cure = "enter it, @sd.solver('where it comes from', sd.Claim(order=1)), and give it again"
    else:
        what = repr(solver)
    raise TypeError(
        f"solver is {what}: inversion needs a solver's text, to run it on the reversed grid; {cure}"
    )


def resume(*states: Tensor) -> Callable[[Point], Tensor | None]:
    """A callback of `run` that puts these states at the first grid points, in their order.

    With the last two states of one way, latest first, an exactly reversible two-step method takes
    up the other way where it ended, instead of with a first step of its own:

        path = record(o_belm(schedule, times), denoiser, x_T)
        back = invert("o_belm", schedule, times)
        run(back, denoiser, path.states[-1], callback=resume(*path.states[-2:].flip(0)))

    is x_T to rounding. Any multistep method can be given exact starting values in this way.

    Raises:
        ValueError: without states.
    """
    if not states:
        raise ValueError("resume needs at least one state: resume(x_0, x_1)")
    return lambda point: states[point.index] if point.index < len(states) else None
