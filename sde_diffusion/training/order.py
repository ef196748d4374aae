"""Which samples are in the batch of a step: shuffled epochs, a function of (seed, step) alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .random import generator_at

EPOCH = 0  # the purpose of these random numbers


class Order:
    """One epoch after the other, each all the samples once, in an order of its own.

    Args:
        count: number of samples.
        batch_size: samples in a step; a batch may span two epochs, or many.
        seed: of the orders.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._epoch, self._shuffled = -1, torch.empty(0, dtype=torch.int64)  # the latest

    def indices(self, step: int) -> Tensor:
        """Numbers of the samples of step 0, 1, ..., int64, shape (batch_size,)."""
        first, parts = step * self.batch_size, []
        last = first + self.batch_size
        while first < last:
            epoch, offset = divmod(first, self.count)
            parts.append(self._order_of(epoch)[offset : offset + last - first])
            first += len(parts[-1])
        return torch.cat(parts)

    def _order_of(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = generator_at(self.seed, EPOCH, epoch)
            self._epoch, self._shuffled = epoch, torch.randperm(self.count, generator=generator)
        return self._shuffled
