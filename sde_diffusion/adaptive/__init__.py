"""The second kind of solver: steps chosen by looking at the sample, so not a plan."""

from .black_box import (
    ADAPTIVE,
    FIXED_STEPS,
    SCIPY_METHODS,
    TORCHDIFFEQ_METHODS,
    Solution,
    scipy,
    torchdiffeq,
)

__all__ = [
    "ADAPTIVE",
    "FIXED_STEPS",
    "SCIPY_METHODS",
    "TORCHDIFFEQ_METHODS",
    "Solution",
    "scipy",
    "torchdiffeq",
]
