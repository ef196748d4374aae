"""From the table [objective] of a configuration to what is minimised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..denoise import NetworkDenoiser
from ..learned_schedule import LearnedSchedule
from ..options import called, made, parameters_of
from ..reverse import Bins
from .diffusion import DiffusionObjective
from .importance import Importance
from .laws import LAWS
from .learned_variance import LearnedVarianceObjective
from .objective import Objective
from .schedule_learning import LearnedScheduleObjective
from .uncertainty import LearnedUncertainty
from .weightings import WEIGHTINGS

Table = Mapping[str, Any]
Named = Any  # a name, or a table {"kind": name, **arguments}
IMPORTANCES = {of: partial(Importance, of) for of in ("gradient", "loss")}


def objective_of(table: Table, denoiser: NetworkDenoiser, where: str = "objective") -> Objective:
    """What is minimised; the keys are the parameters of the two functions below.

    Raises:
        ValueError: unknown or missing keys (with the nearest right one), values of another type or
            out of range, or parts that do not fit each other.
    """
    forms = _learned_variance, _denoising
    form, other = forms if denoiser.outputs == 2 else forms[::-1]
    for key in table:
        if key in parameters_of(other) and key not in parameters_of(form):
            outputs = 3 - denoiser.outputs
            raise ValueError(f"{where}: {key} needs a network with outputs = {outputs}")
    return called(where, form, table, denoiser=denoiser)


def _denoising(
    denoiser: NetworkDenoiser,
    weighting: Named = "own",
    times: Named = None,
    drop: float = 0.0,
    low_discrepancy: bool = True,
    importance: Named = None,
    uncertainty: bool | Table = False,
    bins: Table | None = None,
    schedule_learning_rate: float | None = None,
) -> Objective:
    """A weighted squared error; the last two where the schedule is learned."""
    if not isinstance(denoiser.schedule, LearnedSchedule):
        learned = 'a schedule of kind = "learned"'
        if bins is not None:
            raise ValueError(f"bins needs {learned} or a network with outputs = 2")
        if schedule_learning_rate is not None:
            raise ValueError(f"schedule_learning_rate needs {learned}")
    plain = DiffusionObjective(
        denoiser,
        weighting=_named("weighting", weighting, WEIGHTINGS),
        times=None if times is None else _named("times", times, LAWS),
        drop=drop,
        low_discrepancy=low_discrepancy,
        importance=None if importance is None else _named("importance", importance, IMPORTANCES),
    )
    objective: Objective = plain
    if isinstance(denoiser.schedule, LearnedSchedule):
        objective = LearnedScheduleObjective(plain, _bins(bins), schedule_learning_rate)
    if uncertainty is False:
        return objective
    arguments: Table = {} if uncertainty is True else uncertainty
    return called("uncertainty", LearnedUncertainty, arguments, objective=objective)


def _learned_variance(
    denoiser: NetworkDenoiser,
    times: list[float] | None = None,
    weight: float | None = None,
    bins: Table | None = None,
    drop: float = 0.0,
) -> Objective:
    """A plain squared error and the variational bound, on a grid of times."""
    given = {} if weight is None else {"weight": weight}
    return LearnedVarianceObjective(denoiser, times, bins=_bins(bins), drop=drop, **given)


def _bins(table: Table | None) -> Bins | None:
    return None if table is None else called("bins", Bins, table)


def _named(where: str, value: Named, known: Mapping[str, Callable[..., Any]]) -> Any:
    """What a name, or a table with its kind, stands for."""
    if not isinstance(value, str | Mapping):
        raise ValueError(f'{where} = {value!r}: give a text, or a table {{ kind = "...", ... }}')
    return made(where, {"kind": value} if isinstance(value, str) else value, known)
