r"""What all networks have in common: how they are asked, described and made again.

    network(x, t, context=None, drop=None) -> one prediction of x's shape, (batch, *event),

with t a floating label of the time, one a sample; or, with outputs = 2, twice the channels,
(batch, 2C, ...): the prediction, then what the network says of its variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A network that can be made again from its `configuration`.

    Attributes:
        configuration: {"kind": ..., **arguments of the constructor}, all of them, as JSON has
            them; `build` makes the network of the same initial weights again.
        outputs: 1, or 2 where a variance is predicted too.
    """

    configuration: dict[str, Any]
    outputs: int

    @abstractmethod
    def forward(
        self, x: Tensor, t: Tensor, context: Tensor | None = None, drop: Tensor | None = None
    ) -> Tensor:
        """The prediction at x_t.

        Args:
            x: states x_t, shape (batch, *event).
            t: time labels, floating point, shape (batch,), of size about one: times in [0, 1], or
                log(sigma/alpha)/4.
            context: class labels, int64, (batch,), tokens, (batch, length, token size), or images,
                (batch, channels, rows, columns); None: no sample has a condition.
            drop: bool, (batch,): samples whose context is withheld.
        """

    @staticmethod
    @abstractmethod
    def arguments_for(event_shape: Sequence[int]) -> dict[str, Any]:
        """The arguments of the constructor that the shape of the data settles."""


def remember(kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a network, from the `locals()` of its constructor."""
    plain = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
    lists = {name: list(v) for name, v in plain.items() if isinstance(v, Sequence)}
    return {"kind": kind, **plain, **lists}


def check_sizes(outputs: int = 1, dropout: float = 0.0, **sizes: Any) -> None:
    """Refuse sizes that are not integers of at least 1, by name; None is a size left out."""
    for name, value in sizes.items():
        for size in value if isinstance(value, Sequence) else [value]:
            if size is not None and (type(size) is not int or size < 1):
                raise ValueError(f"{name} = {value!r}: sizes are integers of at least 1")
    if outputs not in (1, 2):
        raise ValueError(
            f"outputs = {outputs!r}: 1 for the prediction alone, 2 for a variance beside it"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout = {dropout!r} must be in [0, 1)")


def check_lists(**values: Any) -> None:
    """Refuse what is not a list or tuple, by name."""
    for name, value in values.items():
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError(f"{name} = {value!r} must be a list, such as [1, 2]")


def check_heads(width: int, heads: int, name: str = "width") -> None:
    """Refuse heads that do not share the width evenly."""
    if width % heads:
        raise ValueError(
            f"{name} = {width} is not a multiple of heads = {heads}, which share it evenly"
        )


def check_time(x: Tensor, t: Tensor) -> None:
    """Refuse labels that are not one floating-point number a sample."""
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


def check_images(x: Tensor, channels: int, stride: int, reason: str) -> None:
    """Refuse what is not images of these channels, with sides that are multiples of `stride`."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but this network was built for images of {channels} "
            f"channel{'s' * (channels > 1)}, (batch, {channels}, height, width); reshape x, or "
            "build the network with the channels of the data"
        )
    wrong = next((side for side in x.shape[2:] if side % stride or side == 0), None)
    if wrong is not None:
        below = wrong // stride * stride
        near = f"{below} or {below + stride}" if below else f"{stride}"
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but {reason}, so that height and width must be "
            f"multiples of {stride}: {near}, not {wrong}; pad or crop the images, or build the "
            "network for a smaller multiple"
        )


def image_channels(event_shape: Sequence[int]) -> dict[str, Any]:
    """{"channels": C} of images (C, height, width)."""
    if len(event_shape) != 3:
        raise ValueError(
            f"samples of shape {tuple(event_shape)} are not images (channels, height, width): "
            "reshape them, or take a network for vectors, kind 'mlp'"
        )
    return {"channels": int(event_shape[0])}
