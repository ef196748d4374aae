"""What the losses were: of every step, and by half-log-SNR; read from the device now and then.

Reading a number back makes the host wait for the device, so the losses of a step stay where they
are until some steps' are read together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .batch import Losses

EDGES = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # of the bins of lambda
NAMES = ("< -6", *(f"{low:g}..{low + 2:g}" for low in EDGES[:-1]), "> 6")


class Record:
    """The losses of a run.

    Attributes:
        losses: mean loss of the batch at every step that was read.
        sums: per bin of lambda, the sum of the errors and their number, since the last line.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.sums = np.zeros((len(NAMES), 2))
        self._waiting: list[list[Losses]] = []

    def note(self, parts: Sequence[Losses]) -> None:
        """The losses of the parts of one step, not read yet."""
        detached = (Losses(loss.detach().mean(), *rest) for loss, *rest in parts)
        self._waiting.append(list(detached))

    def read(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Wait for the device, and take what was noted.

        Args:
            gather: a tensor of this process -> those of all processes, along the first axis.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        own = [part for step in waiting for part in step]

        def together(values: list[Tensor]) -> np.ndarray:
            """(step, part, ...), with the parts of all processes in their order."""
            shape = (-1, len(waiting), len(waiting[0]), *values[0].shape)  # (process, step, part)
            by_process = gather(torch.stack(values)).cpu().double().numpy().reshape(shape)
            by_step = by_process.swapaxes(0, 1)
            return by_step.reshape(len(waiting), -1, *values[0].shape)

        self.losses += together([part.loss for part in own]).mean(1).tolist()
        if all(part.lambda_ is not None and part.error is not None for part in own):
            lambdas = together([part.lambda_ for part in own if part.lambda_ is not None])
            errors = together([part.error for part in own if part.error is not None])
            for lambda_, error in zip(lambdas, errors, strict=True):
                bins = np.digitize(lambda_.ravel(), EDGES)
                self.sums[:, 0] += np.bincount(bins, error.ravel(), len(NAMES))
                self.sums[:, 1] += np.bincount(bins, minlength=len(NAMES))

    def by_lambda(self, begin_anew: bool) -> dict[str, float]:
        """The mean error in each bin of lambda that has any."""
        sums = self.sums
        if begin_anew:
            self.sums = np.zeros_like(sums)
        return {
            name: float(total / count)
            for name, (total, count) in zip(NAMES, sums, strict=True)
            if count
        }

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` takes."""
        return {
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "errors_by_lambda": torch.from_numpy(self.sums.copy()),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take what `tensors` gave."""
        self.losses = state["losses"].tolist()
        self.sums = state["errors_by_lambda"].numpy().copy()
