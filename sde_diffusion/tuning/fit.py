"""What every way of fitting takes, what it reports while it runs, and what it gives back.

    (family, denoiser, loss, train, validation, *, state, watch, ...) -> Fit

It begins with `family.start`; a fit that was stopped goes on, as if there had been no break, where
it is given the `state` of the last `Progress` that its `watch` was told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .family import Family
from .loss import Loss
from .pairs import Pairs


@dataclass(frozen=True)
class Progress:
    """Where a fit stands after an iteration.

    Attributes:
        iteration: counted from 1.
        numbers: the free numbers, (P,).
        train, validation: the loss on both sets of starts; NaN: not looked at in this iteration.
        state: what the method needs to go on from here (plain numbers, lists and tensors), to be
            given back as `state=`.
        family: that the numbers are of; None: the one that the fit was given.
        unit: of both losses, where it changes in a fit (`unit_of`); those of two units do not
            compare.
    """

    iteration: int
    numbers: Tensor
    train: float
    validation: float
    state: Mapping[str, Any] = field(default_factory=dict)
    family: Family | None = None
    unit: str = ""


Watch = Callable[[Progress], None]
"""Called after each iteration; an exception in it (Ctrl-C) ends the fit."""


def unit_of(loss: Loss, pairs: Pairs) -> str:
    """What a loss is measured in, and on how many starts."""
    square = ", the mean square" if math.isinf(loss.scale) else ""
    return f"{loss}{square}, on {len(pairs)} starts"


def check_state(family: Family, state: Mapping[str, Any] | None) -> None:
    """Raise ValueError for the state of a fit of another family."""
    if state is not None and state["numbers"].shape != family.start.shape:
        raise ValueError(
            f"a state of {len(state['numbers'])} numbers, and {family.name!r} has "
            f"{len(family.start)}: give the state of a fit of this family"
        )


@dataclass(frozen=True)
class Fit:
    """The best numbers by validation loss.

    Attributes:
        numbers: (P,), float64.
        train, validation: their loss on both sets.
        iterations, seconds: spent.
        stopped: why it ended: "converged", "iterations" or "not finite": there was no loss at the
            start, or none to go on from what was found.
    """

    numbers: Tensor
    train: float
    validation: float
    iterations: int
    seconds: float
    stopped: str = "converged"
