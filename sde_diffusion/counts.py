"""Numbers of things given by a user: steps, samples, rounds."""

from __future__ import annotations

import numpy as np


def check_count(name: str, value: object, least: int = 1, or_none: bool = False) -> None:
    """Raise ValueError unless a number of things is an integer of at least `least`.

    True and 2.0 are none; None is one where `or_none` says so.
    """
    if value is None and or_none:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        end = ", or None" if or_none else ""
        raise ValueError(f"{name} = {value!r} must be an integer of at least {least}{end}")
