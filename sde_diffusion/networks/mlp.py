r"""A small noise predictor for events of any shape: a residual MLP that is told the time.

The event is flattened to a vector x of d numbers. With e_t an embedding of the time label t,
every block reads a state h of `width` numbers and adds to it,

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

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from .embedding import TimeEmbedding
from .layers import linear


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


class ResidualMLP(nn.Module):
    """A residual network on flattened events, modulated by the time; `network(x, t)` like x.

    What it predicts (noise, data, velocity) is settled by its training, not by its form.

    Args:
        event_shape: shape of one event, x.shape[1:]; () for scalars.
        width: size of the residual state.
        depth: number of residual blocks.
        hidden: size of the hidden layer of each block; default `width`.
        embedding: size of the time embedding.
        seed: of the initial weights; torch's global generator is neither read nor moved.

    Raises:
        ValueError: if a size is not positive.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        width: int = 256,
        depth: int = 4,
        hidden: int | None = None,
        embedding: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        hidden = width if hidden is None else hidden
        if min(width, depth, hidden, embedding, *self.event_shape) < 1:
            raise ValueError(
                f"event_shape = {self.event_shape}, width = {width}, depth = {depth}, hidden = "
                f"{hidden}, embedding = {embedding}: every size must be at least 1"
            )
        generator = torch.Generator().manual_seed(seed)
        self.dimension = math.prod(self.event_shape)
        self.time = TimeEmbedding(embedding, generator=generator)
        self.enter = linear(self.dimension, width, generator)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, hidden, embedding, generator) for _ in range(depth)
        )
        self.leave = linear(width, self.dimension, None)
        self.skip = linear(embedding, 1, None)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The prediction at x_t.

        Args:
            x: states x_t, shape (batch, *event_shape).
            t: time labels, floating point, shape (batch,), in [0, 1].

        Returns:
            the prediction, in the shape and dtype of x.

        Raises:
            ValueError: if x or t has another shape.
            TypeError: if t is not floating point.
        """
        self._check(x, t)
        e_t = self.time(t)
        flat = x.reshape(len(x), self.dimension).to(e_t.dtype)
        h = self.enter(flat)
        for block in self.blocks:
            h = block(h, e_t)
        out = self.leave(silu(layer_norm(h, h.shape[1:]))) + self.skip(e_t) * flat
        return out.reshape(x.shape).to(x.dtype)

    def _check(self, x: Tensor, t: Tensor) -> None:
        if tuple(x.shape[1:]) != self.event_shape or x.ndim == 0:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, but this network was built for (batch, "
                f"*{self.event_shape}); reshape x, or build ResidualMLP({tuple(x.shape[1:])}, ...)"
            )
        if t.shape != x.shape[:1]:
            raise ValueError(
                f"t has shape {tuple(t.shape)}, but there are {len(x)} states: give one time "
                f"label each, shape ({len(x)},), as in t.expand({len(x)}) for a single time"
            )
        if not t.is_floating_point():
            raise TypeError(
                f"t has dtype {t.dtype}, but the label is a continuous time in [0, 1]: divide "
                "integer timesteps by their number (i / N)"
            )
