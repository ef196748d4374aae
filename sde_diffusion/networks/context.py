r"""The condition of a sample: a class, a sequence of tokens such as those of a text, or an image.

A class y in {0, .., K-1}, or tokens c_1, .., c_L, is told to a network as a vector,

    v = E_y     or     v = W_2 norm((1/L) sum_l silu(W_1 c_l)),

which is added to the embedding of the time, W [sin, cos](2 pi nu t) + v; tokens are also looked up
wherever a network attends to them (`CrossAttention`). A sample without a condition has a learned
null in the place of v and of each answer of an attention, whether its context was dropped or none
was given at all: to the bit the same.

An image c is laid beside the state, channel by channel, at the network's first layer: it reads
[x_t, up(c)], where up repeats the pixels of a smaller image until it has the height and the width
of x_t. Without a condition the network reads [x_t, 0], and v is the learned null, which tells that
from a c = 0. Saharia et al., "Image super-resolution via iterative refinement", 2021,
arXiv:2104.07636 (SR3, with another up); Saharia et al., "Palette: image-to-image diffusion models",
2021, arXiv:2111.05826.

Training with the context dropped at random is what classifier-free guidance needs: Ho & Salimans,
"Classifier-free diffusion guidance", 2022, arXiv:2207.12598. A sum over tokens of a function of
each reads a set: Zaheer et al., "Deep sets", 2017, arXiv:1703.06114. So the order of tokens is told
by the tokens alone, as the text encoders do that add positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm, silu

from .layers import linear


class Told(NamedTuple):
    """What the layers of a network are told of the conditions of a batch.

    Attributes:
        vector: one vector a sample, (batch, size); None for a network without condition.
        tokens: (batch, length, token size); None where there are none to attend to.
        absent: bool, (batch,): samples whose tokens are not to be seen; None: no such samples.
        image: of the height and width of x, (batch, channels, height, width), to lie beside it;
            None for a network without.
    """

    vector: Tensor | None = None
    tokens: Tensor | None = None
    absent: Tensor | None = None
    image: Tensor | None = None

    def beside(self, x: Tensor) -> Tensor:
        """What the first layer reads: x, and the image along its channels if there is one."""
        return x if self.image is None else torch.cat([x, self.image.to(x.dtype)], dim=1)


class Condition(nn.Module):
    """From (context, drop) to what the layers are told.

    Args:
        size: numbers in the vector.
        classes: number K of classes, if the context is class labels.
        token_size: numbers in a token, if the context is sequences of tokens.
        channels: of the image, if the context is one.
        generator: source of the initial weights.

    Raises:
        ValueError: if two kinds of context are asked for.
    """

    def __init__(
        self,
        size: int,
        classes: int | None = None,
        token_size: int | None = None,
        channels: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        kinds = {"classes": classes, "token_size": token_size, "condition_channels": channels}
        asked = [f"{name} = {value}" for name, value in kinds.items() if value is not None]
        if len(asked) > 1:
            raise ValueError(
                f"{' and '.join(asked)}: a context is class labels, tokens or an image, not two of "
                "them; give a class as one more token, or as channels of the image"
            )
        self.classes, self.token_size, self.channels = classes, token_size, channels
        if classes is not None:
            table = torch.empty(classes, size).uniform_(-1, 1, generator=generator)
            self.table = nn.Parameter(table)
        if token_size is not None:
            self.expand = linear(token_size, size, generator)
            self.project = linear(size, size, generator)
        if asked:
            self.null = nn.Parameter(torch.zeros(size))

    @property
    def none(self) -> bool:
        """Whether there is no condition to tell."""
        return self.classes is None and self.token_size is None and self.channels is None

    def forward(self, context: Tensor | None, drop: Tensor | None, x: Tensor) -> Told:
        """What is told of the samples.

        Args:
            context: class labels, int64, (batch,), tokens, (batch, length, token size), or images,
                (batch, channels, rows, columns); None: no sample has a condition.
            drop: bool, (batch,): samples whose context is withheld.
            x: states x_t, (batch, *event).

        Raises:
            TypeError, ValueError: as `check`.
        """
        self.check(context, drop, x)
        if self.none:
            return Told()
        if self.channels is not None:
            return self._image(self.channels, context, drop, x)
        if context is None:
            return Told(vector=self.null.expand(len(x), -1))
        if self.classes is not None:
            vector, tokens = self.table[context], None
        else:
            tokens = context.to(self.null.dtype)
            mean = silu(self.expand(tokens)).mean(dim=1)
            vector = self.project(layer_norm(mean, mean.shape[1:]))
        if drop is not None:
            vector = torch.where(drop[:, None], self.null, vector)
        return Told(vector, tokens, drop)

    def _image(self, channels: int, context: Tensor | None, drop: Tensor | None, x: Tensor) -> Told:
        """The image as large as x; zero, and the null beside the time, where there is none."""
        if context is None:
            nothing = x.new_zeros(len(x), channels, *x.shape[2:])
            return Told(vector=self.null.expand(len(x), -1), image=nothing)
        image = context
        if image.shape[2:] != x.shape[2:]:
            image = interpolate(image, size=x.shape[2:], mode="nearest")
        if drop is None:
            return Told(image=image)
        vector = torch.where(drop[:, None], self.null, torch.zeros_like(self.null))
        return Told(vector, image=image.masked_fill(drop[:, None, None, None], 0.0))

    def check(self, context: Tensor | None, drop: Tensor | None, x: Tensor) -> None:
        """Refuse a context that is not one of this network, without waiting for a device.

        The values of labels are read where they lie on the CPU; elsewhere the look-up itself
        refuses a label out of range, later and in fewer words.

        Raises:
            TypeError: if the context or drop has a dtype of another kind.
            ValueError: another shape, a label out of range, or a context for a network that was
                built without.
        """
        count = len(x)
        for name, part in (("context", context), ("drop", drop)):
            if part is not None and not isinstance(part, Tensor):
                raise TypeError(
                    f"{name} is {type(part).__name__}: give a tensor with one entry a sample, as "
                    f"torch.full(({count},), 2)"
                )
        if self.none:
            if context is not None or drop is not None:
                raise ValueError(
                    "this network was built without a condition but was given one: leave context "
                    "and drop out, or build it with classes=..., token_size=... or "
                    "condition_channels=..."
                )
            return
        if drop is not None and (drop.dtype != torch.bool or drop.shape != (count,)):
            raise ValueError(
                f"drop is {drop.dtype} of shape {tuple(drop.shape)}: it must say of each of the "
                f"{count} samples whether its context is withheld, as booleans of shape ({count},)"
            )
        if context is not None and self.classes is not None:
            self._check_labels(context, self.classes, count)
        elif context is not None and self.channels is not None:
            self._check_image(context, self.channels, x)
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

    @staticmethod
    def _check_image(context: Tensor, channels: int, x: Tensor) -> None:
        if not context.is_floating_point():
            raise TypeError(
                f"context has dtype {context.dtype}, but this network takes an image as floating-"
                "point numbers, scaled as the data are: context.float() / 127.5 - 1 for bytes"
            )
        if context.ndim == 4 and context.shape[1] == channels and len(context) != len(x):
            raise ValueError(
                f"context has {len(context)} images for {len(x)} samples: give one each, or "
                f"the first for all, as context[:1].expand({len(x)}, -1, -1, -1)"
            )
        height, width = x.shape[2:]
        fits = context.ndim == 4 and context.shape[:2] == (len(x), channels)
        sides = context.shape[2:] if fits else (0, 0)
        if not fits or any(n == 0 or side % n for n, side in zip(sides, x.shape[2:], strict=True)):
            raise ValueError(
                f"context has shape {tuple(context.shape)}, but {len(x)} samples of {height} x "
                f"{width} need images of shape ({len(x)}, {channels}, rows, columns), with rows "
                f"that divide {height} and columns that divide {width}: resize them, as with "
                f"torch.nn.functional.interpolate(context, size=({height}, {width}))"
            )
