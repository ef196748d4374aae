"""Layers with weights drawn from a generator, so that a seed means one network."""

from __future__ import annotations

import torch
from torch import nn


def linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer: W ~ U(-1/sqrt(inputs), 1/sqrt(inputs)), b = 0; zero without a generator."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    if generator is None:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
