"""Whether a network and data fit each other: what would otherwise fail, or learn nothing, later."""

from __future__ import annotations

from torch import nn

from .data import Data


def check_fits(network: nn.Module, data: Data) -> None:
    """Refuse labels that a network does not know, and conditions on one side only.

    Args:
        network: one with a `configuration`; another is not looked into.
        data: what it is to learn.

    Raises:
        ValueError: there are more classes in the data than in the network; data without the
            conditions that the network takes, or the other way round.
    """
    known = getattr(network, "configuration", None)
    if known is None:
        return
    classes, token_size = known.get("classes"), known.get("token_size")
    if data.classes and not classes:
        raise ValueError(
            f"the data have class labels, but the network takes none: give it classes = "
            f"{data.classes}, or take the data without labels"
        )
    if data.classes and classes and data.classes > classes:
        raise ValueError(
            f"the data have labels up to {data.classes - 1}, but the network knows classes = "
            f"{classes}, 0 to {classes - 1}: give it classes = {data.classes}, or mend the labels"
        )
    if classes and not data.classes:
        raise ValueError(
            f"the network takes classes = {classes}, but the data have no class labels: name their "
            "labels, or leave out classes"
        )
    if token_size and data.classes:
        raise ValueError("the network takes tokens, but the data have class labels")
