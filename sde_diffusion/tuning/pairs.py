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
        weights: how much each counts in a mean over them, (n,), positive, of mean 1, on the host;
            None: all alike.
    """

    starts: Tensor
    ends: Tensor
    t_start: float
    t_end: float
    times: Tensor | None = None
    states: Tensor | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def part(self, first: int, last: int | None = None) -> Pairs:
        """Samples first .. last - 1."""
        return self._at(slice(first, last))

    def take(self, chosen: Tensor) -> Pairs:
        """The samples of some indices."""
        return self._at(chosen)

    def normal(self) -> Pairs:
        """The same with weights of mean 1."""
        weights = self.weights
        return self if weights is None else replace(self, weights=weights / weights.mean())

    def weighed(self, values: Tensor) -> Tensor:
        """One value for each sample, times its weight, (n,)."""
        return values if self.weights is None else values * self.weights.to(values)

    def _at(self, chosen: slice | Tensor) -> Pairs:
        states = None if self.states is None else self.states[:, chosen]
        weights = None if self.weights is None else self.weights[chosen]
        starts, ends = self.starts[chosen], self.ends[chosen]
        return replace(self, starts=starts, ends=ends, states=states, weights=weights)
