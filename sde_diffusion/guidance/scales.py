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


def scale_at(scale: GuidanceScale, t: Scalar, name: str = "scale") -> Scalar:
    """The scale at a time, or at one time a sample.

    A function is asked with one number at a time; where gradients flow to the times, with a 0-d
    tensor.

    Raises:
        ValueError: if a function's value is not finite.
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
    number = number_of(value)
    if not math.isfinite(number):
        raise ValueError(f"{name}({number_of(t):g}) = {number} must be finite")
    return value
