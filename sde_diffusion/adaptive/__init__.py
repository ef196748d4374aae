"""The second kind of solver: steps chosen by looking at the sample, so not a plan."""

from .black_box import ADAPTIVE, SCIPY_METHODS, TORCHDIFFEQ_METHODS, Solution, scipy, torchdiffeq

__all__ = [
    "ADAPTIVE",
    "SCIPY_METHODS",
    "TORCHDIFFEQ_METHODS",
    "Solution",
    "scipy",
    "torchdiffeq",
]
