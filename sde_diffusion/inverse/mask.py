"""Some of the numbers of the data are seen, the others are not: inpainting."""

from __future__ import annotations

import torch
from torch import Tensor

from .operator import Constants, Diagonal, inverse


class Mask(Diagonal):
    """The entries where the mask is True, one after another: y of shape (measured,).

    Only what was measured is in y, so that y has as many numbers as there is noise, and
    A A^T = I. `pseudo_inverse(y)` is the picture of it: each entry in its place, the others 0.

    Args:
        mask: booleans of shape event_shape; True where the datum is seen.

    Raises:
        TypeError: if it is not boolean.
        ValueError: if it shows nothing.
    """

    def __init__(self, mask: Tensor) -> None:
        if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(
                f"mask is {kind}, not a tensor of booleans; write torch.as_tensor(mask) > 0.5"
            )
        seen = mask.flatten().nonzero().flatten()
        if mask.ndim == 0 or len(seen) == 0:
            raise ValueError(
                f"a mask of shape {tuple(mask.shape)} with {len(seen)} entries True measures "
                "nothing; True is where the datum is seen"
            )
        self.event_shape, self.measured_shape = tuple(mask.shape), (len(seen),)
        self._constants = Constants(seen)

    def apply(self, x: Tensor) -> Tensor:
        (seen,) = self._constants.like(x)
        return x.flatten(1)[:, seen]

    def _adjoint(self, y: Tensor) -> Tensor:
        (seen,) = self._constants.like(y)
        x = y.new_zeros(len(y), torch.Size(self.event_shape).numel())
        return x.index_copy(1, seen, y).reshape(-1, *self.event_shape)

    def _solve(self, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return v * inverse(a + b)
