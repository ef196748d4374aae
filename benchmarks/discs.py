r"""Synthetic images whose law is known: one coloured disc on black, 64 x 64 pixels in [-1, 1].

A disc has a centre, uniform in [0.25, 0.75]^2, a radius, uniform in [0.1, 0.2], and a red, green
and blue, each uniform in [0.3, 1], all independent; lengths are in units of the image's side. A
pixel's coverage m is its distance to the edge in pixels plus 1/2, held within [0, 1].

With b = (x + 1)/2, w the mean of b over the colours, p places and r the radius in pixels, the six
numbers come back from an image x by

    centre = sum w p / sum w,  pi r^3/(r - 1/3) = (sum w)^2/sum w^2,  colour = sum b / (pi r^2),

where the 1/3 is due to the edge, sum m^2 = pi r^2 - pi r/3; solved for r up to order 1/r. Thus the
law of generated images can be compared with the known one, and an image with the disc of its own
six numbers: what that disc does not explain is no disc.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sde_diffusion.training import Batch, Data

NAMES = ("centre x", "centre y", "radius", "red", "green", "blue")
LOWEST = (0.25, 0.25, 0.1, 0.3, 0.3, 0.3)
HIGHEST = (0.75, 0.75, 0.2, 1.0, 1.0, 1.0)


def draw(count: int, seed: int = 0) -> Tensor:
    """(count, 6) numbers of discs, in the order of `NAMES`."""
    low, high = torch.tensor(LOWEST), torch.tensor(HIGHEST)
    return low + (high - low) * torch.rand(count, 6, generator=torch.Generator().manual_seed(seed))


def render(numbers: Tensor, side: int = 64) -> Tensor:
    """Images of discs, (n, 6) -> (n, 3, side, side) in [-1, 1]."""
    place = (torch.arange(side) + 0.5) / side
    x, y, radius = (numbers[:, i, None, None] for i in range(3))
    distance = ((place - x).square() + (place[:, None] - y).square()).sqrt()
    coverage = ((radius - distance) * side + 0.5).clamp(0, 1)
    return 2 * numbers[:, 3:, None, None] * coverage[:, None] - 1


def read(images: Tensor) -> Tensor:
    """The six numbers of each image, (n, 3, side, side) -> (n, 6); float64."""
    bright = (images.double() + 1) / 2
    weight = bright.mean(1)
    side = weight.shape[-1]
    place = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    total, squares = weight.sum((1, 2)), weight.square().sum((1, 2))
    x, y = (weight.sum(axis) @ place / total for axis in (1, 2))
    pixels = (total.square() / squares / math.pi - 1 / 12).sqrt() - 1 / 6
    colours = bright.sum((2, 3)) / (math.pi * pixels.square())[:, None]
    return torch.cat([torch.stack([x, y, pixels / side], 1), colours], 1)


def unexplained(images: Tensor) -> Tensor:
    """Root mean square of each image minus the disc of its own six numbers, (n,)."""
    again = render(read(images), images.shape[-1])
    return (images.double() - again).square().flatten(1).mean(1).sqrt()


def distances(numbers: Tensor) -> dict[str, float]:
    """Wasserstein-1 distance of each number's values to its uniform law, over that law's deviation.

    Of n values drawn from the law itself it is about 1/sqrt(n), with n = len(numbers).
    """
    levels = (torch.arange(len(numbers), dtype=torch.float64) + 0.5) / len(numbers)
    found = {}
    for i, name in enumerate(NAMES):
        low, high = LOWEST[i], HIGHEST[i]
        gap = numbers[:, i].double().sort().values - (low + (high - low) * levels)
        found[name] = float(gap.abs().mean()) / ((high - low) / math.sqrt(12))
    return found


class Discs(Data):
    """`count` discs, rendered as they are asked for; another seed gives other discs."""

    def __init__(self, count: int, seed: int = 0, side: int = 64) -> None:
        self.numbers, self.seed, self.side = draw(count, seed), seed, side
        self.event_shape, self.range = (3, side, side), (-1.0, 1.0)

    def __len__(self) -> int:
        return len(self.numbers)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        return Batch(render(self.numbers[indices], self.side))

    def describe(self) -> str:
        return f"{len(self)} discs of seed {self.seed}, {self.side} x {self.side} pixels"
