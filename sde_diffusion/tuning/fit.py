"""What every way of fitting gives back, and what it reports while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """Where a fit stands after an iteration.

    Attributes:
        iteration: counted from 1.
        numbers: the free numbers, (P,).
        train, validation: the loss on both sets of starts.
        state: what the method needs to go on from here (plain numbers, lists and tensors), to be
            given back as `state=`.
    """

    iteration: int
    numbers: Tensor
    train: float
    validation: float
    state: Mapping[str, Any] = field(default_factory=dict)


Watch = Callable[[Progress], None]
"""Called after each iteration; an exception in it (Ctrl-C) ends the fit."""


@dataclass(frozen=True)
class Fit:
    """The best numbers by validation loss.

    Attributes:
        numbers: (P,), float64.
        train, validation: their loss on both sets.
        iterations, seconds: spent.
        stopped: why it ended: "converged", "iterations" or "not finite".
    """

    numbers: Tensor
    train: float
    validation: float
    iterations: int
    seconds: float
    stopped: str = "converged"
