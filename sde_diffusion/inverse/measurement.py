r"""What was measured, y = A(x_0) + sigma_y n with n ~ N(0, I), and how well."""

from __future__ import annotations

from torch import Tensor

from .operator import Operator


class Measurement:
    """A measurement y and the operator and noise by which it was made.

    Args:
        operator: A.
        y: what was measured: one for all samples, shape measured_shape, or one a sample,
            (batch, *measured_shape).
        noise: sigma_y >= 0, the standard deviation of its noise.

    Raises:
        TypeError: no Operator; y no floating tensor.
        ValueError: y of another shape or not finite; a negative or infinite noise level.
    """

    def __init__(self, operator: Operator, y: Tensor, noise: float) -> None:
        self.operator, self.y, self.noise = operator, y, float(noise)

    def residual(self, x_0: Tensor) -> Tensor:
        """y - A(x_0), of shape (batch, *measured_shape)."""
        raise NotImplementedError

    def log_likelihood(self, x_0: Tensor) -> Tensor:
        """log N(y; A(x_0), sigma_y^2 I), shape (batch,); sigma_y > 0."""
        raise NotImplementedError

    def select(self, who: Tensor) -> Measurement:
        """The measurements of some samples, by index: itself, where one is for all."""
        raise NotImplementedError
