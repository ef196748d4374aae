"""Any sampler's table, by probing: no network, no images.

A sampler that is affine in the network's outputs is known by what it does to basis vectors. It
starts from x_T = e_0, its j-th network output is D = e_(1 + j), its k-th draw of noise is
e_(1 + n + k): every state it then shows, and its result, is its own row of coefficients. That is
what `Plan.matrix()` is of our samplers, and so two packages are compared number by number.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import Plan, Row

MOST = 96  # network outputs, and draws, that one probe may meet


@dataclass(frozen=True)
class Table:
    """What a sampler does: a row for every state the network is asked at, and one for the end.

    Attributes:
        states: coefficients over (x_T, D_0, D_1, ...), shape (nfe + 1, 1 + nfe).
        noise: coefficients over the draws, shape (nfe + 1, draws).
        overlap: correlation of the draws, shape (draws, draws); the identity if independent.
        labels: what the network was told of the time at each call.
    """

    states: Tensor
    noise: Tensor
    overlap: Tensor
    labels: list[float]

    @property
    def gram(self) -> Tensor:
        """Covariance that the draws give to the states."""
        return self.noise @ self.overlap @ self.noise.T


@dataclass
class Probe:
    """One probing of one sampler: `start` goes in, `answer` is the network, `draw` the noise."""

    dtype: torch.dtype = torch.float64
    seen: list[Tensor] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    intervals: list[tuple[float, float] | None] = field(default_factory=list)

    @property
    def start(self) -> Tensor:
        return self._basis(0)

    def answer(self, x: Tensor, label: Any) -> Tensor:
        """The network's D at state x."""
        self.seen.append(x.detach().double().flatten().clone())
        self.labels.append(float(torch.as_tensor(label).flatten()[0]))
        return self._basis(len(self.seen))

    def draw(self, a: Any = None, b: Any = None) -> Tensor:
        """The next draw; with an interval (a, b), the normalised increment of one path over it."""
        self.intervals.append(None if a is None else (float(min(a, b)), float(max(a, b))))
        return self._basis(MOST + len(self.intervals))

    def table(self, end: Tensor) -> Table:
        rows = torch.stack([*self.seen, end.detach().double().flatten()])
        n, k = len(self.seen), len(self.intervals)
        return Table(
            rows[:, : 1 + n],
            rows[:, 1 + MOST : 1 + MOST + k],
            torch.tensor(
                [[_correlation(i, j, a, b) for j, b in self._drawn] for i, a in self._drawn],
                dtype=torch.float64,
            ).reshape(k, k),
            self.labels,
        )

    @property
    def _drawn(self) -> list[tuple[int, tuple[float, float] | None]]:
        return list(enumerate(self.intervals))

    def _basis(self, i: int) -> Tensor:
        e = torch.zeros(1, 1, 1 + 2 * MOST, 1, dtype=self.dtype)
        e[0, 0, i, 0] = 1.0
        return e


class Chain:
    """Plans one after another, each starting from the end of the one before: no noise."""

    def __init__(self, plans: list[Plan]) -> None:
        self.plans, self.nfe = plans, sum(plan.nfe for plan in plans)

    def matrix(self) -> Tensor:
        rows = torch.zeros(self.nfe + 1, self.nfe + 1, dtype=torch.float64)
        rows[0, 0], k = 1.0, 0
        for plan in self.plans:
            own, n = plan.matrix(), plan.nfe
            block = own[:, :1] * rows[k]
            block[:, 1 + k : 1 + k + n] = own[:, 1 : 1 + n]
            rows[k : k + n + 1] = block
            k += n
        return rows


def as_plan(table: Table, times: list[float]) -> Plan:
    """A peer's table as a plan, so that its order can be measured like that of ours.

    Args:
        times: of every state in the table; draws are combined so that they are independent.
    """
    n = len(times) - 1
    noise = table.noise @ torch.linalg.cholesky(table.overlap)
    rows = [Row("store", times[0])]
    for i, t in enumerate(times):
        kind = "end" if i == n else "denoise"
        rows.append(
            Row(
                kind,
                t,
                {0: float(table.states[i, 0])},
                {j: float(table.states[i, 1 + j]) for j in range(i)},
                {k: float(c) for k, c in enumerate(noise[i])},
            )
        )
    return Plan(tuple(rows), tuple((times[0], times[-1]) for _ in range(noise.shape[1])))


def _correlation(
    i: int, j: int, a: tuple[float, float] | None, b: tuple[float, float] | None
) -> float:
    if i == j or a is None or b is None:
        return float(i == j)
    common = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return common / ((a[1] - a[0]) * (b[1] - b[0])) ** 0.5


def difference(table: Table, plan: Any) -> float:
    """The largest difference of any entry, relative to the largest entry of its row.

    Noise is compared by the covariance it gives to the states. Both samplers must ask the network
    equally often.
    """
    n = table.states.shape[0] - 1
    assert n == plan.nfe, f"the peer asks {n} times, the plan {plan.nfe}"
    matrix = plan.matrix()
    ours, draws = matrix[:, : 1 + n], matrix[:, 1 + n :]
    scale = ours.abs().amax(1, keepdim=True)
    states = ((table.states - ours).abs() / scale).max()
    noise = ((table.gram - draws @ draws.T).abs() / (scale @ scale.T)).max()
    return float(torch.maximum(states, noise))


class _Wide:
    """A module in which float32 is float64."""

    def __init__(self, module: Any, wide: Any) -> None:
        self._module, self.float32 = module, wide

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def patched(module_name: str, **names: Any) -> Iterator[None]:
    """Names of a module replaced for a while."""
    module = sys.modules[module_name]
    missing = object()
    old = {name: getattr(module, name, missing) for name in names}
    for name, value in names.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in old.items():
            if value is missing:
                delattr(module, name)
            else:
                setattr(module, name, value)


def wide_names(module_name: str) -> dict[str, Any]:
    """`torch` and `np` with float64 in the place of float32, for a module that hard-codes it.

    The peer then computes its own formulas in float64, and what is left of a difference is a
    difference of formulas, not of rounding.
    """
    module, names = sys.modules[module_name], {}
    for name in ("torch", "np"):
        if hasattr(module, name):
            names[name] = _Wide(getattr(module, name), getattr(module, name).float64)
    return names


Run = Callable[..., Table]
