"""The denoiser asked at many rows of a plan at once: one batch, chunks of it, several devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..answers import wrong_output
from ..denoise import Denoiser, FunctionDenoiser
from ..scalar import Scalar
from ..schedule import Schedule

AnyDenoiser = Denoiser | Callable[[Tensor, Scalar], Tensor]


class Conditioned(Denoiser):
    """A denoiser with a condition for each sample of the batch: a label, a text, an image.

    Asked at many rows at once, a network sees the states of one sample several times, so its
    conditions must be repeated in the same way; this says how:

        Conditioned(lambda i: NetworkDenoiser(lambda x, t: unet(x, t, labels[i]), schedule),
                    schedule)

    Args:
        at: a function of the sample's number for each state, (m,), int64, on the states' device,
            to the denoiser of those m states.
        schedule: the alpha_t, sigma_t that it is meant for.
    """

    def __init__(self, at: Callable[[Tensor], AnyDenoiser], schedule: Schedule) -> None:
        self.at, self.schedule = at, schedule

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        return self.at(torch.arange(len(x), device=x.device))(x, t)

    def select(self, who: Tensor) -> Denoiser:
        found = self.at(who)
        return found if isinstance(found, Denoiser) else FunctionDenoiser(found, self.schedule)


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

    def __call__(self, x: Tensor, rows: np.ndarray, samples: Tensor) -> Tensor:
        """d at the states.

        Args:
            x: states, (m, *event).
            rows: (m,), the number of the plan's network call that each state is for, increasing.
            samples: (m,), int64, on x's device: the sample that each state is of.

        Returns:
            d, (m, *event), a tensor of its own, on x's device and in its dtype.
        """
        parts = self._parts(rows)
        self.evaluations += len(x)
        self.calls += len(parts)

        def ask(number: int) -> Tensor:
            part = slice(*parts[number])
            denoiser = self.denoisers[number % len(self.denoisers)]
            return self._ask(denoiser, x[part], rows[part], samples[part])

        if len(self.denoisers) == 1:
            return torch.cat([ask(number) for number in range(len(parts))])
        with ThreadPoolExecutor(len(self.denoisers)) as pool:
            return torch.cat(list(pool.map(ask, range(len(parts)))))

    def _parts(self, rows: np.ndarray) -> list[tuple[int, int]]:
        """Where each call begins and ends: in even shares, within the limit, of one time if so."""
        count = len(rows)
        size = min(-(-count // len(self.denoisers)), self.batch_limit or count)
        blocks = [0, count]
        if not all(map(_takes_times, self.denoisers)):
            blocks = [0, *(np.flatnonzero(np.diff(rows)) + 1).tolist(), count]
        marks = [mark for begin, end in pairwise(blocks) for mark in range(begin, end, size)]
        return list(pairwise([*marks, count]))

    def _ask(self, denoiser: AnyDenoiser, x: Tensor, rows: np.ndarray, samples: Tensor) -> Tensor:
        times = self.times[torch.from_numpy(rows)]
        if isinstance(denoiser, Denoiser):
            chosen = denoiser.select(samples)  # conditions are repeated as the states are
            blocks = np.flatnonzero(np.diff(rows)) + 1
            if len(blocks) and not _takes_times(chosen):
                self.calls += len(blocks)
                parts = [slice(*ends) for ends in pairwise([0, *blocks.tolist(), len(rows)])]
                return torch.cat([self._ask(denoiser, x[p], rows[p], samples[p]) for p in parts])
            denoiser = chosen
        device = getattr(denoiser, "device", None) or x.device
        states = x.to(device)
        with torch.no_grad():  # here, as each thread has a mode of its own
            d = denoiser(states, times.to(device) if _takes_times(denoiser) else float(times[0]))
        if not isinstance(d, Tensor) or d.shape != states.shape:
            raise ValueError(wrong_output(d, states))
        return d.to(x)


def _takes_times(denoiser: AnyDenoiser) -> bool:
    """Whether a denoiser is known to take one time a sample."""
    if isinstance(denoiser, FunctionDenoiser):
        return denoiser.per_sample
    return isinstance(denoiser, Denoiser)
