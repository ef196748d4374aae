"""A pair to compare: one sampler of a peer, and the solver of ours that must be the same table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Pair:
    """A sampler of a peer beside one of ours.

    Attributes:
        peer, ours: name and options of both.
        measure: the largest relative difference of their tables, with the peer in float64.
        shipped: the same with the peer in the precision that it ships with, where that is lower.
        rounding: what `shipped` may be.
    """

    peer: str
    ours: str
    measure: Callable[[], float]
    shipped: Callable[[], float] | None = None
    rounding: float = 0.0


TOLERANCE = 1e-9
"""Of tables in float64: sums of a few hundred products, with ratios of noise levels up to 1e5."""


def written(name: str, options: dict[str, Any]) -> str:
    """name(option=value, ...)."""
    shown = {k: v for k, v in options.items() if not callable(v)}
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in shown.items())})" if shown else name


def parameters(pairs: list[Pair]) -> list[Any]:
    return [pytest.param(pair, id=f"{pair.peer} = {pair.ours}") for pair in pairs]
