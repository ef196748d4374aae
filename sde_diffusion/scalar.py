"""Elementary functions of a coefficient: a Python float or a float64 tensor.

Schedules and solvers compute with numbers that are known before any sample is seen. As floats
they cost a microsecond each; as tensors, gradients flow through them (to the times of a grid,
to the parameters of a schedule). The functions below take either and answer in kind, with
limits in place of exceptions: log 0 = -inf, 1/0 = inf, exp of a large number = inf.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Scalar = float | Tensor


def exp(x: Scalar) -> Scalar:
    """e^x; inf on overflow."""
    if isinstance(x, Tensor):
        return torch.exp(x)
    return math.exp(x) if x < 709.0 else math.inf


def expm1(x: Scalar) -> Scalar:
    """e^x - 1, without cancellation near 0; inf on overflow, -1 at -inf."""
    if isinstance(x, Tensor):
        return torch.expm1(x)
    return math.expm1(x) if x < 709.0 else math.inf


def log(x: Scalar) -> Scalar:
    """Natural logarithm; -inf at 0, NaN below."""
    if isinstance(x, Tensor):
        return torch.log(x)
    if x > 0:
        return math.log(x)
    return -math.inf if x == 0 else math.nan


def log1p(x: Scalar) -> Scalar:
    """log(1 + x) for x > -1, without cancellation near 0."""
    return torch.log1p(x) if isinstance(x, Tensor) else math.log1p(x)


def sqrt(x: Scalar) -> Scalar:
    """Square root; NaN below 0."""
    if isinstance(x, Tensor):
        return torch.sqrt(x)
    return math.sqrt(x) if x >= 0 else math.nan


def cos(x: Scalar) -> Scalar:
    """Cosine."""
    return torch.cos(x) if isinstance(x, Tensor) else math.cos(x)


def sin(x: Scalar) -> Scalar:
    """Sine."""
    return torch.sin(x) if isinstance(x, Tensor) else math.sin(x)


def tan(x: Scalar) -> Scalar:
    """Tangent."""
    return torch.tan(x) if isinstance(x, Tensor) else math.tan(x)


def acos(x: Scalar) -> Scalar:
    """Inverse cosine, in [0, pi]."""
    return torch.acos(x) if isinstance(x, Tensor) else math.acos(x)


def atan2(y: Scalar, x: Scalar) -> Scalar:
    """The angle of the point (x, y), in [0, pi/2] for x, y >= 0."""
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        pair = (torch.as_tensor(v, dtype=torch.float64) for v in (y, x))
        return torch.atan2(*pair)
    return math.atan2(y, x)


def asinh(x: Scalar) -> Scalar:
    """Inverse hyperbolic sine."""
    return torch.asinh(x) if isinstance(x, Tensor) else math.asinh(x)


def softplus(x: Scalar) -> Scalar:
    """log(1 + e^x), without overflow."""
    if isinstance(x, Tensor):
        return torch.logaddexp(x, torch.zeros_like(x))
    return x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(exp(x))


def ratio(x: Scalar, y: Scalar) -> Scalar:
    """x / y for y >= 0; inf, -inf or NaN by the sign of x at y = 0."""
    if isinstance(y, Tensor) or y != 0:
        return x / y
    return x * math.inf


def where(condition: bool | Tensor, value: Scalar, otherwise: Scalar) -> Scalar:
    """value where the condition holds; both are computed."""
    if isinstance(condition, Tensor):
        return torch.where(condition, value, otherwise)
    return value if condition else otherwise


def constant_like(t: Scalar, value: float) -> Scalar:
    """The constant function `value`, in the kind (and shape) of t."""
    return torch.full_like(t, value) if isinstance(t, Tensor) else value


def phi(k: int, z: Scalar) -> Scalar:
    """phi_k(z) = int_0^1 e^{(1-u) z} u^{k-1}/(k-1)! du for k >= 1, phi_0 = e^z.

    phi_1 = (e^z - 1)/z and phi_{k+1} = (phi_k - 1/k!)/z, which cancels near 0: there the series
    sum_n z^n/(n + k)! stands in, so that values and gradients keep their digits everywhere.

    Hochbruck & Ostermann, "Exponential integrators", 2010, eq. 2.10 and 2.11.
    """
    if -1 < z < 1:
        term: Scalar = 1 / math.factorial(k) + 0 * z
        total = term
        for n in range(1, 20):
            term = term * z / (n + k)
            total = total + term
        return total
    if k == 0:
        return exp(z)
    return expm1(z) / z if k == 1 else (phi(k - 1, z) - 1 / math.factorial(k - 1)) / z
