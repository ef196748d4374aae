"""From the table [objective] of a configuration to what is minimised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..denoise import NetworkDenoiser
from ..learned_schedule import LearnedSchedule
from ..names import look_up
from ..options import called
from ..reverse import Bins
from .diffusion import DiffusionObjective
from .laws import LAWS
from .learned_variance import LearnedVarianceObjective
from .objective import Objective
from .schedule_learning import LearnedScheduleObjective
from .uncertainty import LearnedUncertainty
from .weightings import WEIGHTINGS

Table = Mapping[str, Any]


def objective_of(table: Table, denoiser: NetworkDenoiser, where: str = "objective") -> Objective:
    """What is minimised.

    The arguments of `DiffusionObjective`, with weighting and times by name or as {"kind": name,
    **arguments}; and `uncertainty`, true or the arguments of `LearnedUncertainty`. On a learned
    schedule, `bins` and `schedule_learning_rate` of `LearnedScheduleObjective`. With a network of
    two outputs, the arguments of `LearnedVarianceObjective`.

    Raises:
        ValueError: unknown or missing keys (with the nearest right one), values of another type or
            out of range, or parts that do not fit each other.
    """
    given = dict(table)
    if isinstance(given.get("bins"), Mapping):
        given["bins"] = called(f"{where}: bins", Bins, given["bins"])
    if denoiser.outputs == 2:
        return called(where, LearnedVarianceObjective, given, denoiser=denoiser)
    for key, known in (("weighting", WEIGHTINGS), ("times", LAWS)):
        if isinstance(given.get(key), Mapping):
            given[key] = _named(f"{where}: {key}", given[key], known)
    if isinstance(denoiser.schedule, LearnedSchedule):
        own = {"bins": "bins", "schedule_learning_rate": "learning_rate"}
        more = {own[key]: given.pop(key) for key in own if key in given}
        objective = called(where, DiffusionObjective, given, denoiser=denoiser)
        return called(where, LearnedScheduleObjective, more, objective=objective)
    uncertainty = given.pop("uncertainty", False)
    objective = called(where, DiffusionObjective, given, denoiser=denoiser)
    if uncertainty is False:
        return objective
    more = {} if uncertainty is True else uncertainty
    if not isinstance(more, Mapping):
        raise ValueError(f"{where}: uncertainty = {more!r}: give true, or a table (size, seed)")
    return called(f"{where}: uncertainty", LearnedUncertainty, more, objective=objective)


def _named(where: str, table: Table, known: Mapping[str, Callable[..., Any]]) -> Any:
    """What {"kind": name, **arguments} stands for."""
    if "kind" not in table:
        raise ValueError(f"{where} lacks kind: one of {', '.join(known)}")
    try:
        function = look_up("kind", table["kind"], known)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return called(where, function, {k: v for k, v in table.items() if k != "kind"})
