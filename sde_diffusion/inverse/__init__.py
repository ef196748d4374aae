"""Inverse problems: samples of p(x_0 | y) for y = A(x_0) + sigma_y n; one paper a file."""

from .blur import Blur, gaussian_kernel, motion_kernel
from .downsample import Downsample
from .function_operator import FunctionOperator, LinearFunctionOperator
from .mask import Mask
from .matrix import Matrix
from .measurement import Measurement
from .operator import LinearOperator, Operator
from .phase_retrieval import PhaseRetrieval
from .projection import Projection

__all__ = [
    "Blur",
    "Downsample",
    "FunctionOperator",
    "LinearFunctionOperator",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Measurement",
    "Operator",
    "PhaseRetrieval",
    "Projection",
    "gaussian_kernel",
    "motion_kernel",
]
