"""Layers with weights drawn from a generator, so that a seed means one network."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer: W ~ U(-1/sqrt(inputs), 1/sqrt(inputs)), b = 0; zero without a generator."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    return _drawn(layer, inputs, generator)


def convolution(
    inputs: int, outputs: int, size: int, generator: torch.Generator | None, stride: int = 1
) -> nn.Conv2d:
    """A convolution of images that keeps their size (over stride), drawn as a linear layer is."""
    layer = nn.utils.skip_init(
        nn.Conv2d, inputs, outputs, kernel_size=size, stride=stride, padding=size // 2
    )
    return _drawn(layer, inputs * size * size, generator)


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups, of at least 4 channels where there are as many."""
    largest = min(32, max(1, channels // 4))
    return nn.GroupNorm(next(n for n in range(largest, 0, -1) if channels % n == 0), channels)


def _drawn(layer: Layer, inputs: int, generator: torch.Generator | None) -> Layer:
    bound = inputs**-0.5
    if generator is None:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
