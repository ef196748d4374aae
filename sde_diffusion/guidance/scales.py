"""Scales of guidance: a number, or a function of the time."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor

from ..form import number_of
from ..scalar import Scalar

ScaleOf = Callable[[float], float]
GuidanceScale = float | ScaleOf


def checked_scale(scale: GuidanceScale, name: str = "scale") -> GuidanceScale:
    """The scale, if it is a finite number or a function.

    Raises:
        TypeError: neither.
        ValueError: not finite.
    """
    if callable(scale):
        return scale
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(f"{name} = {scale!r} must be a number, or a function of the time t")
    if not math.isfinite(scale):
        raise ValueError(f"{name} = {scale} must be finite")
    return float(scale)


def checked_number(value: float, name: str) -> float:
    """The value, if it is a number.

    Raises:
        TypeError: if not.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} = {value!r} must be a number")
    return float(value)


def scale_at(scale: GuidanceScale, t: Scalar, name: str = "scale") -> Scalar:
    """The scale at a time, or at one time a sample.

    A function is asked with one number at a time; where gradients flow to the times, with a 0-d
    tensor.

    Raises:
        TypeError, ValueError: if a function's value is no number, or not finite.
    """
    if not callable(scale):
        return scale
    if not isinstance(t, Tensor):
        return _finite(scale(t), t, name)
    flat = t.reshape(-1)
    if not t.requires_grad:
        values = [float(_finite(scale(u), u, name)) for u in flat.tolist()]
        return torch.tensor(values, dtype=torch.float64).reshape(t.shape)
    found = [torch.as_tensor(_finite(scale(u), u, name)) for u in flat.unbind()]  # type: ignore[arg-type]
    return torch.stack(found).reshape(t.shape)


def _finite(value: Scalar, t: Scalar, name: str) -> Scalar:
    a_number = isinstance(value, Tensor) and value.numel() == 1 and value.dtype is not torch.bool
    if not a_number and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name}({number_of(t):g}) = {value!r} must be a number")
    number = number_of(value)
    if not math.isfinite(number):
        raise ValueError(f"{name}({number_of(t):g}) = {number} must be finite")
    return value
