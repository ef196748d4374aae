"""The second kind of solver: steps chosen by looking at the sample, so not a plan.

Functions (denoiser, x, times, **options) -> `Solution`, of which `ADAPTIVE` is the list by name.
"""

from collections.abc import Callable

from .black_box import (
    FIXED_STEPS,
    SCIPY_METHODS,
    TORCHDIFFEQ_METHODS,
    scipy,
    torchdiffeq,
)
from .dpm_solver import dpm_solver_adaptive
from .gotta_go_fast import gotta_go_fast
from .per_sample_ode import PAIRS, per_sample_ode
from .solution import Solution

ADAPTIVE: dict[str, Callable[..., Solution]] = {
    solver.__name__: solver
    for solver in (dpm_solver_adaptive, gotta_go_fast, per_sample_ode, scipy, torchdiffeq)
}

__all__ = [
    "ADAPTIVE",
    "FIXED_STEPS",
    "PAIRS",
    "SCIPY_METHODS",
    "TORCHDIFFEQ_METHODS",
    "Solution",
    "dpm_solver_adaptive",
    "gotta_go_fast",
    "per_sample_ode",
    "scipy",
    "torchdiffeq",
]
