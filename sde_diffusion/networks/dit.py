r"""A diffusion transformer: an image as a sequence of patches.

Patches of p x p pixels become vectors of `width` numbers, one each, to which their place is added
as sines and cosines of row and column. With e the embedding of the time and of the condition, a
block is

    h <- h + gate_1(e) attention(norm(h) (1 + scale_1(e)) + shift_1(e)),
    h <- h + gate_2(e) W_2 gelu(W_1 (norm(h) (1 + scale_2(e)) + shift_2(e))),

with cross-attention between the two where the context is tokens. Scales, shifts and gates are
linear in e and start at zero (adaLN-Zero), as does the last layer: every block starts as the
identity. Peebles & Xie, "Scalable diffusion models with transformers", 2023, arXiv:2212.09748,
section 3.2; the patches are those of Dosovitskiy et al., "An image is worth 16x16 words", 2021,
arXiv:2010.11929.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, silu

from .attention import CrossAttention, SelfAttention
from .context import Condition, Told
from .embedding import TimeEmbedding
from .layers import linear
from .network import (
    Network,
    check_heads,
    check_images,
    check_sizes,
    check_time,
    image_channels,
    remember,
)


class DiTBlock(nn.Module):
    """Attention, then a layer for each patch alone, both modulated by e; the identity when new."""

    def __init__(
        self, width: int, heads: int, token_size: int | None, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.modulation = linear(width, 6 * width, None)
        self.attention = SelfAttention(width, heads, generator, zero=False)
        self.tokens = (
            None if token_size is None else CrossAttention(width, token_size, heads, generator)
        )
        self.expand = linear(width, 4 * width, generator)
        self.project = linear(4 * width, width, generator)

    def forward(self, h: Tensor, e: Tensor, told: Told) -> Tensor:
        """(batch, patches, width), (batch, width) -> (batch, patches, width)."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(e)[:, None].chunk(
            6, dim=-1
        )
        h = h + gate_1 * self.attention(_modulated(h, scale_1, shift_1))
        if self.tokens is not None:
            h = h + self.tokens(_normal(h), told)
        inner = gelu(self.expand(_modulated(h, scale_2, shift_2)), approximate="tanh")
        return h + gate_2 * self.project(inner)


class DiT(Network):
    """A diffusion transformer (Peebles & Xie 2023, arXiv:2212.09748).

    Images are (batch, channels, height, width), of any height and width that are multiples of the
    patch. `DiT(4, patch=2, width=384, depth=12, heads=6, classes=1000, outputs=2)` is DiT-S/2,
    33 million parameters.

    Args:
        channels: of the images.
        patch: pixels along the side of a patch.
        width: numbers for each patch; a multiple of 4 and of heads.
        depth: number of blocks.
        heads: attentions side by side.
        classes: number of classes, if the context is class labels.
        token_size: numbers in a token, if the context is sequences of tokens.
        condition_channels: of the image, if the context is one; it has the height and width of x,
            or numbers that divide them.
        outputs: 1, or 2 to predict a variance as well.
        seed: of the initial weights; torch's global generator is neither read nor moved.

    Raises:
        ValueError: if a size is not positive, or the width not a multiple of 4 and of heads.
    """

    def __init__(
        self,
        channels: int,
        patch: int = 2,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        classes: int | None = None,
        token_size: int | None = None,
        condition_channels: int | None = None,
        outputs: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.configuration = remember("dit", locals())
        check_sizes(
            outputs,
            channels=channels,
            patch=patch,
            width=width,
            depth=depth,
            heads=heads,
            classes=classes,
            token_size=token_size,
            condition_channels=condition_channels,
        )
        check_heads(width, heads)
        if width % 4:
            raise ValueError(
                f"width = {width} is not a multiple of 4: sines and cosines of rows and columns "
                "share it evenly"
            )
        self.channels, self.outputs, self.patch = channels, outputs, patch
        generator = torch.Generator().manual_seed(seed)
        self.time = TimeEmbedding(width, generator=generator)
        self.embed = linear(width, width, generator)
        self.condition = Condition(width, classes, token_size, condition_channels, generator)
        read = channels + (condition_channels or 0)
        self.enter = linear(read * patch**2, width, generator)
        self.blocks = nn.ModuleList(
            DiTBlock(width, heads, token_size, generator) for _ in range(depth)
        )
        self.modulation = linear(width, 2 * width, None)
        self.leave = linear(width, outputs * channels * patch**2, None)

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor | None = None, drop: Tensor | None = None
    ) -> Tensor:
        """The prediction at x_t; the arguments are those of `Network`.

        Raises:
            ValueError: if x, t, the context or drop has another shape, or a label is out of range.
            TypeError: if t is not floating point, or the context of another kind.
        """
        check_images(x, self.channels, self.patch, f"this DiT reads patches of side {self.patch}")
        check_time(x, t)
        told = self.condition(context, drop, x)
        e = silu(self.embed(self.time(t, told.vector)))
        rows, columns = (side // self.patch for side in x.shape[2:])
        h = self.enter(_patches(told.beside(x.to(self.enter.weight.dtype)), self.patch))
        h = h + _places(rows, columns, h.shape[-1], h.device).to(h.dtype)
        for block in self.blocks:
            h = block(h, e, told)
        shift, scale = self.modulation(e)[:, None].chunk(2, dim=-1)
        out = self.leave(_modulated(h, scale, shift))
        return _image(out, rows, columns, self.patch).to(x.dtype)

    @staticmethod
    def arguments_for(event_shape: Sequence[int]) -> dict[str, Any]:
        return image_channels(event_shape)


def _normal(h: Tensor) -> Tensor:
    return layer_norm(h, h.shape[-1:])


def _modulated(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return _normal(h) * (1 + scale) + shift


def _patches(x: Tensor, p: int) -> Tensor:
    """(batch, channels, rows p, columns p) -> (batch, rows columns, channels p p)."""
    batch, channels, height, width = x.shape
    rows, columns = height // p, width // p
    apart = x.reshape(batch, channels, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5)
    return apart.reshape(batch, rows * columns, channels * p * p)


def _image(h: Tensor, rows: int, columns: int, p: int) -> Tensor:
    """The inverse of `_patches`."""
    channels = h.shape[-1] // (p * p)
    together = h.reshape(len(h), rows, columns, channels, p, p).permute(0, 3, 1, 4, 2, 5)
    return together.reshape(len(h), channels, rows * p, columns * p)


def _places(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """[sin, cos](i nu_k) of row, then of column, (rows * columns, width); nu_k = 10^(-4k/K)."""
    count = width // 4
    nu = torch.logspace(0, -4 * (count - 1) / count, count, device=device)
    halves = []
    for i in (
        torch.arange(rows, device=device).repeat_interleave(columns),
        torch.arange(columns, device=device).repeat(rows),
    ):
        phase = i[:, None] * nu
        halves += [phase.sin(), phase.cos()]
    return torch.cat(halves, dim=1)
