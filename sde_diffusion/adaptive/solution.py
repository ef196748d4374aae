"""What a solver of the second kind answers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """The last state, and what it cost.

    Attributes:
        x: the last state, shape (batch, *event).
        nfe: how many times the denoiser was called, whatever the number of samples in a call.
        nfe_per_sample: in how many of these calls each sample took part, (batch,), int64; None
            where all samples took part in all of them.
    """

    x: Tensor
    nfe: int
    nfe_per_sample: Tensor | None = None
