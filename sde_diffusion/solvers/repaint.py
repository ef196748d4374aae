r"""RePaint's walk: every stretch of the way down is taken several times, with jumps back between.

At a point of the grid, after `jump_length` steps down, the forward process goes back up over them,

    x_t = (alpha_t/alpha_s) x_s + sigma_{t|s} z,

and the base solver comes down again. Without a picture to keep to it samples the same law as the
base. With one (`editing.inpaint`) the passes bring the unknown part into harmony with the known.

Lugmayr et al., "RePaint: inpainting using denoising diffusion probabilistic models", 2022,
arXiv:2201.09865.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..counts import check_count
from ..form import number_of
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar
from ..schedule import Schedule
from ..trace import Trace
from ..transform import replay
from .solver import SOLVERS, Claim, solver


@solver(
    "Lugmayr et al. 2022, arXiv:2201.09865",
    Claim(1),
    Claim(1, {"base": "ddim"}, point_exact=True),
)
def repaint(
    schedule: Schedule,
    times: list[Scalar],
    jump_length: int = 1,
    jump_count: int = 2,
    base: str | Callable[..., Plan] = "ddpm",
    from_end: bool = False,
) -> Plan:
    """The walk of RePaint: down by a solver, and back up again and again by the forward process.

    On the grid t_0 > .. > t_N the points t_(N-1), t_(N-1-j), t_(N-1-2j), .. are jumped from, as
    far as j = jump_length steps lie above them: each `jump_count` times back up over j steps
    and down again, before the way goes on. The clean end is not jumped from; with from_end it is,
    and the points are t_N, t_(N-j), .. Network calls of a base with one a step:
    N + j jump_count floor((N - 1)/j), or floor(N/j) with from_end.

    Lugmayr et al. 2022, arXiv:2201.09865, algorithm 1 and appendix on schedules; their number of
    resamplings r is jump_count + 1, their jump length j is jump_length (both 10 there, on 250
    steps).

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; rows of later passes count as stages, not as grid points.
        jump_length: j >= 1, in steps of the grid.
        jump_count: jumps back from each of those points, at least 0; with 0 it is the base, taken
            in pieces.
        base: name of a solver, or a function (schedule, times) -> Plan. A multistep method starts
            afresh in each piece.
        from_end: jump from the clean end too, which the paper does not: with few steps, of which
            the last is long, it brings the parts into harmony there (measured on the posterior
            of masked digits, `benchmarks.posterior`).

    Raises:
        ValueError: jumps longer than the grid; counts that are none; an unknown base.
    """
    check_count("jump_length", jump_length)
    check_count("jump_count", jump_count, least=0)
    make = look_up("base", base, SOLVERS) if isinstance(base, str) else base
    steps = len(times) - 1
    last = steps if from_end else steps - 1
    if jump_length > last > 0:
        raise ValueError(
            f"jump_length = {jump_length} on a grid of {steps} steps: no point that is jumped from "
            f"has so many steps above it; take at most {last}, or more steps"
        )
    grid = frozenset(map(number_of, times))
    trace = Trace(times[0])
    x, top = trace.x, 0
    for low in range(last % jump_length + jump_length, last + 1, jump_length):
        x, _ = replay(trace, x, make(schedule, times[top : low + 1]), grid=grid)
        again: Any = make(schedule, times[low - jump_length : low + 1])
        scale, deviation = schedule.transition(times[low], times[low - jump_length])
        for _ in range(jump_count):
            x = scale * x + deviation * trace.noise(times[low], times[low - jump_length])
            x, _ = replay(trace, x, again, grid=frozenset())
        top = low
    if top < steps:
        x, _ = replay(trace, x, make(schedule, times[top:]), grid=grid)
    return trace.end(x, times[-1])
