r"""Triangular Anderson acceleration of Picard sweeps (ParaTAA).

One Picard sweep takes the states u, at which the outputs were asked, to G(u), the states that
follow from those outputs; the solution is the u with residual R = G(u) - u = 0. From the last m
differences of both between sweeps, Delta G and Delta R, Anderson acceleration asks next at

    u_i' = G_i - sum_m gamma_im Delta G_i^m,
    gamma_i = argmin over gamma of sum_{l <= i} |R_l - sum_m gamma_m Delta R_l^m|^2.

Every row i has coefficients of its own, from the rows up to it: so nothing flows back from later
rows to earlier ones, and the first k states are exact after k rounds as without acceleration. The
safeguard is that the first state that has not settled, which follows from exact ones, takes its
Picard step as it is.

Tang, Tang, Luo, Wang & Chang, "Accelerating parallel sampling of diffusion models", 2024,
arXiv:2402.09970.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from ..states import flat
from .picard import Sweeps
from .task import Task


def anderson(task: Task, window: int | None = None, history: int = 2) -> Tensor:
    """Picard sweeps with triangular Anderson acceleration.

    Args:
        task: what to sample.
        window: the most rows in work at once for one sample; None: all.
        history: m, the differences kept, at least 1; two states of memory each, for every row.

    Returns:
        The last states, (batch, *event); those of samples that are not done are the best known.
    """
    return AndersonSweeps(task, window, history).solve()


class AndersonSweeps(Sweeps):
    """Attributes: by row, the last (G, R) and their differences, latest first, (batch, size)."""

    def __init__(self, task: Task, window: int | None, history: int) -> None:
        super().__init__(task, window)
        self.history = history
        self.last: dict[int, tuple[Tensor, Tensor]] = {}
        self.differences: dict[int, deque[tuple[Tensor, Tensor]]] = {}
        self.known = np.zeros_like(self.seen)  # whether (G, R) of a sample was there last time

    def propose(self, first: int, states: list[Tensor]) -> list[Tensor]:
        rows = [j for j in range(first, min(first + len(states), self.n)) if j in self.asked]
        for j in rows:
            self._remember(j, states[j - first])
        self.known[rows] = self.seen[rows]
        rows = [j for j in rows if j in self.differences]
        if not rows:
            return states
        gammas = self._least_squares(rows)
        proposed = list(states)
        for j, gamma in zip(rows, gammas, strict=True):
            steps = torch.stack([g for g, _ in self.differences[j]], 1)
            correction = (gamma[:, None, : steps.shape[1]] @ steps).reshape(states[0].shape)
            proposed[j - first] = states[j - first] - correction
        return proposed

    def forget(self, first: int) -> None:
        super().forget(first)
        for kept in (self.last, self.differences):
            for j in [j for j in kept if j < first]:
                del kept[j]

    def _remember(self, j: int, state: Tensor) -> None:
        """Take up G and R of row j and their differences to the last sweep's, 0 where new."""
        g = flat(state).clone()
        r = g - flat(self.asked[j])
        if j in self.last:
            known = torch.from_numpy(self.known[j] & self.seen[j]).to(state.device)[:, None]
            old_g, old_r = self.last[j]
            pair = (torch.where(known, g - old_g, 0.0), torch.where(known, r - old_r, 0.0))
            self.differences.setdefault(j, deque(maxlen=self.history)).appendleft(pair)
        self.last[j] = (g, r)

    def _least_squares(self, rows: list[int]) -> Tensor:
        """gamma of each row, (rows, batch, m); 0 up to the front."""
        m = max(len(self.differences[j]) for j in rows)
        grams, sides = [], []
        for j in rows:
            d = torch.stack([r for _, r in self.differences[j]], 1)
            seen = torch.from_numpy(self.seen[j] & (j >= self.front)).to(d.device)[:, None, None]
            d = torch.where(seen, d, 0.0)
            r = torch.where(seen[:, 0], self.last[j][1], 0.0)
            missing = m - len(self.differences[j])
            grams.append(torch.nn.functional.pad(d @ d.mT, (0, missing, 0, missing)))
            sides.append(torch.nn.functional.pad(d @ r[:, :, None], (0, 0, 0, missing)))
        gram, side = torch.stack(grams).cumsum(0), torch.stack(sides).cumsum(0)
        # A ridge of rounding size: differences may be parallel, or 0 where a row is new.
        numbers = torch.finfo(gram.dtype)
        ridge = 10 * numbers.eps * gram.diagonal(dim1=-2, dim2=-1).sum(-1) + numbers.tiny
        eye = torch.eye(m, dtype=gram.dtype, device=gram.device)
        gamma = torch.linalg.solve_ex(gram + ridge[..., None, None] * eye, side)[0][..., 0]
        past = torch.from_numpy(np.array(rows)[:, None] <= self.front).to(gamma.device)
        return torch.where(past[..., None] | ~gamma.isfinite(), 0.0, gamma)
