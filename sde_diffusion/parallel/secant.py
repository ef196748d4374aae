r"""Picard sweeps with a secant: a quasi-Newton method on the plan's rows, one output at a time.

Newton's method for the system u_i = A_i x_T + sum_{j < i} B_ij d_j + sum_k C_ik z_k, d_j = D(u_j),
takes in each sweep the outputs d_j = D(v_j) + J_j (u_j - v_j), where v_j is the state at which
row j was asked last and J_j the Jacobian of the network there (Lim, Zhu, Selfridge & Kasim,
"Parallelizing non-linear sequential models over the sequence length", 2023, arXiv:2309.12252;
with a diagonal in place of J: Gonzalez et al., "Towards scalable and stable parallelization of
nonlinear RNNs", 2024, arXiv:2407.19115). The system is triangular, so a sweep in order solves it.

Here J_j comes from the last two times that the row was asked, without derivatives: with the step
q = (v' - v) / |v' - v| and the answer p = (D(v') - D(v)) / |v' - v| to it,

    J = kappa I + r q^T + q r^T,    kappa = <q, p>,    r = p - kappa q,    so that J q = p.

That is the symmetric matrix nearest to kappa I that does so (Powell's symmetric Broyden update,
1970). The right one is symmetric too: the Jacobian of E[x_0 | x] is alpha Cov[x_0 | x] / sigma^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..states import flat
from .picard import Sweeps
from .task import Task


def secant(task: Task, window: int | None = None) -> Tensor:
    """Picard sweeps in which each output follows its state by a symmetric secant.

    As in `picard`, k rounds make the first k states exact; the memory is three more states for
    each row in work.

    Args:
        task: what to sample.
        window: the most rows in work at once for one sample; None: all.

    Returns:
        The last states, (batch, *event); those of samples that are not done are the best known.
    """
    return SecantSweeps(task, window).solve()


class SecantSweeps(Sweeps):
    """Attributes: by row, kappa (batch, 1), q and r (batch, size of the event); 0 if not known."""

    def __init__(self, task: Task, window: int | None) -> None:
        super().__init__(task, window)
        self.kappa: dict[int, Tensor] = {}
        self.q: dict[int, Tensor] = {}
        self.r: dict[int, Tensor] = {}

    def answer(self, j: int, state: Tensor) -> Tensor:
        """D(v) + J (u - v)."""
        if j not in self.kappa:
            return self.answers[j]
        step = flat(state - self.asked[j])
        q, r = self.q[j], self.r[j]
        along_q, along_r = ((v * step).sum(1, keepdim=True) for v in (q, r))
        change = step.mul_(self.kappa[j]).addcmul_(r, along_q).addcmul_(q, along_r)
        return self.answers[j] + change.reshape(state.shape)

    def learn(self, j: int, samples: Tensor, state: Tensor, d: Tensor) -> None:
        """The secant through the last two answers; none where there was no answer before."""
        if self.seen[j].any():
            step = flat(state - self.asked[j].index_select(0, samples))
            answer = flat(d - self.answers[j].index_select(0, samples))
            length = torch.linalg.vector_norm(step, dim=1, keepdim=True)
            known = length > 0
            if not self.seen[j].all():
                seen = torch.from_numpy(self.seen[j]).to(samples.device)
                known &= seen.index_select(0, samples)[:, None]
            q, p = (torch.where(known, v / length, 0.0) for v in (step, answer))
            kappa = (q * p).sum(1, keepdim=True)
            if j not in self.kappa:
                size = (self.batch, q.shape[1])
                self.kappa[j] = q.new_zeros(self.batch, 1)
                self.q[j], self.r[j] = q.new_zeros(size), q.new_zeros(size)
            new = (kappa, q, p - kappa * q)
            for kept, value in zip((self.kappa, self.q, self.r), new, strict=True):
                kept[j].index_copy_(0, samples, value)
        super().learn(j, samples, state, d)

    def forget(self, first: int) -> None:
        super().forget(first)
        for kept in (self.kappa, self.q, self.r):
            for j in [j for j in kept if j < first]:
                del kept[j]
