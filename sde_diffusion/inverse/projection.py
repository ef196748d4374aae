r"""Line integrals of an image from several sides, as a tomograph measures them.

The ray of detector s at angle theta is the line x cos(theta) + y sin(theta) = s; it sees the sum,
over the pixels that it crosses, of the length of the crossing times the pixel: the Radon transform
of an image that is constant on each pixel, exactly (Siddon, "Fast calculation of the exact
radiological path for a three-dimensional CT array", 1985).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from ..normal import Values, real
from .operator import Constants, LinearOperator, shape_of


class Projection(LinearOperator):
    """Parallel line integrals at each angle, in units of pixel times its side.

    Measurements have the shape (.., angles, detectors). Detectors are one pixel apart, and reach
    from corner to corner, so that at most angles the outer ones see nothing.

    Args:
        angles: in degrees, (angles,); at 0 the rays run down the columns, at 90 along the rows.
        event_shape: of one datum, (.., height, width), each channel for itself.

    Raises:
        ValueError: if there is no angle or one is not finite, or no two dimensions.
    """

    def __init__(self, angles: Values, event_shape: tuple[int, ...]) -> None:
        angles = real("angles", angles).cpu()
        self.event_shape = shape_of(event_shape, 2)
        if angles.ndim != 1 or len(angles) == 0:
            raise ValueError(f"angles have shape {tuple(angles.shape)}; give (angles,), in degrees")
        *channels, height, width = self.event_shape
        detectors = math.ceil(math.hypot(height, width))
        detectors += (detectors - width) % 2  # so that rays at angle 0 pass through middles
        self.measured_shape = (*channels, len(angles), detectors)
        s = torch.arange(detectors, dtype=torch.float64) - (detectors - 1) / 2
        sides = [_crossings(math.radians(angle), s, height, width) for angle in angles.tolist()]
        rays = torch.cat([detectors * k + ray for k, (ray, _, _) in enumerate(sides)])
        pixels, lengths = (torch.cat([side[i] for side in sides]) for i in (1, 2))
        size = (len(angles) * detectors, height * width)
        there = torch.sparse_coo_tensor(
            torch.stack((rays, pixels)), lengths, size, check_invariants=True
        ).coalesce()
        with warnings.catch_warnings():  # that compressed rows are young in torch
            warnings.simplefilter("ignore", UserWarning)
            self._constants = Constants(there.to_sparse_csr(), there.t().to_sparse_csr())

    def apply(self, x: Tensor) -> Tensor:
        there, back = self._constants.like(x)
        columns = x.reshape(-1, there.shape[1]).T
        return _Product.apply(columns, there, back).T.reshape(len(x), *self.measured_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        there, back = self._constants.like(y)
        columns = y.reshape(-1, there.shape[0]).T
        return _Product.apply(columns, back, there).T.reshape(len(y), *self.event_shape)


class _Product(torch.autograd.Function):
    """matrix @ x of a sparse matrix whose transpose is at hand for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.pair = matrix, transposed
        return matrix @ x.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        matrix, transposed = ctx.pair
        return _Product.apply(gradient, transposed, matrix), None, None


def _crossings(theta: float, s: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ray, pixel and length of every crossing at one angle; the image's middle is the origin."""
    cos, sin = math.cos(theta), math.sin(theta)
    # Along the ray, at (s cos - u sin, s sin + u cos), it crosses lines of the grid at these u.
    crossed = []
    for size, across, along in ((width, cos, -sin), (height, sin, cos)):
        if abs(along) > 1e-12:
            lines = torch.arange(size + 1, dtype=torch.float64) - size / 2
            crossed.append((lines - s[:, None] * across) / along)
    u = torch.cat(crossed, 1).sort(1).values
    lengths, middles = u.diff(dim=1), (u[:, 1:] + u[:, :-1]) / 2
    column = (s[:, None] * cos - middles * sin + width / 2).floor().long()
    row = (s[:, None] * sin + middles * cos + height / 2).floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (lengths > 1e-12)
    rays = torch.arange(len(s))[:, None].expand(inside.shape)
    return rays[inside], (row * width + column)[inside], lengths[inside]
