"""What a plan is fitted to, from what a user gives: pairs, ends, or a teacher that makes them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..plan import Plan
from ..sample import LARGEST_SIGNAL
from ..schedule import Schedule
from ..states import flat
from ..times import default
from .base import Base
from .pairs import Pairs
from .teacher import check_one_condition, starting_points, teach
from .undecided import choose_starts

Reference = Pairs | Tensor | Plan | str | None
PATH_STEPS = 64  # of the teacher's path, where points on it are needed


def pairs_of(
    reference: Reference,
    denoiser: Denoiser,
    base: Base,
    starts: Tensor | int | None,
    with_path: bool,
    keep: int | None = None,
    **options: Any,
) -> Pairs:
    """The pairs for the base's times; `keep` as for `tune`, options as for `teach`.

    Raises:
        TypeError: a reference of no known kind.
        ValueError: a condition for each sample; no starts; a reference of another schedule,
            shape, or time, or not finite.
    """
    check_one_condition(denoiser)
    t_start, t_end = base.t_start, base.t_end
    if isinstance(reference, Pairs):
        if keep is not None:
            raise ValueError(
                f"keep = {keep} beside Pairs, whose paths are known: leave it out, or choose "
                "before teaching (tuning.choose_starts) and give Pairs(..., weights=)"
            )
        check_pairs(reference, base, starts)
        return reference
    if starts is None:
        raise ValueError("no starts: give a tensor (n, *event), or how many to draw and shape=")
    if isinstance(starts, int):
        _check_noise(base.schedule, t_start)
    if keep is not None:
        drawn = {name: options[name] for name in ("shape", "seed", "dtype", "device")}
        told = {name: options[name] for name in ("seed", "chunk", "label", "folder", "progress")}
        x = starting_points(denoiser, starts, t=t_start, **drawn)
        if isinstance(reference, Tensor):
            _check_shape(reference, x)
        first = {**options, "folder": None, "progress": False}
        one = reference[:1] if isinstance(reference, Tensor) else reference
        pairs_of(one, denoiser, base, x[:1], with_path, **first)  # what is wrong is said at once
        chosen, weights = choose_starts(denoiser, x, keep, t_start=t_start, t_end=t_end, **told)
        known = reference[chosen] if isinstance(reference, Tensor) else reference
        pairs = pairs_of(known, denoiser, base, x[chosen], with_path, **options)
        origin = {**pairs.origin, "starts in all": len(x)}
        return replace(pairs, weights=weights, origin=origin)
    if isinstance(reference, Tensor):
        drawn = {name: options[name] for name in ("shape", "seed", "dtype", "device")}
        x = starting_points(denoiser, starts, t=t_start, **drawn)
        _check_shape(reference, x)
        pairs = Pairs(x, reference.to(x), t_start, t_end)
        check_pairs(pairs, base, None)
        return pairs
    if not isinstance(reference, Plan | str | None):
        raise TypeError(
            f"reference = {type(reference).__name__}: give Pairs, the ends of the starts, a "
            "teacher's name, a Plan, or None"
        )
    if isinstance(reference, Plan):
        check_times(reference.times[0], reference.times[-1], base, reference.name)
        times = reference.times if with_path else None
        return teach(denoiser, starts, teacher=reference, times=times, **options)
    if not with_path:
        ends: dict[str, Any] = {"t_start": t_start, "t_end": t_end}
        return teach(denoiser, starts, teacher=reference, **ends, **options)
    path = path_times(base.schedule, t_start, t_end)
    return teach(denoiser, starts, teacher=reference, times=path, **options)


def _check_shape(reference: Tensor, starts: Tensor) -> None:
    if reference.shape != starts.shape:
        raise ValueError(
            f"the reference has shape {tuple(reference.shape)}, and the starts have "
            f"{tuple(starts.shape)}: give the end of each start"
        )


def how_many(
    starts: Tensor | int | None, reference: Reference, keep: int | None = None
) -> int | None:
    """The number of pairs to be; None where there will be none."""
    if isinstance(reference, Pairs):
        return len(reference)
    if isinstance(keep, int):
        return keep
    if isinstance(starts, Tensor):
        return len(starts) if starts.ndim else None
    return starts if isinstance(starts, int) and not isinstance(starts, bool) else None


def _check_noise(schedule: Schedule, t: float) -> None:
    """Raise ValueError where no starts can be drawn."""
    alpha_t, sigma_t = (float(c) for c in schedule(t))
    if alpha_t > LARGEST_SIGNAL * sigma_t:
        raise ValueError(
            f"the plan starts at t = {t:g}, where alpha = {alpha_t:.3g} and sigma = {sigma_t:.3g}: "
            "pure noise is no sample there; give starts at that time as a tensor"
        )


def path_times(schedule: Schedule, t_start: float, t_end: float) -> list[float]:
    """Where a path is kept: the default grid, none below t_clean but an end at sigma = 0."""
    grid = default(schedule, PATH_STEPS, t_start, t_end).tolist()
    if schedule.sigma(t_end) == 0:
        inner = [t for t in grid[:-1] if t > schedule.t_clean]
        return [*inner, schedule.t_clean, t_end]
    return grid


def check_times(t_start: float, t_end: float, base: Base, what: str) -> None:
    """Raise ValueError unless a reference begins and ends where the base does."""
    own = (base.t_start, base.t_end)
    if not all(
        math.isclose(a, b, abs_tol=1e-9) for a, b in zip((t_start, t_end), own, strict=True)
    ):
        raise ValueError(
            f"{what} goes from t = {t_start:g} to {t_end:g}, and {base.plan.name} from {own[0]:g} "
            f"to {own[1]:g}: make both for the same ends, as with t_end="
        )


def check_pairs(pairs: Pairs, base: Base, starts: Tensor | int | None) -> None:
    """Raise ValueError unless pairs are finite, of the starts, the times and the schedule."""
    schedule = base.schedule
    for t, alpha_t, sigma_t in pairs.origin.get("scales", []):
        inside = schedule.t_min <= t <= schedule.t_max
        here = [float(c) for c in schedule(t)] if inside else [math.nan, math.nan]
        if not all(
            math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
            for a, b in zip(here, (alpha_t, sigma_t), strict=True)
        ):
            raise ValueError(
                f"the reference was made for {pairs.origin.get('schedule')}, not for {schedule!r}: "
                "teach with this denoiser"
            )
    check_times(pairs.t_start, pairs.t_end, base, "the reference")
    weights = pairs.weights
    if weights is not None and not (
        isinstance(weights, Tensor)
        and weights.shape == (len(pairs),)
        and bool((weights.isfinite() & (weights > 0)).all())
    ):
        what = f"of shape {tuple(weights.shape)}" if isinstance(weights, Tensor) else repr(weights)
        raise ValueError(
            f"the reference has weights {what}: give a tensor with a positive one for each of its "
            f"{len(pairs)} starts"
        )
    if isinstance(starts, Tensor) and not (
        starts.shape == pairs.starts.shape and bool((starts.to(pairs.starts) == pairs.starts).all())
    ):
        raise ValueError(
            "the reference has starts of its own, and these are others: leave out starts, or give "
            "the ends of these"
        )
    if isinstance(starts, int) and starts != len(pairs):
        raise ValueError(f"starts = {starts}, and the reference has {len(pairs)}: leave it out")
    if pairs.ends.shape != pairs.starts.shape:
        raise ValueError(
            f"the reference has ends of shape {tuple(pairs.ends.shape)} for starts of "
            f"{tuple(pairs.starts.shape)}"
        )
    fine = torch.isfinite(flat(pairs.ends)).all(1)
    if not bool(fine.all()):
        wrong = int((~fine).nonzero()[0])
        raise ValueError(f"the reference is not finite: the end of start {wrong}")
