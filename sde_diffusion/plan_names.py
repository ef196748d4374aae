"""Samplers by name, where plans alone will do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .adaptive import ADAPTIVE
from .langevin import LANGEVIN
from .names import look_up
from .plan import Plan


def plan_named(name: object, known: Mapping[str, Callable[..., Plan]]) -> Callable[..., Plan]:
    """The solver or preset of this name.

    Raises:
        ValueError: an unknown name (with the nearest right one), or a sampler that is no plan.
    """
    if isinstance(name, str) and (name in ADAPTIVE or name in LANGEVIN):
        raise ValueError(
            f"{name} looks at the sample before it chooses a step, so it is no plan, and only "
            "plans are certified, compared and tuned; sample takes it"
        )
    if name == "default":
        raise ValueError(
            "default is no one solver: what sample takes depends on the number of steps; for its "
            "table see default_plan(schedule, steps)"
        )
    return look_up("solver", name, known)
