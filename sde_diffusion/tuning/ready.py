"""What a fit by derivatives needs before it begins: gradients on, and pairs that carry them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from .pairs import Pairs


@contextmanager
def differentiable() -> Iterator[None]:
    """Gradients are on, also under `torch.no_grad` and `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def plain(pairs: Pairs) -> Pairs:
    """The pairs without gradients, and without tensors of the inference mode: copies of these."""

    def free(x: Tensor) -> Tensor:
        return x.clone() if x.is_inference() else x.detach()

    return replace(
        pairs,
        starts=free(pairs.starts),
        ends=free(pairs.ends),
        times=None if pairs.times is None else free(pairs.times),
        states=None if pairs.states is None else free(pairs.states),
    )


def check_counts(counts: Mapping[str, object]) -> None:
    """Refuse what is no whole number above 0."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} = {value!r} must be a whole number, at least 1")
