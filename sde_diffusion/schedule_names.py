"""Schedules by name, and as plain data: what a file can hold.

A description is {"kind": a name below, **its arguments}; a schedule made from another one holds
the description of that one as `base`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from .learned_schedule import FrozenSchedule, LearnedSchedule
from .options import made
from .schedule import Schedule
from .schedules import EDM, VE, FlowMatching, SubVP, VPCosine, VPLinear
from .tabulated import (
    Shifted,
    Tabulated,
    ZeroTerminalSNR,
    ddpm_linear,
    ddpm_scaled_linear,
    ddpm_squared_cosine,
)

Description = Mapping[str, Any]


def _tabulated(alphas_cumprod: list[float]) -> Schedule:
    """Variance-preserving, through the cumulative alphas of a discrete process."""
    return Tabulated(alphas_cumprod)


def _shifted(base: Description, factor: float) -> Schedule:
    """The schedule `base` with its noise-to-signal ratio multiplied by `factor`."""
    return Shifted(schedule_of(base, "base"), factor)


def _zero_terminal_snr(base: Description) -> Schedule:
    """The schedule `base` rescaled so that alpha = 0 at its noisy end."""
    return ZeroTerminalSNR(schedule_of(base, "base"))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "vp_linear": VPLinear,
    "vp_cosine": VPCosine,
    "sub_vp": SubVP,
    "ve": VE,
    "edm": EDM,
    "flow_matching": FlowMatching,
    "ddpm_linear": ddpm_linear,
    "ddpm_scaled_linear": ddpm_scaled_linear,
    "ddpm_squared_cosine": ddpm_squared_cosine,
    "learned": LearnedSchedule,
    "frozen": FrozenSchedule,
    "tabulated": _tabulated,
    "shifted": _shifted,
    "zero_terminal_snr": _zero_terminal_snr,
}


def schedule_of(description: Description, where: str = "schedule") -> Schedule:
    """The schedule of a description, as {"kind": "vp_linear", "beta_max": 20.0}.

    Args:
        description: the kind and its arguments.
        where: what it is called in errors.

    Raises:
        ValueError: no or an unknown kind (with the nearest right one), unknown or missing
            arguments, or values that the schedule refuses.
    """
    return made(where, description, SCHEDULES)


def description_of(schedule: Schedule) -> dict[str, Any]:
    """The description that `schedule_of` makes the same schedule from, in plain data.

    Raises:
        ValueError: a schedule of one's own, which has no name.
    """
    if isinstance(schedule, Tabulated):
        return {"kind": "tabulated", "alphas_cumprod": schedule.alphas_cumprod.tolist()}
    if isinstance(schedule, Shifted):
        base = description_of(schedule.base)
        return {"kind": "shifted", "base": base, "factor": schedule.factor}
    if isinstance(schedule, ZeroTerminalSNR):
        return {"kind": "zero_terminal_snr", "base": description_of(schedule.base)}
    if isinstance(schedule, LearnedSchedule):  # its weights are a checkpoint's, not a description's
        clean, noisy = schedule.both.tolist()
        ends = {"lambda_clean": clean, "lambda_noisy": noisy}
        more = {"width": len(schedule.m), "learn_ends": schedule.learn_ends}
        return {"kind": "learned", **ends, **more}
    name = next((name for name, made in SCHEDULES.items() if made is type(schedule)), None)
    if name is None or not is_dataclass(schedule):
        raise ValueError(
            f"{schedule!r} is none of the schedules that a file can name ({', '.join(SCHEDULES)}): "
            "Tabulated holds any variance-preserving one"
        )
    return {"kind": name, **asdict(schedule)}
