r"""What is measured of the data: operators A of y = A(x_0) + sigma_y n, n ~ N(0, I).

A linear one also has its adjoint A^T, <A x, y> = <x, A^T y>, and can solve the systems in which
every method for inverse problems ends,

    (a A A^T + b I) u = v,    a, b >= 0,

in closed form where its singular vectors are known (a mask, a circular blur), otherwise by
conjugate gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ..scalar import Scalar


class Operator(ABC):
    """A: data (batch, *event_shape) -> measurements (batch, *measured_shape), sample by sample.

    Attributes:
        event_shape: of one datum.
        measured_shape: of one measurement.
    """

    event_shape: tuple[int, ...]
    measured_shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """A(x); x of shape (batch, *event_shape). Checks shapes and dtype at the door."""
        raise NotImplementedError

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """A(x), differentiable in x, unchecked."""


class LinearOperator(Operator):
    """A linear operator; its adjoint comes from automatic differentiation unless given."""

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y; y of shape (batch, *measured_shape)."""
        raise NotImplementedError

    def solve(self, v: Tensor, a: Scalar, b: Scalar) -> Tensor:
        """u with (a A A^T + b I) u = v.

        Args:
            v: (batch, *measured_shape).
            a, b: at least 0 and not both 0; numbers, or one a sample, (batch,). With b = 0 the
                solution of least norm, (a A A^T)^+ v.
        """
        raise NotImplementedError

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A^+ y = A^T (A A^T)^+ y, the datum of least norm among the nearest to y."""
        return self.adjoint(self.solve(y, 1.0, 0.0))

    def matrix(self) -> Tensor:
        """A as a matrix, float64, (measured numbers, data numbers)."""
        raise NotImplementedError
