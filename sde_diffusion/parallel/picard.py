r"""Picard sweeps: every output from the last sweep's states, then every state from the outputs.

The plan's rows, unrolled, are u_i = A_i x_T + sum_{j < i} B_ij d_j + sum_k C_ik z_k with
d_j = D(u_j, t_j). One round asks the network for all d_j at once,

    d_j^(k) = D(u_j^(k), t_j),    u_i^(k+1) = A_i x_T + sum_{j < i} B_ij d_j^(k) + sum_k C_ik z_k.

As B is strictly lower triangular, k rounds make states 0 .. k exact, and the limit is the
sequential result. A window asks only for so many rows from the first that still moves.

Shih, Belkhale, Ermon, Sadigh & Anari, "Parallel sampling of diffusion models", 2023,
arXiv:2305.16317 (ParaDiGMS).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .task import Task, norm

SETTLED = 0.03  # of the tolerance: a state that moved less is not asked again


def picard(task: Task, window: int | None = None) -> Tensor:
    """Picard sweeps in a sliding window.

    Args:
        task: what to sample.
        window: the most rows in work at once for one sample; None: all.

    Returns:
        The last states, (batch, *event); those of samples that are not done are the best known.
    """
    return Sweeps(task, window).solve()


class Sweeps:
    """The loop of rounds; methods differ in what a sweep takes for d_j (`answer`)
    and where they ask next (`propose`).

    Attributes:
        asked: by row, the states at which its outputs were asked, (batch, *event).
        answers: by row, those outputs.
        seen: (nfe, batch), whether a row was asked for a sample.
        front: (batch,), the first state of each sample that is not known to have settled.
    """

    def __init__(self, task: Task, window: int | None) -> None:
        self.task, self.table = task, task.table
        self.n, self.batch = task.plan.nfe, len(task.x)
        self.window = self.n if window is None else window
        self.asked: dict[int, Tensor] = {}
        self.answers: dict[int, Tensor] = {}
        self.seen = np.zeros((self.n, self.batch), dtype=bool)
        self.front = np.zeros(self.batch, dtype=np.int64)

    def answer(self, j: int, state: Tensor) -> Tensor:
        """d_j at a state, for samples of which row j was asked."""
        return self.answers[j]

    def learn(self, j: int, samples: Tensor, state: Tensor, d: Tensor) -> None:
        """Hear that row j of these samples, asked at these states, has these outputs."""
        self.asked[j].index_copy_(0, samples, state)
        self.answers[j].index_copy_(0, samples, d)

    def propose(self, first: int, states: list[Tensor]) -> list[Tensor]:
        """Where to ask next, given the states `first`, `first` + 1, .. of a sweep: there."""
        return states

    def forget(self, first: int) -> None:
        """Free what is only needed for states before `first`."""
        self.table.forget(first)
        for kept in (self.asked, self.answers):
            for j in [j for j in kept if j < first]:
                del kept[j]

    def solve(self) -> Tensor:
        """Rounds until every sample is done; the last states."""
        task, n = self.task, self.n
        first, last = 0, min(self.window, n)
        while True:
            states = self.table.sweep(first, last, self._output)
            resting = self._judge(first, states)
            active = task.sample_rounds == 0
            if not active.any():
                return states[-1]
            if task.rounds == task.max_rounds:
                return self.table.sweep(first, n, self._output)[-1]
            reach = min(int(self.front[active].max()) + self.window, n)
            if reach > last:  # the window has moved on: its new rows in the same round
                states += self.table.sweep(last, reach, self._output)[1:]
            last = max(last, reach)
            if last == n:
                self.asked[n] = states[-1].clone()
            self._ask(self._chosen(first, last, resting), first, self.propose(first, states))
            task.rounds += 1
            first = int(self.front[active].min())
            self.forget(first)

    def _output(self, j: int, state: Tensor) -> Tensor:
        """d_j for a sweep; where it was never asked, that of the row before."""
        if self.seen[j].all():
            return self.answer(j, state)
        before = self.table.values.get(("d", j - 1))
        before = torch.zeros_like(state) if before is None else before
        if not self.seen[j].any():
            return before
        seen = torch.from_numpy(self.seen[j]).to(state.device)
        return torch.where(seen.reshape(-1, *[1] * (state.ndim - 1)), self.answer(j, state), before)

    def _judge(self, first: int, states: list[Tensor]) -> np.ndarray:
        """Move the fronts, note who is done, and say which (state, sample) need not be asked."""
        task, n, active = self.task, self.n, self.task.sample_rounds == 0
        last = first + len(states) - 1
        rows = np.arange(first, last + 1)[:, None]
        change = self._changes(first, states)
        past = rows < self.front
        settled = past | (change <= SETTLED * task.tolerance) & (rows < n)
        front = np.where(active, first + np.cumprod(settled, 0).sum(0), self.front)
        wild = np.isnan(change) & active
        for b in np.flatnonzero(wild.any(0)):
            j = first + int(wild[:, b].argmax())
            if j == front[b]:
                raise task.not_finite(j)
            self.seen[j - 1 :, b] = False  # a guess led astray: as if never asked from there on
        done = active & (front == n)
        if last == n:
            done |= active & (past | (change <= task.tolerance)).all(0)
        if task.rounds:
            moving = change[(rows >= front) & active & np.isfinite(change)]
            task.residuals.append(float(moving.max(initial=0.0)))
        front[done] = n
        task.sample_rounds[done] = task.rounds
        task.progress.advance(float((front - self.front).sum()), f"round {task.rounds + 1}")
        self.front = front
        return settled | wild

    def _chosen(self, first: int, last: int, resting: np.ndarray) -> np.ndarray:
        """Which (row, sample) to ask, from `first` on: in the window of each that is not done."""
        rows = np.arange(first, min(last + 1, self.n))[:, None]
        inside = (rows >= self.front) & (rows < self.front + self.window)
        moving = ~resting[: len(rows)]
        inside[: len(moving)] &= moving
        return inside & (self.task.sample_rounds == 0)

    def _changes(self, first: int, states: list[Tensor]) -> np.ndarray:
        """RMS change of each state since its row was asked, relative to the state; (rows, batch).

        inf where it was not asked, nan where the state is not finite; the end is compared with the
        last sweep's. Here the host waits for the device, once in a round.
        """
        size = torch.stack([norm(state) for state in states])
        moved = torch.full_like(size, math.inf)
        for j, state in enumerate(states, first):
            if j in self.asked:
                moved[j - first] = norm(state - self.asked[j])
        moved_, size_ = torch.stack([moved, size]).double().cpu().numpy()
        count = min(len(states), self.n - first)
        moved_[:count][~self.seen[first : first + count]] = math.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.where(moved_ == 0, 0.0, moved_ / size_)
        change[~np.isfinite(size_)] = math.nan
        return change

    def _ask(self, mask: np.ndarray, first: int, states: list[Tensor]) -> None:
        """One round: the outputs of the chosen (row, sample) at their states."""
        rows, samples = np.nonzero(mask)
        chosen, counts = np.unique(rows, return_counts=True)
        index = torch.from_numpy(samples).to(self.task.x.device)
        parts = index.split(counts.tolist())
        x = torch.cat([states[i].index_select(0, k) for i, k in zip(chosen, parts, strict=True)])
        d = self.task.network(x, rows + first, index)
        answers = zip(chosen, parts, *(y.split(counts.tolist()) for y in (x, d)), strict=True)
        for i, part, state, answer in answers:
            j = first + int(i)
            if j not in self.asked:
                self.asked[j], self.answers[j] = (torch.zeros_like(states[i]) for _ in range(2))
            self.learn(j, part, state, answer)
        self.seen[rows + first, samples] = True
