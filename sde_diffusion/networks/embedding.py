"""What a network is told of the time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from .layers import linear


class TimeEmbedding(nn.Module):
    r"""Fourier features of a continuous time, then one layer: e_t = silu(W [sin, cos](2 pi nu t)).

    The frequencies nu run geometrically from 1/4 to `highest` cycles per unit of time: the lowest
    pair is an angle that tells all labels in (-2, 2) apart, so t in [0, 1] as well as
    log(sigma/alpha)/4 for sigma/alpha from 0.0004 to 2900; the highest tells labels apart that
    differ by 1/(4 highest).
    Vaswani et al., "Attention is all you need", 2017, arXiv:1706.03762, section 3.5, with
    frequencies for continuous times instead of integer positions.

    Args:
        size: numbers in e_t.
        bands: number of frequencies.
        highest: highest frequency, in cycles per unit of time.
        generator: source of the initial weights.
    """

    def __init__(
        self,
        size: int,
        bands: int = 16,
        highest: float = 64.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.bands, self.highest = bands, highest
        self.layer = linear(2 * bands, size, generator)

    def forward(self, t: Tensor, vector: Tensor | None = None) -> Tensor:
        """(batch,) -> (batch, size); what else is told, (batch, size), is added before silu."""
        # No buffer: a network cast to 16 bits must not round its frequencies, nor the time.
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        ends = math.log2(0.25), math.log2(self.highest)
        cycles = torch.logspace(*ends, self.bands, base=2.0, dtype=t.dtype, device=t.device)
        phase = 2 * math.pi * t[:, None] * cycles
        features = torch.cat([phase.sin(), phase.cos()], dim=1)
        told = self.layer(features.to(self.layer.weight.dtype))
        return silu(told if vector is None else told + vector)
