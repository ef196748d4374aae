"""Times found by a search, as `tune` takes them: GITS, OSS and the error bound.

None of these fits numbers to the loss; it only judges what they found. They are done in one go,
so that a search that was stopped begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..plan import Plan
from .base import Base
from .bound import bound_times
from .dynamic_programming import gits_times, oss_times
from .family import Family
from .fit import Fit, Progress, Watch
from .knots import numbers_of
from .loss import Loss
from .measure import measure
from .pairs import Pairs


def gits(
    base: Base,
    denoiser: Denoiser,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    *,
    state: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    solver: str = "ddim",
    growth: float = 1.0,
    chunk: int = 256,
) -> tuple[Plan, Fit]:
    """The base's solver on the times of `gits_times`, which has the options and the reference."""
    began, steps = time.monotonic(), len(base.times) - 1
    options: dict[str, Any] = {"solver": solver, "chunk": chunk}
    times = gits_times(denoiser, base.schedule, train, steps, growth=growth, **options)
    return _judged("gits", base, times, denoiser, loss, train, validation, watch, began, chunk)


def oss(
    base: Base,
    denoiser: Denoiser,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    *,
    state: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    solver: str = "ddim",
    chunk: int = 256,
) -> tuple[Plan, Fit]:
    """The base's solver on the times of `oss_times`, which has the options and the reference."""
    began, steps = time.monotonic(), len(base.times) - 1
    times = oss_times(denoiser, base.schedule, train, steps, solver=solver, chunk=chunk)
    return _judged("oss", base, times, denoiser, loss, train, validation, watch, began, chunk)


def bounded(
    base: Base,
    denoiser: Denoiser,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    *,
    state: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    t_last: float | None = None,
    power: float = 2.0,
) -> tuple[Plan, Fit]:
    """The base's solver on the times of `bound_times`, which has the options and the reference."""
    began, steps = time.monotonic(), len(base.times) - 1
    made = base.need_solver("bound")
    ends: dict[str, Any] = {"t_start": base.times[0], "t_end": base.times[-1], "t_last": t_last}
    times = bound_times(made, base.schedule, steps, **ends, power=power, **base.options)
    return _judged("bound", base, times, denoiser, loss, train, validation, watch, began)


def _judged(
    free: str,
    base: Base,
    times: Tensor,
    denoiser: Denoiser,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    watch: Watch | None,
    began: float,
    chunk: int = 256,
) -> tuple[Plan, Fit]:
    """The plan on these times, and its losses."""
    plan = base.need_solver(free)(base.schedule, times, **base.options)
    on_train, held = (
        measure(plan, denoiser, loss, pairs, chunk).loss for pairs in (train, validation)
    )
    found = numbers_of(base.schedule, times) if len(times) > 2 else torch.zeros(0)
    if watch is not None:
        only = Family(free, lambda _: plan, found, ())
        watch(Progress(1, found, on_train, held, family=only))
    return plan, Fit(found, on_train, held, 1, time.monotonic() - began)
