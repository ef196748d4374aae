r"""Synthetic images whose law is known: one soft-edged coloured disc on black, in [-1, 1].

A disc has a centre, uniform in [0.25, 0.75]^2, a radius r, uniform in [0.1, 0.2], and a red, green
and blue, each uniform in [0.3, 1], all independent; lengths are in units of the image's side. From
full colour to black its edge takes a width e = 3/32, six of 64 pixels: at a distance d from the
centre the coverage is m = (r - d)/e + 1/2, held within [0, 1].

With b = (x + 1)/2 at places p, w the mean of b over the colours, c the mean colour and h = e^2/12,

    sum w = c pi (r^2 + h),    sum w^2 = c^2 pi (r^2 - e r/3 + h),    in units of area,

because m is the probability that a disc of radius r + u, u uniform in [-e/2, e/2], covers p, and
the smaller of two such u has mean -e/6 and mean square h. So the six numbers come back from x by

    centre = sum w p / sum w,  (r^2 + h)^2/(r^2 - e r/3 + h) = (sum w)^2/(pi sum w^2),
    colour = sum b / (pi (r^2 + h)),

the middle one solved by iteration. The sums go over the pixels within 0.2 + e of the centre of the
whole image, which hold every disc and leave out most of what is not one. Thus the law of generated
images can be compared with the known one, and an image, the whole of it, with the disc of its own
six numbers: what that does not explain is no disc.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sde_diffusion.training import Batch, Data

NAMES = ("centre x", "centre y", "radius", "red", "green", "blue")
LOWEST = (0.25, 0.25, 0.1, 0.3, 0.3, 0.3)
HIGHEST = (0.75, 0.75, 0.2, 1.0, 1.0, 1.0)
EDGE = 3 / 32  # of the side


def draw(count: int, seed: int = 0) -> Tensor:
    """(count, 6) numbers of discs, in the order of `NAMES`."""
    low, high = torch.tensor(LOWEST), torch.tensor(HIGHEST)
    return low + (high - low) * torch.rand(count, 6, generator=torch.Generator().manual_seed(seed))


def render(numbers: Tensor, side: int = 64) -> Tensor:
    """Images of discs, (n, 6) -> (n, 3, side, side) in [-1, 1]."""
    place = (torch.arange(side) + 0.5) / side
    radius, distance = numbers[:, 2, None, None], _distances(place, numbers[:, 0], numbers[:, 1])
    coverage = ((radius - distance) / EDGE + 0.5).clamp(0, 1)
    return 2 * numbers[:, 3:, None, None] * coverage[:, None] - 1


def read(images: Tensor) -> Tensor:
    """The six numbers of each image, (n, 3, side, side) -> (n, 6); float64."""
    bright = (images.double() + 1) / 2
    weight = bright.mean(1)
    side = weight.shape[-1]
    place = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    distance = _distances(place, *_centre(weight, place))
    near = distance <= HIGHEST[2] + EDGE
    weight, bright = weight * near, bright * near[:, None]
    total, squares = weight.mean((1, 2)), weight.square().mean((1, 2))
    x, y = _centre(weight, place)
    wanted, h = total.square() / squares / math.pi, EDGE**2 / 12
    radius = wanted.sqrt()
    for _ in range(
        30
    ):  # a contraction, by about EDGE/(6 radius): r^2 = A - h - A e r/(3 (r^2 + h))
        radius = (wanted - h - wanted * EDGE * radius / (3 * (radius.square() + h))).sqrt()
    colours = bright.mean((2, 3)) / (math.pi * (radius.square() + h))[:, None]
    return torch.cat([torch.stack([x, y, radius], 1), colours], 1)


def _centre(weight: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    total = weight.sum((1, 2))
    return weight.sum(1) @ place / total, weight.sum(2) @ place / total


def _distances(place: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Of each pixel from (x, y): (n,), (n,) -> (n, side, side)."""
    across, down = place - x[:, None], place - y[:, None]
    return (across.square()[:, None, :] + down.square()[:, :, None]).sqrt()


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
