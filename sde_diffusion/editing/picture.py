"""The door of editing: pictures, masks and options as users give them, checked."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..run import check_state
from ..sample import check_options, sample

CHANNELS = (1, 3, 4)  # of pictures: grey, colours, colours and opacity


def check_editing_options(
    door: Callable[..., Any], method: Callable[..., Any], options: dict[str, Any]
) -> None:
    """Raise TypeError for an option that the solver does not have, or that only `sample` has."""
    for name in inspect.signature(sample).parameters:
        if name in options:
            raise TypeError(
                f"{name} is an option of sample, not of {door.__name__}: how the states start, "
                "and their shape, dtype and device, follow from the picture. Leave it out, and "
                "give the picture as wanted, picture.to(..)"
            )
    check_options(method, options, door)


def checked_picture(picture: Tensor, known: Tensor | None = None) -> Tensor:
    """Pictures (batch, *event) as states to start from: float32 or wider, without a graph.

    Args:
        picture: as it was given.
        known: where its values are read, of its shape; None: everywhere.

    Raises:
        TypeError: no tensor; integers.
        ValueError: empty; values not finite.

    Warns:
        UserWarning: values as bytes have them, in the shape of pictures. It may be so.
    """
    if isinstance(picture, Tensor) and not picture.is_floating_point():
        raise TypeError(
            f"picture has dtype {picture.dtype}; scale it to the range that the network was "
            "trained on, as picture.float() / 127.5 - 1 for bytes and [-1, 1]"
        )
    if not isinstance(picture, Tensor):
        raise TypeError(f"picture must be a tensor, not {type(picture).__name__}")
    check_state(picture)
    values = picture.detach() if known is None else picture.detach()[known]
    if values.numel():
        low, high = (float(v) for v in values.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"picture has values from {low:g} to {high:g}; they must be finite"
                + ("" if known is None else " where the mask is 1")
            )
        if picture.ndim == 4 and picture.shape[1] in CHANNELS and like_bytes(low, high):
            warnings.warn(
                f"picture has values from {low:g} to {high:g}, as bytes have; scale it to the "
                "range that the network was trained on, as picture / 127.5 - 1 for [-1, 1]; if it "
                "was trained on values like these, all is well",
                stacklevel=3 if known is None else 4,  # where the user called
            )
    return picture.detach().to(torch.promote_types(picture.dtype, torch.float32))


def like_bytes(low: float, high: float) -> bool:
    """Whether pictures with values from low to high look like bytes."""
    return low >= 0 and 100 < high <= 255


def checked_mask(mask: Any, picture: Tensor) -> Tensor:
    """A mask as booleans of the picture's shape: True where the picture is known.

    Args:
        mask: booleans, or numbers 0 and 1; of the picture's shape (batch, *event) or of *event,
            sizes of 1 standing for all, as (1, 8, 8) for pictures (batch, 3, 8, 8).
        picture: (batch, *event).

    Raises:
        TypeError: no tensor.
        ValueError: another shape; values other than 0 and 1.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a tensor, not {type(mask).__name__}")
    if not isinstance(picture, Tensor):
        raise TypeError(f"picture must be a tensor, not {type(picture).__name__}")
    shape = tuple(picture.shape)
    wanted = {len(shape): shape, len(shape) - 1: shape[1:]}.get(mask.ndim)
    if wanted is None or any(m not in (1, n) for m, n in zip(mask.shape, wanted, strict=True)):
        flat = len(shape) == 4 and mask.ndim in (2, 3)
        cure = ": mask[None] for (H, W), mask[:, None] for (batch, H, W)" if flat else ""
        raise ValueError(
            f"mask has shape {tuple(mask.shape)} for pictures of shape {shape}: give it one "
            f"number for each of {shape} or of {shape[1:]}, sizes of 1 standing for all{cure}"
        )
    if mask.dtype is not torch.bool:
        other = mask[(mask != 0) & (mask != 1)]
        if other.numel():
            raise ValueError(
                f"mask has the value {float(other.flatten()[0]):g}; it must be boolean, or 0 and "
                "1, 1 where the picture is known (write mask > 0.5 for a soft one)"
            )
        mask = mask == 1
    return mask.to(picture.device).expand(shape)
