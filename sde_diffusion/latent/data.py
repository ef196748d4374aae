"""Latents as data to train on."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.encoding import Posterior
from ..training.batch import Batch
from ..training.data import Data, class_count


class Latents(Data):
    """The posteriors q(z|x) of all samples, encoded once.

    Asked with a generator, as a trainer does, every sample is a new draw z ~ q(z|x); asked without
    one, it is the mean. Made by `LatentSpace.encode_all`.

    Args:
        posterior: of all samples, mean of shape (n, *latent).
        context: conditions of the samples, or None.
        origin: what was encoded and by what, the same text for the same latents.
    """

    def __init__(self, posterior: Posterior, context: Tensor | None, origin: str) -> None:
        self.posterior, self.context, self.origin = posterior, context, origin
        self.event_shape = tuple(posterior.mean.shape[1:])
        self.classes = class_count(context)

    def __len__(self) -> int:
        return len(self.posterior.mean)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        chosen = indices.to(self.posterior.mean.device)
        mean, log_variance = self.posterior
        posterior = Posterior(mean[chosen], None if log_variance is None else log_variance[chosen])
        z = posterior.mean if generator is None else posterior.draw(generator)
        return Batch(z, None if self.context is None else self.context[chosen])

    def describe(self) -> str:
        return self.origin
