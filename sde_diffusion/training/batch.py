"""What a training step is given, and what it answers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Clean samples, and the condition of each.

    Attributes:
        x: clean samples, floating point, shape (batch, *event).
        context: class labels, int64, shape (batch,), tokens, shape (batch, length, size), or
            images, shape (batch, channels, rows, columns); None where the data have no condition.
    """

    x: Tensor
    context: Tensor | None = None


class Losses(NamedTuple):
    """The losses of the samples of a batch.

    Attributes:
        loss: what is minimised, one a sample, shape (batch,), with a graph to the weights.
        lambda_: half-log-SNR at which each was taken, float64, shape (batch,); None if there is no
            such thing.
        error: the same error in one unit for all objectives, |eps - eps_hat|^2/d, shape (batch,),
            detached: what progress is told in; None if there is no such thing.
    """

    loss: Tensor
    lambda_: Tensor | None = None
    error: Tensor | None = None
