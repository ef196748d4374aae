r"""Attention: every position asks, and is answered with a weighted mean of values,

    a_i = sum_l softmax_l(<q_i, k_l>/sqrt(size)) v_l,

with q, k, v linear in what is asked and looked up, for each head apart. Vaswani et al., "Attention
is all you need", 2017, arXiv:1706.03762, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .context import Told
from .layers import linear


class SelfAttention(nn.Module):
    """Every position asks all positions.

    Args:
        width: numbers at each position.
        heads: attentions side by side, each of width/heads numbers.
        generator: source of the initial weights.
        zero: start the last layer, and so the answer, at zero.
    """

    def __init__(
        self, width: int, heads: int, generator: torch.Generator | None, zero: bool = True
    ) -> None:
        super().__init__()
        self.heads = heads
        self.enter = linear(width, 3 * width, generator)
        self.leave = linear(width, width, None if zero else generator)

    def forward(self, h: Tensor) -> Tensor:
        """(batch, positions, width) -> the same."""
        q, k, v = (_split(c, self.heads) for c in self.enter(h).chunk(3, dim=-1))
        return self.leave(_merge(scaled_dot_product_attention(q, k, v)))


class CrossAttention(nn.Module):
    """Every position asks the tokens of its sample; zero when new.

    A sample without tokens is answered by a learned null. Attention to one null token would do
    the same: there is nothing to weigh, and its value is the answer to every question.
    As conditions enter in Rombach et al., "High-resolution image synthesis with latent diffusion
    models", 2022, arXiv:2112.10752, section 3.3.

    Args:
        width: numbers at each position.
        token_size: numbers in each token.
        heads: attentions side by side, each of width/heads numbers.
        generator: source of the initial weights.
    """

    def __init__(
        self, width: int, token_size: int, heads: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.ask = linear(width, width, generator)
        self.look_up = linear(token_size, 2 * width, generator)
        self.leave = linear(width, width, None)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, h: Tensor, told: Told) -> Tensor:
        """(batch, positions, width) -> the same."""
        if told.tokens is None:
            return self.leave(self.null.expand(h.shape))
        q = _split(self.ask(h), self.heads)
        k, v = (_split(c, self.heads) for c in self.look_up(told.tokens).chunk(2, dim=-1))
        answer = _merge(scaled_dot_product_attention(q, k, v))
        if told.absent is not None:
            answer = torch.where(told.absent[:, None, None], self.null.to(answer.dtype), answer)
        return self.leave(answer)


def _split(h: Tensor, heads: int) -> Tensor:
    """(batch, positions, width) -> (batch, heads, positions, width/heads)."""
    return h.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge(h: Tensor) -> Tensor:
    return h.transpose(1, 2).flatten(-2)
