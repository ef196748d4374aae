"""What a checkpoint says of the run it is from."""

from __future__ import annotations

import re

from ..schedule import Schedule


def describe_schedule(schedule: Schedule) -> str:
    """Its repr without memory addresses, and (alpha, sigma) at three times, whatever its repr."""
    name = without_addresses(schedule)
    span = schedule.t_max - schedule.t_clean
    scales = [schedule(schedule.t_clean + span * part) for part in (0.0, 0.3, 0.7)]
    return f"{name}: " + ", ".join(f"({float(a):.6g}, {float(b):.6g})" for a, b in scales)


def without_addresses(thing: object) -> str:
    """A repr that is the same in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))
