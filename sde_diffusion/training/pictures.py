"""Pictures of samples: a grid of images, or points in the plane."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..extras import optional

USUAL = 64  # samples in a picture


def has_picture(event_shape: Sequence[int]) -> bool:
    """Whether samples of a shape can be drawn: images of 1 or 3 channels, points in the plane."""
    shape = tuple(event_shape)
    return shape == (2,) or (len(shape) == 3 and shape[0] in (1, 3))


def columns(count: int, turns: int | None = None) -> int:
    """Columns of an about square grid, a multiple of `turns` where that leaves two rows or more.

    Args:
        count: samples in the grid.
        turns: classes that take turns: then each stands in columns of its own.
    """
    side = math.ceil(math.sqrt(count))
    if turns is None or 2 * turns > count:
        return side
    return turns * max(1, round(side / turns))


def usual_count(turns: int | None = None) -> int:
    """About 64, so that classes that take turns fill whole rows."""
    return USUAL if turns is None or 2 * turns > USUAL else USUAL // turns * turns


def picture(x: Tensor, span: tuple[float, float] | None = None, turns: int | None = None) -> bytes:
    """A PNG of samples.

    Args:
        x: images (n, channels, height, width) with 1 or 3 channels, or points (n, 2).
        span: values shown as black and white; default: the least and the largest.
        turns: classes that take turns; see `columns`.

    Raises:
        ValueError: x of another shape, or no samples.
    """
    x = x.detach().cpu().float()
    if not (len(x) and has_picture(x.shape[1:])):
        raise ValueError(
            f"samples of shape {tuple(x.shape)} have no picture: give images (n, 1 or 3, height, "
            "width) or points (n, 2), or no sampler"
        )
    return _points(x) if x.ndim == 2 else _grid(x, span, columns(len(x), turns))


def _grid(x: Tensor, span: tuple[float, float] | None, columns: int) -> bytes:
    """Images in rows, one pixel apart, small images enlarged."""
    low, high = span or (float(x.min()), float(x.max()))
    bytes_ = ((x - low) / max(high - low, 1e-12)).clamp(0, 1).mul(255).round().to(torch.uint8)
    count, channels, height, width = x.shape
    rows = math.ceil(count / columns)
    canvas = torch.zeros(rows * (height + 1) - 1, columns * (width + 1) - 1, channels)
    canvas = canvas.to(torch.uint8)
    for i, image in enumerate(bytes_):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    scale = max(1, 64 // max(height, width))
    pillow = optional("PIL.Image", "pictures of samples")
    pixels = canvas.squeeze(2) if channels == 1 else canvas
    drawn = pillow.fromarray(pixels.numpy())
    drawn = drawn.resize((drawn.width * scale, drawn.height * scale), pillow.Resampling.NEAREST)
    return _png(lambda file: drawn.save(file, format="png"))


def _points(x: Tensor) -> bytes:
    figure = optional("matplotlib.figure", "pictures of samples").Figure(figsize=(4, 4))
    axes = figure.subplots()
    axes.scatter(x[:, 0], x[:, 1], s=2)
    axes.set_aspect("equal")
    return _png(lambda file: figure.savefig(file, format="png"))


def _png(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()
