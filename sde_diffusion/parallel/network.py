"""The denoiser asked at many rows of a plan at once: one batch, chunks of it, several devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..denoise import Denoiser, FunctionDenoiser, wrong_output
from ..scalar import Scalar

AnyDenoiser = Denoiser | Callable[[Tensor, Scalar], Tensor]


class Network:
    """d = E[x_0 | x_t] at any rows of a plan, each with a time of its own.

    A denoiser that takes one time a sample gets all rows in one call. A plain function
    (x, t) -> E[x_0 | x_t], of which that is not known, is asked once for each time.

    Args:
        denoisers: the same model once, or once on each of several devices.
        times: when each network call of the plan takes place, `plan.asked_at`.
        batch_limit: the most states in one call; None: no limit.

    Attributes:
        calls: batched calls so far.
        evaluations: states so far, all calls together.
    """

    def __init__(
        self, denoisers: Sequence[AnyDenoiser], times: Sequence[float], batch_limit: int | None
    ) -> None:
        self.denoisers, self.batch_limit = denoisers, batch_limit
        self.times = torch.tensor(times, dtype=torch.float64)
        self.calls = self.evaluations = 0

    def __call__(self, x: Tensor, rows: np.ndarray) -> Tensor:
        """d at the states.

        Args:
            x: states, (m, *event).
            rows: (m,), the number of the plan's network call that each state is for, increasing.

        Returns:
            d, (m, *event), a tensor of its own, on x's device and in its dtype.
        """
        self.evaluations += len(x)
        parts = list(self._parts(rows))
        self.calls += len(parts)
        if len(self.denoisers) == 1:
            return torch.cat([self._ask(self.denoisers[0], x, rows, *part) for part in parts])
        with torch.no_grad(), ThreadPoolExecutor(len(self.denoisers)) as pool:
            turn = [self.denoisers[i % len(self.denoisers)] for i in range(len(parts))]
            jobs = [
                pool.submit(self._ask, denoiser, x, rows, *part)
                for denoiser, part in zip(turn, parts, strict=True)
            ]
            return torch.cat([job.result() for job in jobs])

    def _parts(self, rows: np.ndarray) -> list[tuple[int, int]]:
        """Where each call begins and ends: by devices, by the limit, and by time if need be."""
        edges = {0, len(rows)}
        if not all(map(_per_sample, self.denoisers)):
            edges |= set((np.flatnonzero(np.diff(rows)) + 1).tolist())
        share = -(-len(rows) // len(self.denoisers))
        size = min(share, self.batch_limit or share)
        for begin in sorted(edges)[:-1]:
            end = min(edge for edge in edges if edge > begin)
            edges |= set(range(begin, end, size))
        marks = sorted(edges)
        return list(pairwise(marks))

    def _ask(
        self, denoiser: AnyDenoiser, x: Tensor, rows: np.ndarray, begin: int, end: int
    ) -> Tensor:
        device = getattr(denoiser, "device", None) or x.device
        states = x[begin:end].to(device)
        index = torch.from_numpy(rows[begin:end])
        with torch.no_grad():
            if _per_sample(denoiser):
                d = denoiser(states, self.times[index].to(device))
            else:
                d = denoiser(states, float(self.times[index[0]]))
        if not isinstance(d, Tensor) or d.shape != states.shape:
            raise ValueError(wrong_output(d, states))
        return d.to(x)


def _per_sample(denoiser: AnyDenoiser) -> bool:
    """Whether a denoiser is known to take one time a sample."""
    if isinstance(denoiser, FunctionDenoiser):
        return denoiser.per_sample
    return isinstance(denoiser, Denoiser)
