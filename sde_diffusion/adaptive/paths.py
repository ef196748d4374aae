r"""A Brownian path for each sample, revealed where a step asks for it and never forgotten.

A solver that rejects a step and draws anew prefers the increments that it accepts: small ones, a
biased noise. Here a rejected step has revealed W at its end, and that stays known; the next,
shorter try draws W at its own end from the bridge between what is known on both sides,

    W(q) - W(p) = r dW + sqrt(r (1 - r) (p - s)) z,    r = (p - q)/(p - s),    dW = W(s) - W(p),

and the rest of dW waits for the steps that follow. So whatever steps are chosen, for whatever
reason, what a sample has been fed in the end is one Brownian path.

Rackauckas & Nie, "Adaptive methods for stochastic differential equations via natural embeddings
and rejection sampling with memory", DCDS-B 22 (2017), p. 2731 (their RSwM3). Time runs down.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..noise import Noise, plain_draws


class BrownianPaths:
    """One path a sample, from positions of their own downwards.

    Each call of `increment` takes one draw of the whole batch from the source, so that the k-th
    step that a sample tries has the k-th draw of its seed, whatever its batch.

    Args:
        noise: seeds.
        like: a tensor of the states' shape, dtype and device.
    """

    def __init__(self, noise: Noise, like: Tensor) -> None:
        self._draw = plain_draws(noise, like)
        self._z = torch.empty_like(like)
        self._ahead: list[list[tuple[float, Tensor]]] = [[] for _ in range(len(like))]

    def increment(self, who: Tensor, p: Tensor, q: Tensor) -> Tensor:
        """W(q) - W(p) of the samples `who`, from where they stand, p, to q < p."""
        self._draw(self._z, 0.0, 0.0)
        steps = zip(who.tolist(), p.tolist(), q.tolist(), strict=True)
        return torch.stack([self._reveal(i, t, s) for i, t, s in steps])

    def move(self, who: Tensor, q: Tensor) -> None:
        """The samples `who` now stand at q, to which their last increment led."""
        for i, s in zip(who.tolist(), q.tolist(), strict=True):
            self._ahead[i] = [piece for piece in self._ahead[i] if piece[0] < s]

    def _reveal(self, i: int, t: float, q: float) -> Tensor:
        """Make q an end of a piece (end, increment over it), and add up the pieces before."""
        pieces, z = self._ahead[i], self._z[i]
        place, total = 0, torch.zeros_like(z)
        while place < len(pieces) and pieces[place][0] >= q:
            t, dw = pieces[place]
            total = total + dw
            place += 1
        if t == q:
            return total
        if place == len(pieces):  # beyond all that is known
            dw = math.sqrt(t - q) * z
            pieces.append((q, dw))
            return total + dw
        end, whole = pieces[place]
        r = (t - q) / (t - end)
        dw = r * whole + math.sqrt(r * (1 - r) * (t - end)) * z
        pieces[place : place + 1] = [(q, dw), (end, whole - dw)]
        return total + dw
