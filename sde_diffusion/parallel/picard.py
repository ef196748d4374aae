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

from .task import Task

SETTLED = 0.1  # of the tolerance: a state that moved less is not asked again


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
    """The loop of rounds; `output` is what a sweep takes for d_j, and what methods differ in.

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

    def solve(self) -> Tensor:
        """Rounds until every sample is done; the last states."""
        task, n = self.task, self.n
        while True:
            first, last = self._span()
            states = self.table.sweep(first, last, self.output)
            rows = self._judge(first, states)
            if not rows.any() or task.rounds == task.max_rounds:
                return states[-1] if last == n else self.table.sweep(first, n, self.output)[-1]
            self._ask(rows, first, states)
            task.rounds += 1

    def output(self, j: int, state: Tensor) -> Tensor:
        """d_j: the last answer; where there is none yet, that of the row before."""
        if self.seen[j].all():
            return self.answers[j]
        before = self.table.values.get(("d", j - 1))
        before = torch.zeros_like(state) if before is None else before
        if not self.seen[j].any():
            return before
        seen = torch.from_numpy(self.seen[j]).to(state.device)
        return torch.where(seen.reshape(-1, *[1] * (state.ndim - 1)), self.answers[j], before)

    def _span(self) -> tuple[int, int]:
        """The first and last state that any sample still needs."""
        front = self.front[self.task.sample_rounds == 0]
        return int(front.min()), min(int(front.max()) + self.window, self.n)

    def _judge(self, first: int, states: list[Tensor]) -> np.ndarray:
        """Move the fronts, note who is done, say which (row, sample) to ask next."""
        task, n = self.task, self.n
        last = first + len(states) - 1
        rows = np.arange(first, last + 1)[:, None]
        change = self._changes(first, states)
        wild = np.isnan(change)
        if wild.any():
            self._forget_wild(first, wild)
            change[wild] = np.inf
        active = task.sample_rounds == 0
        settled = (change <= SETTLED * task.tolerance) | (rows < self.front)
        settled[rows[:, 0] == n] = False
        before = self.front.copy()
        self.front = np.where(active, first + np.cumprod(settled, 0).sum(0), self.front)
        inside = (rows >= self.front) & (rows < self.front + self.window)
        still = (change <= task.tolerance) | (rows < self.front)
        done = active & ((self.front == n) | ((last == n) & still.all(0)))
        if task.rounds:
            residual = np.where(active & inside & np.isfinite(change), change, 0.0).max()
            task.residuals.append(float(residual))
        task.sample_rounds[done] = task.rounds
        self.front[done] = n
        task.progress.advance((self.front - before).sum(), f"round {task.rounds + 1}")
        return inside & (rows < n) & ~settled & active & ~done & ~wild

    def _changes(self, first: int, states: list[Tensor]) -> np.ndarray:
        """RMS change of each state since its row was asked, relative to the state; (rows, batch).

        inf where it was not asked, nan where the state is not finite. The end is compared with
        the last sweep's. Here the host waits for the device, once in a round.
        """
        size = torch.stack([_norm(state) for state in states])
        moved = torch.full_like(size, math.inf)
        for j, state in enumerate(states, first):
            if j in self.asked:
                moved[j - first] = _norm(state - self.asked[j])
        if first + len(states) - 1 == self.n:
            self.asked[self.n] = states[-1].clone()
        moved_, size_ = torch.stack([moved, size]).double().cpu().numpy()
        count = min(len(states), self.n - first)
        moved_[:count][~self.seen[first : first + count]] = math.inf
        change = np.divide(moved_, size_, out=np.zeros_like(size_), where=moved_ > 0)
        change[~np.isfinite(size_)] = math.nan
        return change

    def _forget_wild(self, first: int, wild: np.ndarray) -> None:
        """Take answers that made a state overflow as never given; raise if they were exact."""
        for b in np.flatnonzero(wild.any(0) & (self.task.sample_rounds == 0)):
            j = first + int(wild[:, b].argmax())
            if j <= self.front[b]:
                raise self.task.not_finite(j)
            self.seen[j - 1 :, b] = False

    def _ask(self, mask: np.ndarray, first: int, states: list[Tensor]) -> None:
        """One round: the outputs of the chosen (row, sample) at their present states."""
        rows = np.nonzero(mask)[0]
        device = self.task.x.device
        index = [torch.from_numpy(np.flatnonzero(line)).to(device) for line in mask]
        whole: np.ndarray = np.asarray(mask.all(1))
        chosen = [i for i, line in enumerate(mask) if line.any()]
        x = torch.cat([states[i] if whole[i] else states[i][index[i]] for i in chosen])
        answers = self.task.network(x, rows + first).split(mask.sum(1)[chosen].tolist())
        asked = x.split(mask.sum(1)[chosen].tolist())
        for i, state, answer in zip(chosen, asked, answers, strict=True):
            if first + i not in self.asked:
                self.asked[first + i] = torch.zeros_like(states[i])
                self.answers[first + i] = torch.zeros_like(states[i])
            if whole[i]:
                self.asked[first + i], self.answers[first + i] = state, answer
            else:
                self.asked[first + i][index[i]] = state
                self.answers[first + i][index[i]] = answer
            self.seen[first + i][mask[i]] = True
        front = int(self.front[self.task.sample_rounds == 0].min())
        self.table.forget(front)
        for kept in (self.asked, self.answers):
            for j in [j for j in kept if j < front]:
                del kept[j]


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm of each sample, (batch,)."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)
