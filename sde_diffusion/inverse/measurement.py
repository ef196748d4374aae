r"""What was measured, y = A(x_0) + sigma_y n with n ~ N(0, I), and how well."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from ..noise import check_seed
from ..problems import GaussianMixture
from .operator import Constants, LinearOperator, Operator


class Measurement:
    """A measurement y and the operator and noise by which it was made.

    Args:
        operator: A.
        y: what was measured: one for all samples, shape measured_shape, or one a sample,
            (batch, *measured_shape).
        noise: sigma_y >= 0, the standard deviation of its noise.

    Raises:
        TypeError: no Operator; y no float32 or float64 tensor; noise no number.
        ValueError: y of another shape or not finite; a negative or infinite noise level.
    """

    def __init__(self, operator: Operator, y: Tensor, noise: float) -> None:
        _check_operator(operator)
        if not isinstance(y, Tensor) or y.dtype not in (torch.float32, torch.float64):
            kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(
                f"y is {kind}, not a float32 or float64 tensor; write torch.as_tensor(y).float()"
            )
        shape, measured = tuple(y.shape), tuple(operator.measured_shape)
        self.per_sample = len(shape) == len(measured) + 1
        if shape[int(self.per_sample) :] != measured:
            raise ValueError(
                f"y has shape {shape}, but the operator has measurements of shape {measured}; "
                f"give one for all samples, {measured}, or one a sample, (batch, *{measured})"
            )
        if self.per_sample and len(y) == 0:
            raise ValueError(f"y has shape {shape}: no measurements; give one a sample, or one y")
        if not bool(torch.isfinite(y).all()):
            raise ValueError("y has entries that are not finite; leave them out by a Mask")
        self.operator, self.noise = operator, check_noise(noise)
        self.y = y.detach().clone()  # its own: what was measured does not change
        self._constants = Constants(self.y.double())

    @classmethod
    def simulate(cls, operator: Operator, x_0: Tensor, noise: float, seed: int = 0) -> Measurement:
        """What would be measured of known data: y = A(x_0) + sigma_y n, n drawn by the seed.

        Args:
            operator: A.
            x_0: one datum, shape event_shape, or (batch, *event_shape).
            noise: sigma_y >= 0.
            seed: of n, drawn in float64 on the host, so that it is one on every device.
        """
        _check_operator(operator)
        noise = check_noise(noise)
        one = isinstance(x_0, Tensor) and tuple(x_0.shape) == tuple(operator.event_shape)
        with torch.no_grad():
            y = operator(x_0[None] if one else x_0)
        if not bool(torch.isfinite(x_0).all()):
            raise ValueError("x_0 has entries that are not finite, so that nothing can be measured")
        generator = torch.Generator().manual_seed(check_seed(seed))
        n = torch.randn(y.shape, generator=generator, dtype=torch.float64)
        y = y + noise * n.to(y)
        return cls(operator, y[0] if one else y, noise)

    def __repr__(self) -> str:
        count = f"{len(self.y)} samples" if self.per_sample else "all samples"
        return f"Measurement({self.operator}, y of {count}, noise={self.noise:g})"

    def residual(self, x_0: Tensor) -> Tensor:
        """y - A(x_0), of shape (batch, *measured_shape), differentiable in x_0."""
        measured = self.operator(x_0)
        (y,) = self._constants.like(measured)
        if self.per_sample and len(y) != len(measured):
            raise ValueError(
                f"there are {len(y)} measurements, one a sample, but {len(measured)} samples; "
                "give as many samples, or one measurement for all"
            )
        return y - measured

    def log_likelihood(self, x_0: Tensor) -> Tensor:
        """log N(y; A(x_0), sigma_y^2 I), shape (batch,); sigma_y > 0."""
        if self.noise == 0:
            raise ValueError(
                "noise = 0: a measurement without noise has no likelihood; say a small noise"
            )
        residual = (self.residual(x_0) / self.noise).flatten(1)
        constant = residual.shape[1] * math.log(2 * math.pi * self.noise**2)
        return -0.5 * (residual.square().sum(1) + constant)

    def select(self, who: Tensor) -> Measurement:
        """The measurements of some samples, by index: itself, where one is for all."""
        if not self.per_sample:
            return self
        chosen = copy.copy(self)
        chosen.y = self.y[who.to(self.y.device)]
        chosen._constants = Constants(chosen.y.double())
        return chosen

    def posterior(self, prior: GaussianMixture) -> GaussianMixture:
        """The exact law of x_0 given y, under a prior in closed form and a linear operator.

        Raises:
            TypeError: if the operator is not linear, or the prior no GaussianMixture.
            ValueError: if y is one a sample, or the prior's samples have another shape.
        """
        matrix = self._matrix(prior)
        return prior.posterior(matrix, self.y, self.noise)

    def evidence(self, prior: GaussianMixture) -> float:
        """log p(y) = log E N(y; A x_0, sigma_y^2 I), x_0 of the prior; as for `posterior`."""
        matrix = self._matrix(prior)
        return prior.evidence(matrix, self.y, self.noise)

    def _matrix(self, prior: GaussianMixture) -> Tensor:
        if not isinstance(prior, GaussianMixture):
            raise TypeError(
                f"prior is {type(prior).__name__}, not a GaussianMixture; a Gaussian is one of one "
                "component: GaussianMixture([1.0], mean[None], covariance[None])"
            )
        if not isinstance(self.operator, LinearOperator):
            raise TypeError(
                f"{type(self.operator).__name__} is not linear, so that the posterior has no "
                "closed form"
            )
        if self.per_sample:
            raise ValueError(
                f"there are {len(self.y)} measurements, one a sample, each with a posterior of "
                "its own; give one, y of shape measured_shape"
            )
        if tuple(prior.event_shape) != tuple(self.operator.event_shape):
            raise ValueError(
                f"the prior's samples have shape {prior.event_shape}, but the operator measures "
                f"data of shape {self.operator.event_shape}; write prior.shaped(*event_shape)"
            )
        return self.operator.matrix()


def _check_operator(operator: object) -> None:
    if not isinstance(operator, Operator):
        raise TypeError(
            f"operator is {type(operator).__name__}, not an Operator; wrap a function of your "
            "own: FunctionOperator(function, event_shape)"
        )


def check_noise(noise: float) -> float:
    """A noise level, 0 <= sigma_y < inf."""
    try:
        if isinstance(noise, bool | str):
            raise TypeError
        level = float(noise)
    except (TypeError, ValueError):
        raise TypeError(f"noise = {noise!r} is no number; it is a standard deviation") from None
    if not 0 <= level < math.inf:
        raise ValueError(f"noise = {noise} must be a standard deviation, 0 <= sigma_y < inf")
    return level
