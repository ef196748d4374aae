"""Scales of guidance: a number, or a function of the time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..counts import checked_number
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
    try:
        number = checked_number(scale, name)
    except TypeError as error:
        each = " (a scale for each sample is a rule of your own: see Rule)"
        several = isinstance(scale, Tensor | np.ndarray | Sequence) and not isinstance(scale, str)
        raise TypeError(f"{error}, or a function of the time t{each if several else ''}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} = {number} must be finite")
    return number


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
    what = f"{name}({number_of(t):g})"
    one = value.reshape(()) if isinstance(value, Tensor) and value.numel() == 1 else value
    number = checked_number(one, what)
    if not math.isfinite(number):
        raise ValueError(f"{what} = {number} must be finite")
    return one if isinstance(one, Tensor) and one.requires_grad else number
