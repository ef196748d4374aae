r"""Editing by inversion: the noise of a picture under one denoiser, sampled under another.

    x_0 --(solver on the reversed grid, source)--> x_T --(solver, target)--> x_0'

With the same denoiser both ways the picture comes back, but for the errors of the solver, or to
rounding with a method that is its own inverse (`o_belm`), whose way back takes up the last two
states of the way there. With another, as another condition of the same network, what the two have
in common stays. It is the probability-flow ODE both ways: nothing is drawn.

The source should be a plain model, or guidance at scale 1. Guided more strongly the field is
steeper, and the errors of both ways grow with it; nor does x_T then look like noise.

Song et al., "Denoising diffusion implicit models", 2021, arXiv:2010.02502, section 5.4. Su et
al., "Dual diffusion implicit bridges for image-to-image translation", 2023, arXiv:2203.08382.
Wang et al., "BELM", 2024, arXiv:2410.07273.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..denoise import Denoiser, check_denoiser
from ..form import number_of
from ..inversion import invert, resume
from ..plan import Plan, Row, check_plan
from ..run import Point, run
from ..solvers import SOLVERS
from .grid import Grid, grid_with
from .picture import checked_picture


def edit(
    picture: Tensor,
    source: Denoiser,
    target: Denoiser,
    *,
    solver: str | Callable[..., Plan] = "o_belm",
    steps: int | None = None,
    times: Grid = "karras",
    progress: bool = False,
    **options: Any,
) -> Tensor:
    """A picture carried from one law to another, through their common noise.

    x_T is found from the picture by the solver on the reversed grid under `source`, and sampled
    under `target`. The picture counts as the state alpha x_0 at the grid's clean end, where sigma
    is small and not 0. A method that is exactly reversible (found from its table:
    `exactly_reversible`) takes up the last two states, so that with source = target the
    picture comes back to rounding, from 2 steps on.

    Su et al. 2023, arXiv:2203.08382 (with two models); Song et al. 2021, arXiv:2010.02502, section
    5.4 (DDIM's inversion).

    Args:
        picture: x_0, (batch, *event), in the range of the data.
        source: the denoiser under which the picture is likely, as with its own condition.
        target: the one under which it is wanted; of the same schedule.
        solver: a deterministic solver, a name of `SOLVERS` or one of its functions: "o_belm"
            (exactly reversible), "ddim", "heun", ..; no Plan, since the way there needs the
            solver's text.
        steps: number of steps, 20 by default; not together with given times.
        times: a name of `times.GRIDS`, a function (schedule, steps, t_end=..) -> times, or the
            times, with sigma > 0 at the end. Names end at the schedule's t_clean, and start at
            t_max, or, if alpha = 0 there (`FlowMatching`), at sigma/alpha = 100; so does a
            function that takes t_start. For "o_belm" one whose
            steps in sigma/alpha do not grow too fast towards noise: its second root swells with
            them on the way up (and shrinks again on the way down). From "default" x_T comes out
            ten times too large in 30 steps, from "karras" within a few percent.
        progress: show a progress bar for each way (needs the extra "bench").
        options: of the solver.

    Returns:
        Edited pictures, (batch, *event).

    Raises:
        ValueError: denoisers of different schedules; a solver that draws noise; a grid that ends
            at sigma = 0, or begins at alpha = 0 where the solver cannot go.
        TypeError, ValueError: a picture of integers, or not finite; a solver that is not one of
            `SOLVERS`.

    Warns:
        UserWarning: a picture in the range of bytes.
    """
    check_denoiser(source, "the source")
    check_denoiser(target, "the target")
    x_0, schedule = checked_picture(picture), source.schedule
    if isinstance(times, str) or callable(times):
        times = grid_with(schedule, times, steps, t_end=schedule.t_clean)
    elif steps is not None:
        raise ValueError(f"steps = {steps} beside given times: leave out one of them")
    there = invert(solver, schedule, times, **options)
    make = SOLVERS[solver] if isinstance(solver, str) else solver
    back = make(schedule, times, **options)
    try:
        back.check_schedule(target.schedule)
    except ValueError as error:
        raise ValueError(f"source and target are of different schedules: {error}") from error
    alpha_s = float(schedule.alpha(back.times[-1]))
    if not exactly_reversible(there, back):
        x_T = run(there, source, alpha_s * x_0, progress=progress)
        return run(back, target, x_T, progress=progress) / alpha_s
    latest: list[Tensor] = []  # the last two states

    def keep(point: Point) -> None:
        if point.index >= point.steps - 1:
            latest.insert(0, point.x.clone())

    x_T = run(there, source, alpha_s * x_0, callback=keep, progress=progress)
    return run(back, target, x_T, callback=resume(*latest), progress=progress) / alpha_s


def exactly_reversible(there: Plan, back: Plan, tolerance: float = 1e-9) -> bool:
    """Whether a two-step plan and that on the reversed grid undo each other, by their tables.

    It is so if, at every inner grid point, both tables say the same linear relation of the states
    before, at and after it and the output there. Then two neighbouring states determine all
    others, the same ones either way.

    Raises:
        TypeError: something else than plans.
    """
    check_plan(there)
    check_plan(back)
    n = len(there.rows) - 1
    kinds = ["denoise"] * n + ["end"]
    if n < 2 or any([row.kind for row in plan.rows] != kinds for plan in (there, back)):
        return False
    for i in range(2, n + 1):
        forth = _relation(there.rows[i], i)
        # The same three points, met in the other order: the last of them comes first there.
        other = _relation(back.rows[n - i + 2], n - i + 2)
        if forth is None or other is None or other[0] == 0:
            return False
        other = torch.stack([other[2], other[1], other[0], other[3]]) / -other[0]
        if not torch.allclose(forth, other, rtol=tolerance, atol=tolerance):
            return False
    return True


def _relation(row: Row, i: int) -> Tensor | None:
    """(a, b, -1, c) with a x_(i-2) + b x_(i-1) - x_i + c d_(i-1) = 0; None for any other row."""
    if not set(row.x) <= {i - 2, i - 1} or not set(row.d) <= {i - 1} or row.z:
        return None
    numbers = [row.x.get(i - 2, 0.0), row.x.get(i - 1, 0.0), -1.0, row.d.get(i - 1, 0.0)]
    return torch.tensor([number_of(c) for c in numbers], dtype=torch.float64)
