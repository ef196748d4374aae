r"""A matrix as an operator, with the singular value decomposition A = U diag(s) V^T by which

(a A A^T + b I)^{-1} = U diag(1 / (a s^2 + b)) U^T,    A^+ = V diag(1/s) U^T (0 where s = 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..normal import Values, real
from .operator import Constants, LinearOperator, inverse, of_rank, shape_of


class Matrix(LinearOperator):
    """y = A x of flattened data, solved in closed form for every a and b.

    The decomposition is made once, in float64.

    Args:
        matrix: A, (M, D).
        event_shape: of one datum, of D numbers; default (D,).

    Raises:
        ValueError: if it is no matrix, not finite, or D is another than event_shape holds,
            or that is no shape.
        TypeError: if it is a tensor of integers.
    """

    def __init__(self, matrix: Values, event_shape: tuple[int, ...] | None = None) -> None:
        a = real("matrix", matrix).cpu()
        if a.ndim != 2 or a.numel() == 0:
            raise ValueError(f"matrix has shape {tuple(a.shape)}; give A of shape (M, D)")
        measured, dim = a.shape
        self.event_shape = (dim,) if event_shape is None else shape_of(event_shape)
        if math.prod(self.event_shape) != dim:
            raise ValueError(
                f"event_shape = {event_shape} holds {math.prod(self.event_shape)} numbers, but the "
                f"matrix takes D = {dim}"
            )
        self.measured_shape = (measured,)
        u, s, vt = torch.linalg.svd(a, full_matrices=False)
        self._constants = Constants(a, u, of_rank(s), vt)

    def apply(self, x: Tensor) -> Tensor:
        a, *_ = self._constants.like(x)
        return x.flatten(1) @ a.T

    def _adjoint(self, y: Tensor) -> Tensor:
        a, *_ = self._constants.like(y)
        return (y @ a).reshape(-1, *self.event_shape)

    def _solve(self, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        _, u, s, _ = self._constants.like(v)
        inside = v @ u
        # What no datum explains, U's complement, is left to b alone.
        outside = v - inside @ u.T
        return (inside * inverse(a * s**2 + b)) @ u.T + outside * inverse(b)

    def _adjoint_solve(self, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        _, u, s, vt = self._constants.like(v)
        # Where b = 0 and s = 0, nothing comes from nothing.
        weights = torch.where(s > 0, s / (a * s**2 + b), 0.0)
        return ((v @ u * weights) @ vt).reshape(-1, *self.event_shape)

    def _spectral(self, v: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        _, u, s, _ = self._constants.like(v)
        inside = v @ u
        outside = v - inside @ u.T
        return (inside * function(s[None] ** 2)) @ u.T + outside * function(s.new_zeros(1, 1))

    @property
    def _small(self) -> bool:
        return True

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        _, u, s, vt = self._constants.like(y)
        return ((y @ u * inverse(s)) @ vt).reshape(-1, *self.event_shape)

    def matrix(self) -> Tensor:
        return self._constants.like(torch.empty(0, dtype=torch.float64))[0].clone()
