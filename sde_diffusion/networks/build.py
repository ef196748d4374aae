"""Networks and autoencoders by name: from a configuration, as a file holds it, to the module."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from ..names import look_up, unknown
from .autoencoder import Autoencoder
from .dit import DiT
from .mlp import ResidualMLP
from .network import Network
from .unet import UNet

Made = TypeVar("Made", Network, Autoencoder)

NETWORKS: dict[str, type[Network]] = {"dit": DiT, "mlp": ResidualMLP, "unet": UNet}
AUTOENCODERS: dict[str, type[Autoencoder]] = {"conv": Autoencoder}


def build(configuration: Mapping[str, Any], event_shape: Sequence[int] | None = None) -> Network:
    """The network of a configuration, {"kind": ..., **arguments of its constructor}.

    `build(network.configuration)` has the form and the initial weights of `network`.

    Args:
        configuration: "kind" names one of `NETWORKS`; what is not given has its default.
        event_shape: shape of one sample of the data, x.shape[1:]. What it settles (the channels of
            a U-Net, the event_shape of an MLP) need not be given, and must agree if it is.

    Raises:
        TypeError: if the configuration is not a mapping.
        ValueError: unknown or missing keys, the nearest right one named; sizes that do not fit
            each other or the data.
    """
    return _build("network", NETWORKS, configuration, event_shape)


def build_autoencoder(
    configuration: Mapping[str, Any], event_shape: Sequence[int] | None = None
) -> Autoencoder:
    """The autoencoder of a configuration, {"kind": "conv", ..}; else as `build`."""
    return _build("autoencoder", AUTOENCODERS, configuration, event_shape)


def _build(
    what: str,
    kinds: Mapping[str, type[Made]],
    configuration: Mapping[str, Any],
    event_shape: Sequence[int] | None,
) -> Made:
    if not isinstance(configuration, Mapping):
        raise TypeError(
            f'a configuration is a mapping such as {{"kind": "{max(kinds)}", "channels": 3}}, not '
            f"{type(configuration).__name__}"
        )
    if "kind" not in configuration:
        raise ValueError(f'no "kind" in the configuration of the {what}: one of {sorted(kinds)}')
    kind = look_up(f"kind of {what}", configuration["kind"], kinds)
    given = {name: value for name, value in configuration.items() if name != "kind"}
    known = inspect.signature(kind).parameters
    for name in given:
        if name not in known:
            raise ValueError(unknown(f"argument of {configuration['kind']!r}", name, known))
    if event_shape is not None:
        settled = kind.arguments_for(event_shape)
        for name, value in settled.items():
            if name in given and given[name] not in (value, tuple(event_shape)):
                raise ValueError(
                    f"{name} = {given[name]!r} in the configuration, but samples of shape "
                    f"{tuple(event_shape)} need {value!r}: leave {name} out, or take other data"
                )
        given |= settled
    missing = [n for n, p in known.items() if p.default is p.empty and n not in given]
    if missing:
        raise ValueError(f"{what} {configuration['kind']!r} needs {', '.join(missing)}")
    return kind(**given)


def count_parameters(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
