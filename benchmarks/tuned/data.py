"""Starts and ends to fit and to test on, worked out once and kept.

The fits see starts of their own seed, in float32: of 65,536 those whose end is in doubt, and some
of the others, weighed (`choose_starts`). Both ranges share one set of paths, which is that
of Song's VP (sigma/alpha from 152) and passes through that of EDM (80). Tests are on the 512 starts
of the quality benchmark, on 512 of a third seed, and on 4,096 of a fourth (`many`). The ends of the
tests have a tolerance of 1e-8, those of the fits 1e-6: 5e-8 of their length at most, on 128 digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sde_diffusion.tuning.pairs import Pairs
from sde_diffusion.tuning.undecided import choose_starts

from ..quality.models import POINTS, PROBLEMS, SCHEDULES

SEED, OTHER_SEED, MANY_SEED = 1, 2, 3
TRAIN, VALIDATION, MANY = 6144, 2048, 4096
POOL = 65536  # of which those for the fits are chosen


@dataclass(frozen=True)
class Sets:
    """Pairs of one model and range: to fit on, to choose on, to test on once more."""

    train: Pairs
    validation: Pairs
    other: Pairs


def sets(folder: Path, model: str, range_: str) -> Sets:
    """The pairs, in the schedule of the range."""
    fitted = _pairs(folder, model, range_, SEED, TRAIN + VALIDATION, rtol=1e-6, pool=POOL)
    other = _pairs(folder, model, range_, OTHER_SEED, POINTS)
    return Sets(_single(fitted.part(0, TRAIN)), _single(fitted.part(TRAIN)), other)


def many(folder: Path, model: str, range_: str) -> Pairs:
    """More starts to test on: 4,096, so that samples in another mode are counted to a few."""
    return _pairs(folder, model, range_, MANY_SEED, MANY)


def _single(pairs: Pairs) -> Pairs:
    return replace(pairs, starts=pairs.starts.float(), ends=pairs.ends.float()).normal()


def _pairs(
    folder: Path,
    model: str,
    range_: str,
    seed: int,
    n: int,
    rtol: float = 1e-8,
    pool: int | None = None,
) -> Pairs:
    schedule, t = SCHEDULES[range_]
    shape = PROBLEMS[model]().event_shape
    of = "" if pool is None else f"-of-{pool}"
    kept = _paths(folder / f"paths-{model}-{seed}-{n}{of}.npz", model, seed, n, rtol, pool)
    alpha = float(schedule.alpha(t))
    starts = torch.from_numpy(kept[range_]) * alpha
    ends = torch.from_numpy(kept["end"])
    weights = torch.from_numpy(kept["weights"]) if "weights" in kept else None
    return Pairs(starts.reshape(n, *shape), ends.reshape(n, *shape), t, 0.0, weights=weights)


def _paths(
    path: Path, model: str, seed: int, n: int, rtol: float, pool: int | None
) -> dict[str, np.ndarray]:
    """x/alpha at the noisy ends of both ranges, and x at sigma = 0."""
    if not path.exists():
        problem, (schedule, t) = PROBLEMS[model](), SCHEDULES["vp"]
        generator = torch.Generator().manual_seed(seed)
        x = problem.sample_marginal(pool or n, *schedule(t), generator=generator)
        more: dict[str, Any] = {}
        if pool is not None:
            denoiser = problem.denoiser(schedule)
            chosen, weights = choose_starts(denoiser, x.float(), n, t_end=0.0, seed=seed)
            x, more = x[chosen], {"weights": weights.numpy()}
        middle = float(schedule.time_of(-math.log(SCHEDULES["edm"][1])))
        states = problem.trajectory(x, schedule, [t, middle, 0.0], rtol=rtol, atol=rtol / 10)
        scaled: list[Tensor] = [
            state / schedule.alpha(s) for state, s in zip(states, (t, middle, 0.0), strict=True)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        vp, edm, end = (state.numpy() for state in scaled)
        np.savez(path, vp=vp, edm=edm, end=end, **more)
    with np.load(path, allow_pickle=False) as kept:
        return {name: kept[name] for name in kept.files}
