r"""The denoising loss, for every prediction and every weight.

A network F is read as d = a x_t + b F, so that an error of F is an error of d over b, and

    L = E [ weight(t) |F(x_t, t) - F*|^2 / D ],     F* = (x_0 - a x_t)/b,
    x_t = alpha_t x_0 + sigma_t eps,

with D the number of coordinates. Ho, Jain & Abbeel, "Denoising diffusion probabilistic models",
2020, arXiv:2006.11239, eq. 14, for a network that predicts the noise and weight 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..denoise import NetworkDenoiser, along
from .batch import Batch, Losses
from .describe import describe_schedule
from .objective import Objective


class DiffusionObjective(Objective):
    """Least squares on what the network predicts.

    Args:
        denoiser: the network to train and how to read it; its network must be a module.
        drop: share of the samples whose context is withheld, for classifier-free guidance.
    """

    def __init__(self, denoiser: NetworkDenoiser, drop: float = 0.0) -> None:
        super().__init__()
        if not isinstance(denoiser.network, nn.Module):
            raise TypeError(f"the network to train must be a torch module: {denoiser.network!r}")
        self.denoiser, self.network, self.drop = denoiser, denoiser.network, drop

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "prediction": self.denoiser.prediction,
            "schedule": describe_schedule(self.denoiser.schedule),
            "drop": self.drop,
        }

    def forward(self, batch: Batch, generator: torch.Generator) -> Losses:
        x_0, context = batch
        schedule, count = self.denoiser.schedule, len(x_0)
        u = torch.rand((), generator=generator, dtype=torch.float64)
        strata = (u + torch.arange(count, dtype=torch.float64) / count) % 1
        t = (schedule.t_clean + (schedule.t_max - schedule.t_clean) * strata).to(x_0.device)
        eps = torch.randn(x_0.shape, generator=generator).to(x_0)
        dropped = torch.rand(count, generator=generator) < self.drop
        alpha_t, sigma_t = (along(c, x_0) for c in schedule(t))
        x_t = alpha_t * x_0 + sigma_t * eps
        condition = () if context is None else (context, dropped.to(x_0.device))
        output, a, b = self.denoiser.given(*condition).output(x_t, t)
        loss = _mean((output - (x_0 - a * x_t) / b).square())
        lambda_ = torch.as_tensor(schedule.half_log_snr(t))
        error = loss.detach() * _mean(torch.as_tensor(b * alpha_t / sigma_t)) ** 2
        return Losses(loss, lambda_, error)


def _mean(values: Tensor) -> Tensor:
    """The mean over all axes but the first."""
    return values.flatten(1).mean(1)
