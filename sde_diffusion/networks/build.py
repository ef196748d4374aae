"""Networks and autoencoders by name: from a configuration, as a file holds it, to the module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from ..options import called, named
from .autoencoder import Autoencoder
from .dit import DiT
from .mlp import ResidualMLP
from .network import Network
from .unet import UNet

Made = TypeVar("Made", Network, Autoencoder)

NETWORKS: dict[str, type[Network]] = {"dit": DiT, "mlp": ResidualMLP, "unet": UNet}
AUTOENCODERS: dict[str, type[Autoencoder]] = {"conv": Autoencoder}


def build(
    configuration: Mapping[str, Any],
    event_shape: Sequence[int] | None = None,
    where: str = "network",
) -> Network:
    """The network of a configuration, {"kind": ..., **arguments of its constructor}.

    `build(network.configuration)` has the form and the initial weights of `network`.

    Args:
        configuration: "kind" names one of `NETWORKS`; what is not given has its default.
        event_shape: shape of one sample of the data, x.shape[1:]. What it settles (the channels of
            a U-Net, the event_shape of an MLP) need not be given, and must agree if it is.
        where: what the configuration is called in errors.

    Raises:
        ValueError: no mapping; unknown or missing keys, the nearest right one named; sizes that do
            not fit each other or the data.
    """
    return _build(where, NETWORKS, configuration, event_shape)


def build_autoencoder(
    configuration: Mapping[str, Any], event_shape: Sequence[int] | None = None
) -> Autoencoder:
    """The autoencoder of a configuration, {"kind": "conv", ..}; else as `build`."""
    return _build("autoencoder", AUTOENCODERS, configuration, event_shape)


def _build(
    where: str,
    kinds: Mapping[str, type[Made]],
    configuration: Mapping[str, Any],
    event_shape: Sequence[int] | None,
) -> Made:
    place, kind, given = named(where, configuration, kinds)
    if event_shape is not None:
        try:
            given |= _settled(kind, given, event_shape)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    return called(place, kind, given, ("kind",))


def _settled(
    kind: type[Network] | type[Autoencoder], given: Mapping[str, Any], event_shape: Sequence[int]
) -> dict[str, Any]:
    """What the data settle, with which what is given agrees."""
    settled = kind.arguments_for(event_shape)
    for name, value in settled.items():
        if name in given and given[name] not in (value, tuple(event_shape)):
            raise ValueError(
                f"{name} = {given[name]!r} in the configuration, but samples of shape "
                f"{tuple(event_shape)} need {value!r}: leave {name} out, or take other data"
            )
    return settled


def count_parameters(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
