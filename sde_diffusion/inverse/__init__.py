"""Inverse problems: samples of p(x_0 | y) for y = A(x_0) + sigma_y n; one paper a file."""

from .mask import Mask
from .matrix import Matrix
from .measurement import Measurement
from .operator import LinearOperator, Operator

__all__ = ["LinearOperator", "Mask", "Matrix", "Measurement", "Operator"]
