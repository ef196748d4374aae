"""Pictures of any size and mode as pixels of one size."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..extras import optional

MODES = {1: "L", 3: "RGB"}
DEEP = ("I", "F")  # more than a byte a pixel: a conversion would cut them off
ALPHA = ("A", "a")  # modes RGBA, LA, PA and those multiplied already, RGBa, La


def to_pixels(image: Any, size: int, channels: int) -> np.ndarray:
    """A picture, its shorter side resized to `size`, cut to the middle square.

    What is transparent shows white, whatever colour it hides.

    Args:
        image: a picture of pillow.
        size: pixels of a side.
        channels: 1 (grey) or 3 (red, green, blue).

    Returns:
        uint8, shape (channels, size, size).

    Raises:
        ValueError: a picture with more than a byte a pixel and channel.
    """
    pillow = optional("PIL.Image", "pictures")
    check_depth(image)
    image = optional("PIL.ImageOps", "pictures").exif_transpose(image)
    scale = size / min(image.size)
    wide, high = (max(size, round(side * scale)) for side in image.size)
    if "transparency" in image.info or image.mode.endswith(ALPHA):
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    image = image.convert(MODES[channels])
    if (wide, high) != image.size:
        image = image.resize((wide, high), pillow.Resampling.BICUBIC, reducing_gap=3.0)
    left, top = (wide - size) // 2, (high - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.uint8)
    return pixels.reshape(size, size, channels).transpose(2, 0, 1)


def check_depth(image: Any) -> None:
    """ValueError unless a picture of pillow has a byte a pixel and channel; reads its header."""
    if image.mode.startswith(DEEP):
        raise ValueError(
            f"its pixels are of mode {image.mode}, more than a byte each: save it with 8 bits a "
            "channel, or give the numbers as a .npy file"
        )


def check_form(size: int, channels: int) -> None:
    """ValueError unless pictures can have this size and number of channels."""
    if type(size) is not int or size < 1 or channels not in MODES:
        raise ValueError(
            f"size = {size!r}, channels = {channels!r}: give the pixels of a side, at least 1, and "
            "1 (grey) or 3 (colour) channels"
        )
