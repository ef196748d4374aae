r"""A convolutional autoencoder for images of any size that its strides divide.

Made of the blocks of the U-Net, without its bridges and without a time:

    encoder:  enter -> [block .. block, halve] per level -> middle -> (m, log s^2),
    decoder:  enter -> middle -> [block .. block, double] per level, coarsest first -> x_hat,

with one block more a level in the decoder, and neither halving nor doubling at the coarsest. Thus
an image (channels, H, W) has latents (latent, H/f, W/f) with f = patch 2^(levels - 1). With a patch
larger than 1 the image enters as patch x patch squares, each a vector of patch^2 channels numbers,
and leaves in the same way: a rearrangement, which spares the costly convolutions at full size.

Blocks begin as the identity, and there is no norm before the last convolutions: a new autoencoder
is an affine map, and training begins where principal components do. A norm there takes brightness
and colour out of simple images, which are then learned late.

Rombach, Blattmann, Lorenz, Esser & Ommer, "High-resolution image synthesis with latent diffusion
models", 2022, arXiv:2112.10752, with their two regularisations left to the objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Block, Double, Halve
from .encoding import Autoencoding, Posterior
from .layers import convolution
from .network import check_heads, check_images, check_sizes, image_channels, remember


class Autoencoder(Autoencoding):
    """Images to posteriors of latents and back (Rombach et al. 2022, arXiv:2112.10752).

    Args:
        channels: of the images.
        latent: channels of the latents.
        width: channels at the finest level.
        multipliers: of the width at each level, finest first; each level but the first halves
            height and width.
        blocks: residual blocks a level in the encoder; the decoder has one more.
        patch: side of the squares as which the image enters and leaves.
        attention: whether there is self-attention between the two middle blocks.
        heads: attentions side by side.
        dropout: share of features dropped in training, by torch's global generator.
        variational: whether a sample has a normal law of latents; else it has one point.
        seed: of the initial weights; torch's global generator is neither read nor moved.

    Raises:
        ValueError: if a size is not positive, or heads do not fit.
    """

    def __init__(
        self,
        channels: int,
        latent: int = 4,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        patch: int = 1,
        attention: bool = False,
        heads: int = 1,
        dropout: float = 0.0,
        variational: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.configuration = remember("conv", locals())
        check_sizes(
            dropout=dropout,
            channels=channels,
            latent=latent,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            patch=patch,
            heads=heads,
        )
        if not multipliers:
            raise ValueError("multipliers is empty: give one for each level, as in (1, 2)")
        sizes = [width * multiplier for multiplier in multipliers]
        check_heads(sizes[-1], heads if attention else 1, "channels at the coarsest level")
        self.channels, self.latent, self.patch = channels, latent, patch
        self.variational = bool(variational)
        self.stride = patch * 2 ** (len(sizes) - 1)
        generator = torch.Generator().manual_seed(seed)
        block = partial(
            Block,
            embedding=None,
            heads=heads,
            dropout=dropout,
            token_size=None,
            generator=generator,
        )
        middle = lambda: [block(sizes[-1], sizes[-1], attends=one) for one in (attention, False)]
        numbers = channels * patch**2  # of a square
        down: list[nn.Module] = [convolution(numbers, sizes[0], 3, generator)]
        now = sizes[0]
        for level, size in enumerate(sizes):
            if level:
                down.append(Halve(now, generator))
            for _ in range(blocks):
                down.append(block(now, size, attends=False))
                now = size
        down += middle()
        down.append(convolution(now, latent * (2 if variational else 1), 3, generator))
        up: list[nn.Module] = [convolution(latent, now, 3, generator), *middle()]
        for level, size in reversed(list(enumerate(sizes))):
            for _ in range(blocks + 1):
                up.append(block(now, size, attends=False))
                now = size
            if level:
                up.append(Double(now, generator))
        up.append(convolution(now, numbers, 3, generator))
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)

    def encode(self, x: Tensor) -> Posterior:
        """q(z|x) of images (batch, channels, height, width), in their dtype.

        Raises:
            ValueError: if x has other channels, or sides that the strides do not divide.
        """
        check_images(
            x, self.channels, self.stride, f"this autoencoder divides sides by {self.stride}"
        )
        # In x's dtype, also where the layers compute in 16 bits: the divergence needs more.
        h = self.encoder(squares(x, self.patch).to(self._dtype)).to(x.dtype)
        return Posterior(*h.chunk(2, dim=1)) if self.variational else Posterior(h)

    def decode(self, z: Tensor) -> Tensor:
        """x_hat(z), (batch, channels, height, width), of latents of 1/stride of this size.

        Raises:
            ValueError: if z has other channels.
        """
        if z.ndim != 4 or z.shape[1] != self.latent:
            raise ValueError(
                f"latents of shape {tuple(z.shape)}, but this autoencoder decodes (batch, "
                f"{self.latent}, height, width)"
            )
        return pixels(self.decoder(z.to(self._dtype)).to(z.dtype), self.patch)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @staticmethod
    def arguments_for(event_shape: Sequence[int]) -> dict[str, Any]:
        """The arguments of the constructor that the shape of the data settles."""
        return image_channels(event_shape)


def squares(x: Tensor, side: int) -> Tensor:
    """Images as squares, (n, C, H, W) -> (n, C side^2, H/side, W/side); of no image too.

    torch's `pixel_unshuffle` and `pixel_shuffle` give an empty batch the wrong shape.
    """
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // side, side, width // side, side)
    x = x.permute(0, 1, 3, 5, 2, 4)
    return x.reshape(n, channels * side**2, height // side, width // side)


def pixels(x: Tensor, side: int) -> Tensor:
    """Squares as images, the inverse of `squares`."""
    n, numbers, height, width = x.shape
    x = x.reshape(n, numbers // side**2, side, side, height, width)
    x = x.permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, numbers // side**2, height * side, width * side)
