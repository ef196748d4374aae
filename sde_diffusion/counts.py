"""Numbers given by a user: of things (steps, samples, rounds), and one for all samples."""

from __future__ import annotations

from numbers import Real

import numpy as np
from torch import Tensor


def check_count(name: str, value: object, least: int = 1, or_none: bool = False) -> None:
    """Raise ValueError unless a number of things is an integer of at least `least`.

    True and 2.0 are none; None is one where `or_none` says so.
    """
    if value is None and or_none:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        end = ", or None" if or_none else ""
        raise ValueError(f"{name} = {value!r} must be an integer of at least {least}{end}")


def checked_number(value: object, name: str) -> float:
    """The value, if it is a number: of Python or numpy, or a 0-d tensor or array.

    Raises:
        TypeError: if not; True is none, nor is a complex number.
    """
    found = value
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        found = value.item()
    if isinstance(found, bool) or not isinstance(found, Real):
        shape = tuple(getattr(value, "shape", ()))
        what = f"a {type(value).__name__} of shape {shape}" if shape else repr(value)
        raise TypeError(f"{name} = {what} must be a number")
    return float(found)


def check_one(name: str, value: object, example: str) -> None:
    """Raise TypeError unless a number that holds for all samples is one."""
    if isinstance(value, bool) or not isinstance(value, Real):
        shape = getattr(value, "shape", None)
        what = repr(value) if shape is None else f"a {type(value).__name__} of {tuple(shape)}"
        raise TypeError(f"{name} = {what}: give one number for all samples, as {name}={example}")
