"""What can be tuned, towards what, and how: the names that `tune` takes.

    free      what of a plan is free          FAMILIES, or STRATEGIES where one fit is not all
    loss      what the fit makes small        LOSSES
    method    how it is made small            METHODS

A new one is a line in its table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..plan import Plan
from ..solvers.edm import STEPS
from .alternate import alternate
from .base import Base
from .family import Family
from .fit import Fit
from .gradient import gradient
from .knot_search import bounded, gits, oss
from .knots import knots
from .laws import frechet, sliced
from .least_squares import least_squares
from .loss import Loss, endpoint, trajectory
from .quasi_newton import quasi_newton
from .residual import residual
from .restarts import free_numbers, restarts
from .scalars import scalars
from .stochasticity import churn, stochasticity
from .table import table

Fitter = Callable[..., Fit]
"""(family, denoiser, loss, train, validation, *, state, watch, ...) -> Fit; see `fit`."""

Strategy = Callable[..., tuple[Plan, Fit]]
"""(base, denoiser, loss, train, validation, *, state, watch, ...) -> the plan, its Fit.

For what is not one fit of one family: growing from one NFE to the next, dynamic programming over
knots, two families in turn. `state` and `watch` are those of a fit."""


def _knots(base: Base, free: str, asked: bool) -> Family:
    make, options = base.need_solver(free), base.options
    return knots(make, base.schedule, base.times, asked=asked, **options)


def _churn(base: Base) -> Family:
    name = getattr(base.need_solver("churn"), "__name__", "")
    neutral = {"s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0}
    others = [key for key, value in neutral.items() if base.options.get(key, value) != value]
    if others:
        raise ValueError(f"free = 'churn' sets the noise of every step itself: leave out {others}")
    gamma = base.options.get("s_churn", 0.0) / (len(base.times) - 1)
    step = name.removeprefix("edm_")
    if step not in STEPS:
        raise ValueError(
            f"free = 'churn' sets the noise of a single-step sampler, and the base is {name}: give "
            "base = 'edm_heun', 'edm_euler' or 'dpm_2'"
        )
    return churn(base.schedule, base.times, step, start=gamma if gamma > 0 else 0.1)


FAMILIES: dict[str, Callable[[Base], Family]] = {
    "knots": lambda base: _knots(base, "knots", asked=False),
    "knots and calls": lambda base: _knots(base, "knots and calls", asked=True),
    "table": lambda base: table(base.plan, base.schedule, first_call=not base.known),
    "coefficients": lambda base: table(
        base.plan, base.schedule, times=False, first_call=not base.known
    ),
    "churn": _churn,
    "scalars": lambda base: scalars(base.plan, base.schedule),
    "residual": lambda base: residual(_knots(base, "residual", asked=True), base.schedule),
    "stochasticity": lambda base: stochasticity(
        base.need_solver("stochasticity"), base.schedule, base.times, **base.options
    ),
}

STRATEGIES: dict[str, Strategy] = {
    "alternate": alternate,
    "bound": bounded,
    "gits": gits,
    "oss": oss,
    "table": restarts,
}

COUNTS: dict[str, Callable[[Base, Mapping[str, Any]], int]] = {
    "alternate": lambda base, options: len(
        table(base.plan, base.schedule, first_call=not base.known).start
    ),
    "table": lambda base, options: free_numbers(
        base, options.get("guesses", ()), options.get("usual", True)
    ),
}
"""(base, options) -> how many numbers a strategy frees; it refuses what the strategy would."""

METHODS: dict[str, Fitter] = {
    "gradient": gradient,
    "least_squares": least_squares,
    "quasi_newton": quasi_newton,
}

LOSSES: dict[str, Callable[..., Loss]] = {
    "endpoint": lambda schedule, scale=math.inf: endpoint(scale),
    "trajectory": trajectory,
    "sliced": lambda schedule, scale=math.inf: sliced(scale),
    "frechet": lambda schedule, scale=math.inf: frechet(scale),
}
"""(schedule, [scale]) -> the loss."""

WITH_PATH: set[str] = {"gits", "oss", "trajectory"}
"""Names of losses, and of what is free, that need points on the teacher's paths."""

PATHWISE: set[str] = {"endpoint", "trajectory"}
"""Names of losses that compare a sample with the path from its start, and not their laws."""

LAWS: set[str] = {"frechet", "sliced"}
"""Names of losses that compare the law of samples with that of data."""

KNOTS_OF_PATHS: set[str] = {"gits", "oss"}
"""Names of what is free that is found from a mean over the teacher's paths."""
