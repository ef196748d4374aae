"""How much is trained and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """Numbers of everything.

    Attributes:
        steps: lengths of training at which a run is measured, rising.
        seeds: sets of samples.
        images: digits in a set, and held-out digits that they are compared with.
        sampling_steps: of the default solver.
        chosen: training digits on which the clean end of the bound is chosen.
        levels: noise levels tried as that end.
        points: noise levels at which the bound is asked, of every held-out digit.
        flow: held-out digits whose likelihood is integrated along the flow.
        flow_steps, probes: of each.
        overhead: steps of which the time is taken.
        network: arguments in the place of those of the recipes.
    """

    steps: tuple[int, ...] = (100, 200, 400, 800)
    seeds: int = 2
    images: int = 599
    sampling_steps: int = 20
    chosen: int = 100
    levels: int = 24
    points: int = 8
    flow: int = 64
    flow_steps: int = 20
    probes: int = 4
    overhead: int = 60
    network: Mapping[str, Any] = field(default_factory=dict)


FULL = Sizes()
QUICK = Sizes(
    steps=(5, 10),
    images=30,
    sampling_steps=10,
    chosen=30,
    levels=8,
    points=4,
    flow=4,
    flow_steps=10,
    overhead=6,
)
