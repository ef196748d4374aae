"""Conditions of a denoiser, one a sample of its batch: counted, checked, chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor


def samples_of(condition: Sequence[Any]) -> int | None:
    """How many samples a condition is for, by the first axis of its tensors; None: any number.

    Raises:
        ValueError: if its tensors are for different numbers of samples.
    """
    return one_count(len(part) for part in condition if isinstance(part, Tensor) and part.ndim)


def one_count(counts: Iterable[int | None]) -> int | None:
    """The number of samples that several conditions are for; None: any.

    Raises:
        ValueError: if they are for different numbers.
    """
    known = sorted({count for count in counts if count is not None})
    if len(known) > 1:
        raise ValueError(
            f"conditions of {' and '.join(map(str, known))} samples are bound together: {_CURE}"
        )
    return known[0] if known else None


def check_samples(count: int | None, x: Tensor) -> None:
    """Raise ValueError unless conditions of so many samples are for states like x."""
    if count not in (None, len(x)):
        raise ValueError(f"the denoiser is bound to {count} samples and x has {len(x)}: {_CURE}")


def check_bound(condition: Sequence[Any], x: Tensor) -> None:
    """Raise ValueError unless a condition is for as many samples as x, and has values.

    On the device "meta" it has none, and a look-up there is no error: it answers anything.
    """
    check_samples(samples_of(condition), x)
    parts = [part for part in condition if isinstance(part, Tensor)]
    if not x.is_meta and any(part.is_meta for part in parts):
        raise ValueError(
            "a condition is on the device meta, where tensors have a shape and no values: make it "
            f'anew on {x.device}, as torch.zeros(..., device="{x.device}")'
        )


def check_devices(condition: Sequence[Any], x: Tensor, error: Exception) -> None:
    """ValueError from an error about devices, where a condition is on another than the state."""
    devices = {part.device for part in condition if isinstance(part, Tensor) and part.ndim}
    elsewhere = sorted(map(str, devices - {x.device}))
    if elsewhere and "device" in str(error):
        raise ValueError(
            f"a condition is on {' and '.join(elsewhere)}, and the states are on {x.device}: "
            f'bind it there, denoiser.given(labels.to("{x.device}"))'
        ) from error


def select_conditions(condition: Sequence[Any], who: Tensor) -> tuple[Any, ...]:
    """The condition of some samples, by index."""
    return tuple(
        part[who.to(part.device)] if isinstance(part, Tensor) and part.ndim else part
        for part in condition
    )


_CURE = (
    "pictures, measurements and every tensor of a condition have one entry a sample, e.g. "
    "denoiser.given(labels) with labels of shape (batch,); what all samples share is repeated, "
    "c.expand(batch, ...), or bound in a function, NetworkDenoiser(lambda x, t: network(x, t, c), "
    "schedule); one measurement for all is given without the batch, y[0]"
)
