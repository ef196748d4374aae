r"""The condition of a sample: a class, or a sequence of tokens such as those of a text.

A class y in {0, .., K-1}, or tokens c_1, .., c_L, is told to a network as a vector,

    v = E_y     or     v = W_2 norm((1/L) sum_l silu(W_1 c_l)),

which is added to the embedding of the time, W [sin, cos](2 pi nu t) + v; tokens are also looked up
wherever a network attends to them (`CrossAttention`). A sample without a condition has a learned
null in the place of v and of each answer of an attention, whether its context was dropped or none
was given at all: to the bit the same.

Training with the context dropped at random is what classifier-free guidance needs: Ho & Salimans,
"Classifier-free diffusion guidance", 2022, arXiv:2207.12598. A sum over tokens of a function of
each reads a set: Zaheer et al., "Deep sets", 2017, arXiv:1703.06114. So the order of tokens is told
by the tokens alone, as the text encoders do that add positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from .layers import linear


class Told(NamedTuple):
    """What the layers of a network are told of the conditions of a batch.

    Attributes:
        vector: one vector a sample, (batch, size); None for a network without condition.
        tokens: (batch, length, token size); None where there are none to attend to.
        absent: bool, (batch,): samples whose tokens are not to be seen; None: no such samples.
    """

    vector: Tensor | None = None
    tokens: Tensor | None = None
    absent: Tensor | None = None


class Condition(nn.Module):
    """From (context, drop) to what the layers are told.

    Args:
        size: numbers in the vector.
        classes: number K of classes, if the context is class labels.
        token_size: numbers in a token, if the context is sequences of tokens.
        generator: source of the initial weights.

    Raises:
        ValueError: if both kinds of context are asked for, or a size is not positive.
    """

    def __init__(
        self,
        size: int,
        classes: int | None = None,
        token_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if classes is not None and token_size is not None:
            raise ValueError(
                f"classes = {classes} and token_size = {token_size}: a context is class labels or "
                "tokens, not both; give a class as one more token"
            )
        self.classes, self.token_size = classes, token_size
        if classes is not None:
            table = torch.empty(classes, size).uniform_(-1, 1, generator=generator)
            self.table = nn.Parameter(table)
        if token_size is not None:
            self.expand = linear(token_size, size, generator)
            self.project = linear(size, size, generator)
        if classes is not None or token_size is not None:
            self.null = nn.Parameter(torch.zeros(size))

    def forward(self, context: Tensor | None, drop: Tensor | None, count: int) -> Told:
        """What is told of `count` samples.

        Args:
            context: class labels, int64, (batch,), or tokens, (batch, length, token size); None:
                no sample has a condition.
            drop: bool, (batch,): samples whose context is withheld.
            count: number of samples.

        Raises:
            TypeError, ValueError: as `check`.
        """
        self.check(context, drop, count)
        if self.classes is None and self.token_size is None:
            return Told()
        if context is None:
            return Told(vector=self.null.expand(count, -1))
        if self.classes is not None:
            vector, tokens = self.table[context], None
        else:
            tokens = context.to(self.null.dtype)
            mean = silu(self.expand(tokens)).mean(dim=1)
            vector = self.project(layer_norm(mean, mean.shape[1:]))
        if drop is not None:
            vector = torch.where(drop[:, None], self.null, vector)
        return Told(vector, tokens, drop)

    def check(self, context: Tensor | None, drop: Tensor | None, count: int) -> None:
        """Refuse a context that is not one of this network, without waiting for a device.

        The values of labels are read where they lie on the CPU; elsewhere the look-up itself
        refuses a label out of range, later and in fewer words.

        Raises:
            TypeError: if the context or drop has a dtype of another kind.
            ValueError: another shape, a label out of range, or a context for a network that was
                built without.
        """
        if self.classes is None and self.token_size is None:
            if context is not None or drop is not None:
                raise ValueError(
                    "this network was built without a condition but was given one: leave context "
                    "and drop out, or build it with classes=... or token_size=..."
                )
            return
        if drop is not None and (drop.dtype != torch.bool or drop.shape != (count,)):
            raise ValueError(
                f"drop is {drop.dtype} of shape {tuple(drop.shape)}: it must say of each of the "
                f"{count} samples whether its context is withheld, as booleans of shape ({count},)"
            )
        if context is not None and self.classes is not None:
            self._check_labels(context, self.classes, count)
        elif context is not None:
            self._check_tokens(context, count)

    @staticmethod
    def _check_labels(context: Tensor, classes: int, count: int) -> None:
        if context.dtype != torch.int64:
            raise TypeError(
                f"context has dtype {context.dtype}, but this network takes class labels, int64 in "
                f"0 .. {classes - 1}: labels.long()"
            )
        if context.shape != (count,):
            raise ValueError(
                f"context has shape {tuple(context.shape)} for {count} samples: give one class "
                f"label each, shape ({count},)"
            )
        if context.device.type != "cpu" or torch.compiler.is_compiling():
            return
        wrong = (context < 0) | (context >= classes)
        if bool(wrong.any()):
            raise ValueError(
                f"class label {int(context[wrong][0])} is out of range: this network knows "
                f"{classes} classes, 0 .. {classes - 1}; to withhold a class use drop, and for "
                "more classes build it with a larger classes=..."
            )

    def _check_tokens(self, context: Tensor, count: int) -> None:
        size = self.token_size
        if not context.is_floating_point():
            raise TypeError(
                f"context has dtype {context.dtype}, but this network takes tokens as floating-"
                f"point vectors, (batch, length, {size}): embed integer tokens beforehand"
            )
        if context.ndim != 3 or context.shape[::2] != (count, size) or context.shape[1] == 0:
            raise ValueError(
                f"context has shape {tuple(context.shape)}, but {count} samples need tokens of "
                f"shape ({count}, length, {size}) with a length of at least 1"
            )
