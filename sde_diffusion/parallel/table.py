r"""A plan's states from its outputs: the rows replayed in order, once the d_j are given.

With x_T, the draws z_k and a value for every output d_j, every state follows by the plan's own
rows, u_i = sum a x + sum b d + sum c z, in the arithmetic of a run. So the limit of any iteration
on the outputs is the sequential result to the rounding of the network alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..form import Symbol, number_of
from ..noise import Draw
from ..plan import Plan

Output = Callable[[int, Tensor], Tensor]
"""(j, u_j) -> the value to take for d_j, given the state u_j at which the plan asks for it."""


class Table:
    """The rows of a plan between its network calls, with what later rows need of earlier ones.

    State j is where the plan asks for d_j, j = 0 .. nfe - 1, and state nfe is its end.

    Args:
        plan: the table.
        start: x_T, (batch, *event).
        draw: where the noise comes from; each z_k is drawn once, in order, when a sweep first
            comes to it, and kept for as long as a row needs it.
    """

    def __init__(self, plan: Plan, start: Tensor, draw: Draw | None) -> None:
        self.plan, self.start, self.draw = plan, start, draw
        self.values: dict[Symbol, Tensor] = {("x", 0): start}
        self._last_use = {symbol: i for i, row in enumerate(plan.rows) for symbol, _ in row.terms()}
        self._terms = [[(s, number_of(c)) for s, c in row.terms()] for row in plan.rows]
        asked = [i for i, row in enumerate(plan.rows) if row.asks]
        self.row_of = [*asked, len(plan.rows) - 1]  # of state j
        self._drawn = 0

    def sweep(self, first: int, last: int, output: Output) -> list[Tensor]:
        """States first .. last, from the values there are for earlier rows.

        The tensors belong to the table: the next sweep over these states overwrites them.

        Args:
            first, last: 0 <= first <= last <= nfe; states before `first` stay as they are.
            output: the value of each output from `first` on; asked in order, up to last - 1.
        """
        states = []
        row = self.row_of[first - 1] + 1 if first else 0
        for j in range(first, last + 1):
            for i in range(row, self.row_of[j] + 1):
                self._state(i)
            row = self.row_of[j] + 1
            states.append(self.values["x", self.row_of[j]])
            if j < last:
                self.values["d", j] = output(j, states[-1])
        return states

    def forget(self, first: int) -> None:
        """Free what no row from state `first` on needs."""
        row = self.row_of[first - 1] + 1 if first else 0
        for symbol in list(self.values):
            made = symbol[1] if symbol[0] == "x" else -1
            if made < row and self._last_use.get(symbol, -1) < row:
                del self.values[symbol]

    def _state(self, i: int) -> None:
        """x_i = the sum of its terms, written over its last value."""
        if i == 0:
            return
        for (name, k), _ in self._terms[i]:
            if name == "z" and k >= self._drawn:
                t, s = self.plan.noises[k]
                self.values["z", k] = torch.empty_like(self.start)
                self.draw(self.values["z", k], t, s)  # type: ignore[misc]
                self._drawn += 1
        (symbol, c), *others = self._terms[i]
        x = self.values.get(("x", i))
        x = torch.mul(self.values[symbol], c, out=torch.empty_like(self.start) if x is None else x)
        for symbol, c in others:
            x.add_(self.values[symbol], alpha=c)
        self.values["x", i] = x
