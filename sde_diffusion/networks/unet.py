r"""The U-Net of DDPM, for images of any size.

An image goes down through levels of ever coarser resolution and up again, and on its way up meets
what was kept on its way down:

    enter -> [block .. block, halve] per level -> middle -> [block .. block, double] -> leave,

every block on the way up seeing h next to one kept state. A block is

    h <- skip(h) + C_2 silu(norm(C_1 silu(norm(h)) + W e)),

with 3 x 3 convolutions C, group norm, and e the embedding of the time and of the condition, added
to every pixel; at chosen levels, and always in the middle, it is followed by self-attention over
the pixels, and by cross-attention to tokens where the context is tokens.

Ho, Jain & Abbeel, "Denoising diffusion probabilistic models", 2020, arXiv:2006.11239, appendix B;
Ronneberger, Fischer & Brox, "U-Net", 2015, arXiv:1505.04597. As in DDPM the last layer of every
block and of the network starts at zero. A class is added to the time as in Dhariwal & Nichol,
"Diffusion models beat GANs on image synthesis", 2021, arXiv:2105.05233.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint

from .blocks import Block, Double, Halve
from .context import Condition
from .embedding import TimeEmbedding
from .layers import convolution, group_norm, linear
from .network import (
    Network,
    check_heads,
    check_images,
    check_lists,
    check_sizes,
    check_time,
    image_channels,
    remember,
)


class UNet(Network):
    """The U-Net of DDPM (Ho, Jain & Abbeel 2020, arXiv:2006.11239), with conditions.

    Images are (batch, channels, height, width), of any height and width that are multiples of
    2^(levels - 1). `UNet(3, width=128, multipliers=(1, 2, 2, 2), attention=(1,), dropout=0.1)` is
    the network of DDPM for CIFAR-10, 35.7 million parameters.

    Args:
        channels: of the images.
        width: channels at full resolution; the time is embedded in 4 width numbers.
        multipliers: of the width at each level, finest first; their number is that of levels.
        blocks: residual blocks a level on the way down; one more on the way up.
        attention: levels whose blocks attend, 0 the finest. The middle always does.
        heads: attentions side by side; must divide the channels wherever there is attention.
        dropout: share of features dropped in training, by torch's global generator.
        classes: number of classes, if the context is class labels.
        token_size: numbers in a token, if the context is sequences of tokens.
        condition_channels: of the image, if the context is one; it has the height and width of x,
            or numbers that divide them.
        outputs: 1, or 2 to predict a variance as well.
        recompute: compute blocks twice in training instead of keeping what is inside them: less
            memory, about a third more time.
        seed: of the initial weights; torch's global generator is neither read nor moved.

    Raises:
        TypeError: if a list is not one.
        ValueError: if a size is not positive, a level does not exist, or heads do not fit.
    """

    def __init__(
        self,
        channels: int,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (),
        heads: int = 1,
        dropout: float = 0.0,
        classes: int | None = None,
        token_size: int | None = None,
        condition_channels: int | None = None,
        outputs: int = 1,
        recompute: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.configuration = remember("unet", locals())
        check_lists(multipliers=multipliers, attention=attention)
        check_sizes(
            outputs,
            dropout,
            channels=channels,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            heads=heads,
            classes=classes,
            token_size=token_size,
            condition_channels=condition_channels,
        )
        self.channels, self.outputs, self.recompute = channels, outputs, recompute
        sizes = [width * multiplier for multiplier in multipliers]
        self._check_levels(sizes, attention, heads)
        generator = torch.Generator().manual_seed(seed)
        embedding = 4 * width
        self.time = TimeEmbedding(embedding, generator=generator)
        self.embed = linear(embedding, embedding, generator)
        self.condition = Condition(embedding, classes, token_size, condition_channels, generator)
        block = partial(
            Block,
            embedding=embedding,
            heads=heads,
            dropout=dropout,
            token_size=token_size,
            generator=generator,
        )
        # Channels of the states that are kept on the way down, in their order.
        kept = [width]
        self.enter = convolution(channels + (condition_channels or 0), width, 3, generator)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, size in enumerate(sizes):
            if level:
                self.down.append(Halve(kept[-1], generator))
                kept.append(kept[-1])
            for _ in range(blocks):
                self.down.append(block(kept[-1], size, attends=level in attention))
                kept.append(size)
        now = sizes[-1]
        self.middle = nn.ModuleList(block(now, now, attends=first) for first in (True, False))
        for level, size in reversed(list(enumerate(sizes))):
            for _ in range(blocks + 1):
                self.up.append(block(now + kept.pop(), size, attends=level in attention))
                now = size
            if level:
                self.up.append(Double(now, generator))
        self.norm = group_norm(now)
        self.leave = convolution(now, outputs * channels, 3, None)

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor | None = None, drop: Tensor | None = None
    ) -> Tensor:
        """The prediction at x_t; the arguments are those of `Network`.

        Raises:
            ValueError: if x, t, the context or drop has another shape, or a label is out of range.
            TypeError: if t is not floating point, or the context of another kind.
        """
        stride = 2 ** (len(self.configuration["multipliers"]) - 1)
        check_images(x, self.channels, stride, "this U-Net halves the resolution at every level")
        check_time(x, t)
        told = self.condition(context, drop, x)
        e = silu(self.embed(self.time(t, told.vector)))
        h = self.enter(told.beside(x.to(self.enter.weight.dtype)))
        kept = [h]
        for layer in self.down:
            h = self._through(layer, h, e, told)
            kept.append(h)
        for layer in self.middle:
            h = self._through(layer, h, e, told)
        for layer in self.up:
            if isinstance(layer, Block):
                h = torch.cat([h, kept.pop()], dim=1)
            h = self._through(layer, h, e, told)
        return self.leave(silu(self.norm(h))).to(x.dtype)

    def _through(self, layer: nn.Module, *inputs: Any) -> Tensor:
        if self.recompute and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    @staticmethod
    def arguments_for(event_shape: Sequence[int]) -> dict[str, Any]:
        return image_channels(event_shape)

    @staticmethod
    def _check_levels(sizes: list[int], attention: Sequence[int], heads: int) -> None:
        if not sizes:
            raise ValueError("multipliers is empty: give one for each level, as in (1, 2, 2)")
        for level in attention:
            if type(level) is not int or not 0 <= level < len(sizes):
                raise ValueError(
                    f"attention names level {level!r}, but the levels are 0 .. {len(sizes) - 1}, "
                    "finest first"
                )
        for level in {*attention, len(sizes) - 1}:
            check_heads(sizes[level], heads, f"channels at level {level}")
