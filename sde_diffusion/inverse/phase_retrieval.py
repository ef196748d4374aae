"""Magnitudes of Fourier's waves without their phases, as a detector far from an object sees it."""

from __future__ import annotations

import torch
from torch import Tensor

from .operator import Operator, shape_of


class PhaseRetrieval(Operator):
    """|F x| of the image within a frame of zeros, F the unitary Fourier transform: not linear.

    The image, the image upside down (turned by 180 degrees), shifted within the frame, and their
    negatives all have the same magnitudes, so that the posterior has several modes unless the
    prior tells them apart.

    Args:
        event_shape: of one datum, (.., height, width), each channel for itself.
        oversampling: sides of the frame over those of the image; from 2 on, the magnitudes tell
            the autocorrelation of the image.

    Raises:
        ValueError: if there are no two dimensions, or oversampling is no whole number above 0.
    """

    def __init__(self, event_shape: tuple[int, ...], oversampling: int = 2) -> None:
        self.event_shape = shape_of(event_shape, 2)
        if type(oversampling) is not int or oversampling < 1:
            raise ValueError(f"oversampling = {oversampling!r} must be a whole number, 1 or more")
        *channels, height, width = self.event_shape
        self._frame = (oversampling * height, oversampling * width)
        self.measured_shape = (*channels, *self._frame)

    def apply(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, s=self._frame, norm="ortho").abs()
