"""What a plan is fitted to: starting points and where a teacher's paths from them go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Starting points x_T, the ends that a teacher reached from them, and perhaps its paths.

    Attributes:
        starts: x_T, (n, *event).
        ends: (n, *event).
        t_start, t_end: the times of both.
        times: where the path is known, (m,), float64, from t_start to t_end; None: the ends only.
        states: the path there, (m, n, *event); None likewise.
        origin: who the teacher was and what it was asked, in plain JSON values.
    """

    starts: Tensor
    ends: Tensor
    t_start: float
    t_end: float
    times: Tensor | None = None
    states: Tensor | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)

    def part(self, first: int, last: int | None = None) -> Pairs:
        """Samples first .. last - 1."""
        states = None if self.states is None else self.states[:, first:last]
        starts, ends = self.starts[first:last], self.ends[first:last]
        return replace(self, starts=starts, ends=ends, states=states)
