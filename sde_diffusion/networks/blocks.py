"""What networks for images are made of: residual blocks, attention, halving and doubling.

Each is a map h -> h of images, told e, the embedding of the time and of the condition, and the
tokens of the condition; in an autoencoder, nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, interpolate, silu

from .attention import CrossAttention, SelfAttention
from .context import Told
from .layers import convolution, group_norm, linear

UNTOLD = Told()


class Block(nn.Module):
    """skip(h) + C_2 silu(norm(C_1 silu(norm(h)) + W e)), then attention; skip(h) when new.

    With embedding = None it is told neither time nor condition: there is no W e.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int | None,
        attends: bool,
        heads: int,
        dropout: float,
        token_size: int | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.first_norm = group_norm(inputs)
        self.first = convolution(inputs, outputs, 3, generator)
        self.told = None if embedding is None else linear(embedding, outputs, generator)
        self.second_norm = group_norm(outputs)
        self.second = convolution(outputs, outputs, 3, None)
        self.skip = (
            nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1, generator)
        )
        self.attention = Attention(outputs, heads, token_size, generator) if attends else None

    def forward(self, h: Tensor, e: Tensor | None = None, told: Told = UNTOLD) -> Tensor:
        """(batch, inputs, height, width) -> (batch, outputs, height, width)."""
        inner = self.first(silu(self.first_norm(h)))
        if self.told is not None:
            inner = inner + self.told(e)[:, :, None, None]
        inner = dropout(silu(self.second_norm(inner)), self.dropout, self.training)
        h = self.skip(h) + self.second(inner)
        return h if self.attention is None else self.attention(h, told)


class Attention(nn.Module):
    """h + self-attention(norm(h)) over the pixels, then the same to tokens; h when new."""

    def __init__(
        self, channels: int, heads: int, token_size: int | None, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.pixels_norm = group_norm(channels)
        self.pixels = SelfAttention(channels, heads, generator)
        self.tokens = None
        if token_size is not None:
            self.tokens_norm = group_norm(channels)
            self.tokens = CrossAttention(channels, token_size, heads, generator)

    def forward(self, h: Tensor, told: Told) -> Tensor:
        """(batch, channels, height, width) -> the same."""
        flat = h.flatten(2)
        flat = flat + self.pixels(self.pixels_norm(flat).mT).mT
        if self.tokens is not None:
            flat = flat + self.tokens(self.tokens_norm(flat).mT, told).mT
        return flat.reshape(h.shape)


class Halve(nn.Module):
    """Half the resolution, by a convolution of stride 2."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = convolution(channels, channels, 3, generator, stride=2)

    def forward(self, h: Tensor, e: Tensor | None = None, told: Told = UNTOLD) -> Tensor:
        return self.layer(h)


class Double(nn.Module):
    """Twice the resolution: every pixel four times, then a convolution."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = convolution(channels, channels, 3, generator)

    def forward(self, h: Tensor, e: Tensor | None = None, told: Told = UNTOLD) -> Tensor:
        return self.layer(interpolate(h, scale_factor=2.0, mode="nearest"))
