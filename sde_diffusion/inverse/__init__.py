"""Inverse problems: samples of p(x_0 | y) for y = A(x_0) + sigma_y n; one paper a file."""

from .blur import Blur, gaussian_kernel, motion_kernel
from .daps import daps
from .ddnm import ddnm
from .diffpir import diffpir
from .downsample import Downsample
from .dps import dps
from .function_operator import FunctionOperator, LinearFunctionOperator
from .mask import Mask
from .matrix import Matrix
from .measurement import Measurement
from .mmps import mmps
from .mpgd import mpgd
from .operator import LinearOperator, Operator
from .phase_retrieval import PhaseRetrieval
from .pigdm import pigdm
from .posterior import Posterior
from .projection import Projection
from .tmpd import tmpd

METHODS = {method.__name__: method for method in (dps, pigdm, tmpd, mmps, ddnm, diffpir, mpgd)}

__all__ = [
    "METHODS",
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
    "Posterior",
    "Projection",
    "daps",
    "ddnm",
    "diffpir",
    "dps",
    "gaussian_kernel",
    "mmps",
    "motion_kernel",
    "mpgd",
    "pigdm",
    "tmpd",
]
