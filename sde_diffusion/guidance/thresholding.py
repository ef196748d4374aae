r"""Thresholding: the denoised data kept in the range of data.

    static:     d -> min(max(d, low), high)
    dynamic:    d -> min(max(d, -s), s) / s * limit,   s = max(limit, q-quantile of |d|), a sample

Both are continuous in x and not smooth: where the exact mean lies inside the range they do
nothing (a mean of data in [low, high] always does), and where they act, no solver has more than
first order. They stand last, around all other guidance, whose overshoot they cut off:
`dynamic_thresholding(classifier_free(...))`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..counts import checked_number
from ..denoise import Denoiser
from ..scalar import Scalar
from .guided import Guided, Rule


class StaticThresholding(Guided):
    """d clipped to [low, high]; see `static_thresholding`."""

    shown = ("low", "high")

    def __init__(self, denoiser: Denoiser, low: float, high: float) -> None:
        super().__init__(denoiser)
        low, high = checked_number(low, "low"), checked_number(high, "high")
        if not low < high:
            raise ValueError(f"low = {low}, high = {high}: low must be below high")
        self.low, self.high = low, high

    def rule(self, t: Scalar) -> Rule:
        return Rule((0,), lambda x, d: d.clamp(self.low, self.high))


class DynamicThresholding(Guided):
    """d clipped to a quantile of its own, and scaled; see `dynamic_thresholding`."""

    shown = ("quantile", "limit", "max_threshold")

    def __init__(
        self, denoiser: Denoiser, quantile: float, limit: float, max_threshold: float
    ) -> None:
        super().__init__(denoiser)
        quantile = checked_number(quantile, "quantile")
        limit, max_threshold = (
            checked_number(limit, "limit"),
            checked_number(max_threshold, "max_threshold"),
        )
        if not 0 <= quantile <= 1:
            raise ValueError(f"quantile = {quantile} must lie in [0, 1]: 0.995, not 99.5")
        if not 0 < limit < math.inf:
            raise ValueError(f"limit = {limit} must be positive and finite")
        if not max_threshold >= limit:
            raise ValueError(f"max_threshold = {max_threshold} must be at least limit = {limit}")
        self.quantile, self.limit, self.max_threshold = quantile, limit, max_threshold

    def rule(self, t: Scalar) -> Rule:
        return Rule((0,), lambda x, d: self._threshold(d))

    def _threshold(self, d: Tensor) -> Tensor:
        s = _upper_quantile(d.reshape(len(d), math.prod(d.shape[1:])).abs(), self.quantile)
        s = s.clamp(self.limit, self.max_threshold)
        s = s.reshape(-1, *[1] * (d.ndim - 1))
        return torch.minimum(torch.maximum(d, -s), s) * (self.limit / s)


def static_thresholding(denoiser: Denoiser, low: float = -1.0, high: float = 1.0) -> Guided:
    """The denoised data clipped to the range of data, min(max(d, low), high).

    It mends a mean that left the range: by guidance, or by a network that predicts noise, whose
    errors sigma/alpha multiplies. Diffusers: `clip_sample`, `clip_sample_range`; the original DDPM
    code does it too (Ho, Jain & Abbeel, "Denoising diffusion probabilistic models", 2020,
    arXiv:2006.11239).

    Args:
        denoiser: of data with every number in [low, high].
        low, high: the range.

    Raises:
        ValueError: if low is not below high.
    """
    return StaticThresholding(denoiser, low, high)


def dynamic_thresholding(
    denoiser: Denoiser, quantile: float = 0.995, limit: float = 1.0, max_threshold: float = math.inf
) -> Guided:
    """The denoised data clipped to a quantile of its own, and scaled back into the range.

    With s the quantile of |d| over a sample's numbers: where s > limit,

        d -> min(max(d, -s), s) limit / s.

    So pixels that saturate are pushed inwards, rather than all held at the end of the range.
    Saharia et al., "Photorealistic text-to-image diffusion models with deep language
    understanding" (Imagen), 2022, arXiv:2205.11487, section 2.3. Diffusers: `thresholding=True`
    with `dynamic_thresholding_ratio` = quantile and `sample_max_value` = max_threshold
    (there 1 unless said, which makes it static).

    Args:
        denoiser: of data in [-limit, limit].
        quantile: in [0, 1], linear between order statistics.
        limit: end of the range of data, > 0.
        max_threshold: the largest s, at least limit.

    Raises:
        ValueError: a quantile outside [0, 1], a limit that is not positive, max_threshold below
            limit.
    """
    return DynamicThresholding(denoiser, quantile, limit, max_threshold)


def _upper_quantile(values: Tensor, q: float) -> Tensor:
    """The q-quantile of each row, from its largest numbers alone (q is near 1), of any size."""
    n = values.shape[1]
    place = q * (n - 1)
    below = math.floor(place)
    largest = values.topk(n - below, dim=1).values
    low, high = largest[:, -1], largest[:, max(n - below - 2, 0)]
    return torch.lerp(low, high, place - below)
