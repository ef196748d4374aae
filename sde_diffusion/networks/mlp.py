r"""A small network for events of any shape: a residual MLP that is told the time.

The event is flattened to a vector x of d numbers. With e_t an embedding of the time label t and of
the condition, every block reads a state h of `width` numbers and adds to it,

    h <- h + W_2 silu(W_1 (norm(h) (1 + scale(e_t)) + shift(e_t))),

and the output is F(h, t) + skip(e_t) x. The skip makes the noisy end easy: there x_t is almost
the noise itself, and eps = x is one number to learn instead of d coordinates to copy.

Modulating the normalised state by the time is Perez et al., "FiLM: Visual reasoning with a
general conditioning layer", 2018, arXiv:1709.07871, in the place that Peebles & Xie, "Scalable
diffusion models with transformers", 2023, arXiv:2212.09748, section 3.2, found best; as they do,
W_2 and the output start at zero, so that every block starts as the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from .context import Condition
from .embedding import TimeEmbedding
from .layers import linear
from .network import Network, check_lists, check_sizes, check_time, remember


class ResidualBlock(nn.Module):
    """h + W_2 silu(W_1 (norm(h) (1 + scale(e_t)) + shift(e_t))); the identity when new."""

    def __init__(
        self, width: int, hidden: int, embedding: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.modulation = linear(embedding, 2 * width, generator)
        self.expand = linear(width, hidden, generator)
        self.project = linear(hidden, width, None)

    def forward(self, h: Tensor, e_t: Tensor) -> Tensor:
        """(batch, width), (batch, embedding) -> (batch, width)."""
        scale, shift = self.modulation(e_t).chunk(2, dim=1)
        normal = layer_norm(h, h.shape[1:])
        return h + self.project(silu(self.expand(torch.addcmul(normal + shift, normal, scale))))


class ResidualMLP(Network):
    """A residual network on flattened events, modulated by the time and the condition.

    What it predicts (noise, data, velocity) is settled by its training, not by its form.

    Args:
        event_shape: shape of one event, x.shape[1:]; () for scalars.
        width: size of the residual state.
        depth: number of residual blocks.
        hidden: size of the hidden layer of each block; default `width`.
        embedding: size of the embedding of the time and the condition.
        classes: number of classes, if the context is class labels.
        token_size: numbers in a token, if the context is sequences of tokens; the network is told
            of all the tokens of a sample by one vector.
        condition_channels: of the image, if the context is one; it has the height and width of x,
            or numbers that divide them.
        outputs: 1, or 2 to predict a variance as well.
        seed: of the initial weights; torch's global generator is neither read nor moved.

    Raises:
        TypeError: if a list is not one.
        ValueError: if a size is not positive, two outputs are asked for scalars, or an image is to
            lie beside what is no image.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        width: int = 256,
        depth: int = 4,
        hidden: int | None = None,
        embedding: int = 64,
        classes: int | None = None,
        token_size: int | None = None,
        condition_channels: int | None = None,
        outputs: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.configuration = remember("mlp", locals())
        check_lists(event_shape=event_shape)
        self.event_shape, self.outputs = tuple(event_shape), outputs
        hidden = width if hidden is None else hidden
        check_sizes(
            outputs,
            event_shape=self.event_shape,
            width=width,
            depth=depth,
            hidden=hidden,
            embedding=embedding,
            classes=classes,
            token_size=token_size,
            condition_channels=condition_channels,
        )
        if outputs == 2 and not self.event_shape:
            raise ValueError(
                "scalars have no channels to give twice: for outputs = 2 use event_shape (1,)"
            )
        if condition_channels is not None and len(self.event_shape) != 3:
            raise ValueError(
                f"condition_channels = {condition_channels} with event_shape = {self.event_shape}: "
                "an image lies beside images (channels, height, width); for a condition of other "
                "numbers give them as one token, (batch, 1, token_size)"
            )
        generator = torch.Generator().manual_seed(seed)
        self.dimension = math.prod(self.event_shape)
        self.time = TimeEmbedding(embedding, generator=generator)
        read = self.dimension + (condition_channels or 0) * math.prod(self.event_shape[1:])
        self.enter = linear(read, width, generator)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, hidden, embedding, generator) for _ in range(depth)
        )
        self.leave = linear(width, outputs * self.dimension, None)
        self.skip = linear(embedding, 1, None)
        self.condition = Condition(embedding, classes, token_size, condition_channels, generator)

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor | None = None, drop: Tensor | None = None
    ) -> Tensor:
        """The prediction at x_t; the arguments are those of `Network`.

        Raises:
            ValueError: if x, t, the context or drop has another shape, or a label is out of range.
            TypeError: if t is not floating point, or the context of another kind.
        """
        self._check(x)
        check_time(x, t)
        told = self.condition(context, drop, x)
        e = self.time(t, told.vector)
        x_t = x.to(self.enter.weight.dtype)
        flat = x_t.reshape(len(x), self.dimension)
        h = self.enter(flat if told.image is None else told.beside(x_t).flatten(1))
        for block in self.blocks:
            h = block(h, e)
        out = self.leave(silu(layer_norm(h, h.shape[1:])))
        prediction = out[:, : self.dimension] + self.skip(e) * flat
        if self.outputs == 1:
            return prediction.reshape(x.shape).to(x.dtype)
        both = torch.cat([prediction, out[:, self.dimension :]], dim=1)
        return both.reshape(len(x), 2 * x.shape[1], *x.shape[2:]).to(x.dtype)

    @staticmethod
    def arguments_for(event_shape: Sequence[int]) -> dict[str, Any]:
        return {"event_shape": list(event_shape)}

    def _check(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.event_shape or x.ndim == 0:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, but this network was built for (batch, "
                f"*{self.event_shape}); reshape x, or build ResidualMLP({tuple(x.shape[1:])}, ...)"
            )
