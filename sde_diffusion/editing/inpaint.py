r"""Inpainting on any plan: a run with the known part replaced, by one noise or by fresh ones.

The mathematics is that of `replacement`. At every grid point the state that callbacks see has
alpha_t y + sigma_t z in its known part, and the last state, where sigma = 0, has y itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..denoise import Call, Denoiser, check_denoiser
from ..form import number_of
from ..names import look_up
from ..noise import Course, Draw, Noise, noise_from
from ..plan import Plan
from ..run import Callback, Point, check_callback, run
from ..sample import find_solver, is_no_plan, load_plan, plan_for, starting_state
from .grid import Grid
from .picture import check_editing_options
from .replacement import Known, Replaced, check_forgets, forgets, scales

NOISES = {"fixed": False, "independent": True}


def inpaint(
    denoiser: Denoiser,
    picture: Tensor,
    mask: Tensor,
    *,
    noise: str = "fixed",
    solver: str | os.PathLike[str] | Plan | Callable[..., Plan] = "default",
    steps: int | None = None,
    times: Grid = "default",
    seed: int | Sequence[int] | Noise | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    **options: Any,
) -> Tensor:
    """Fill in what a mask leaves out, by replacing the known part of the state.

    At every network call, at time t, the known part is alpha_t y + sigma_t z with

        noise="fixed"         one z for the whole path, that of the start: for every plan
        noise="independent"   z drawn anew at each call: for plans without history

    and the last state has y there (at sigma = 0, else the noised y).

    Song et al. 2021, arXiv:2011.13456, appendix I.2 (independent noise). With
    solver="repaint" and independent noise it is RePaint (Lugmayr et al. 2022, arXiv:2201.09865,
    algorithm 1).

    Args:
        denoiser: a Denoiser, guided or not.
        picture: y, (batch, *event), in the range of the data; not read where the mask is 0.
        mask: 1 (or True) where y is known, (batch, *event) or (*event).
        noise: "fixed" or "independent".
        solver, steps, times, callback, progress, options: as for `sample`.
        seed: one, or one a sample, or a Noise: of the start, of z, and of the sampler's own draws.

    Returns:
        Pictures with the known part as given, (batch, *event), float32 or wider.

    Raises:
        ValueError: a mask of another shape, or with values beside 0 and 1; independent noise on a
            plan with history; a sampler that is no plan; what `sample` refuses.
        TypeError, ValueError: a picture of integers, or not finite; an option that the solver
            does not have, one of `sample` among them (dtype, device, shape, start,
            analytic_first_step: the picture says all that).

    Warns:
        UserWarning: a picture in the range of bytes.
    """
    check_denoiser(denoiser)
    check_callback(callback)
    fresh, schedule = look_up("noise", noise, NOISES), denoiser.schedule
    known, solver = Known(picture, mask), load_plan(solver)
    method = find_solver(solver)
    if is_no_plan(method):
        raise ValueError(
            f"{solver!r} is no plan: give it a denoiser that knows the picture, sample("
            "replacement(denoiser, picture, mask, z), picture.shape, start=sigma_T * z, solver=..)"
        )
    check_editing_options(inpaint, method, options)
    plan = plan_for(schedule, solver, steps, times, denoiser.jumps, **options)
    source, y, t = noise_from(seed), known.y, number_of(plan.rows[0].t)
    where = getattr(denoiser, "device", None) or y.device
    x = starting_state(denoiser, tuple(y.shape), t, source, None, y.dtype, where)
    known = known.like(x)
    told: Replaced | _Redrawn
    if fresh:
        told = _Redrawn(denoiser, known, plan, source.apart())
    else:
        z = source.start(torch.empty_like(x))
        told = Replaced(denoiser, known, z)

    def at_point(point: Point) -> Tensor:
        noise_now = told.draw_at(point) if isinstance(told, _Redrawn) else told.z
        x = known.put(point.x, *scales(schedule, point.t), noise_now)
        if callback is not None:
            own = callback(Point(point.index, point.steps, point.t, x, point.denoised))
            return x if own is None else own
        return x

    return run(plan, told, x, noise=source, callback=at_point, progress=progress)


class _Redrawn(Replaced):
    """Replacement with fresh noise wherever one plan forgets; made for one run of it."""

    def __init__(self, denoiser: Denoiser, known: Known, plan: Plan, source: Noise) -> None:
        forgotten = forgets(plan)
        check_forgets(plan, forgotten)
        super().__init__(denoiser, known, torch.zeros_like(known.y))
        self.source = source
        asked = [(row, free) for row, free in zip(plan.rows, forgotten, strict=True) if row.asks]
        # At grid points the callback draws, before the network is asked.
        self.draws = [free and not row.on_grid for row, free in asked]
        self.stream: Draw

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        self.stream = self.source.stream(x, Course())
        calls = super().bind(times, x)  # each reads z as it is when asked
        return [
            self._after_a_draw(call) if draws else call
            for call, draws in zip(calls, self.draws, strict=True)
        ]

    def draw_at(self, point: Point) -> Tensor:
        """The noise of a grid point."""
        return self.stream(self.z, point.t, point.t)

    def _after_a_draw(self, call: Call) -> Call:
        def ask(x: Tensor, out: Tensor | None) -> Tensor:
            self.stream(self.z, 0.0, 0.0)
            return call.function(x, out)

        return Call(ask)
