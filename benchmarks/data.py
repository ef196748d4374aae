"""The digits that the benchmarks use, see `sde_diffusion.training.digits`."""

from __future__ import annotations

from torch import Tensor

from sde_diffusion.training.digits import digits as data

__all__ = ["digit_labels", "digits"]


def digits() -> tuple[Tensor, Tensor]:
    """(train, held_out): images in [-1, 1], float32, shapes (1198, 1, 8, 8) and (599, 1, 8, 8)."""
    return data("train").x, data("held_out").x


def digit_labels() -> tuple[Tensor, Tensor]:
    """(train, held_out): the digits 0..9 of the images of `digits`, int64, (1198,) and (599,)."""
    train, held_out = (data(part).context for part in ("train", "held_out"))
    assert train is not None
    assert held_out is not None
    return train, held_out
