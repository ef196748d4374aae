r"""What an autoencoder is: a posterior of latents for each sample, and samples from latents.

The posterior is a normal law with independent coordinates, q(z|x) = N(m(x), diag s^2(x)), or one
point m(x). Kingma & Welling, "Auto-encoding variational Bayes", 2014, arXiv:1312.6114.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Posterior(NamedTuple):
    """q(z|x) = N(mean, diag exp(log_variance)) of each sample of a batch.

    Attributes:
        mean: m(x), shape (batch, *latent).
        log_variance: log s^2(x), of the same shape; None for the point m(x).
    """

    mean: Tensor
    log_variance: Tensor | None = None

    def draw(self, generator: torch.Generator) -> Tensor:
        """z = m + s eps; of a point, m, and nothing is drawn.

        Args:
            generator: on the CPU, so that every device draws the same numbers.
        """
        if self.log_variance is None:
            return self.mean
        eps = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return torch.addcmul(self.mean, (self.log_variance / 2).exp(), eps)

    def divergence(self) -> Tensor:
        """KL(q || N(0, I)) = 1/2 sum (m^2 + s^2 - 1 - log s^2), nats a sample, shape (batch,).

        Raises:
            ValueError: for points, where it is infinite.
        """
        if self.log_variance is None:
            raise ValueError("the divergence of a point from the normal law is infinite")
        # expm1, because s^2 - 1 - log s^2 cancels where the posterior is near the normal law
        terms = self.mean.square() + self.log_variance.expm1() - self.log_variance
        return terms.flatten(1).sum(1) / 2


class Autoencoding(nn.Module, ABC):
    """Two maps to be trained together: samples -> posteriors of latents, latents -> samples.

    Attributes:
        variational: whether the posteriors have a variance.
        configuration: a mapping that JSON can hold, from which the module can be built again.
    """

    variational: bool
    configuration: dict[str, Any]

    @abstractmethod
    def encode(self, x: Tensor) -> Posterior:
        """q(z|x) of samples x, shape (batch, *event)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """x_hat(z), shape (batch, *event), of latents z, shape (batch, *latent)."""
