r"""A learned weight: the loss at each noise level divided by its own expected size.

With a function u(lambda) that is trained beside the network,

    L = E [ l e^{-u(lambda)} + u(lambda) ],

where l is the loss of a sample, the best u is log E[l | lambda]: there every noise level
contributes 1, and all levels pull equally on the network. Karras et al., "Analyzing and improving
the training dynamics of diffusion models", 2024, arXiv:2312.02696; Kendall, Gal & Cipolla,
"Multi-task learning using uncertainty to weigh losses", 2018, arXiv:1705.07115.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..denoise import NetworkDenoiser
from ..networks.embedding import TimeEmbedding
from .batch import Batch, Losses
from .objective import Objective
from .schedule_learning import LearnedScheduleObjective


class LogVariance(nn.Module):
    """u(lambda), a small network of tanh(lambda/8); 0 everywhere when new.

    Args:
        size: of its one hidden layer.
        seed: of its initial weights.
    """

    def __init__(self, size: int = 64, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.features = TimeEmbedding(size, highest=4.0, generator=generator)
        self.last = nn.utils.skip_init(nn.Linear, size, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, lambda_: Tensor) -> Tensor:
        """(batch,) half-log-SNRs, -inf and inf too -> (batch,)."""
        place = torch.tanh(lambda_.double() / 8).to(self.last.weight)
        value: Tensor = self.last(self.features(place))[:, 0]
        return value


class LearnedUncertainty(Objective):
    """Another objective, its loss weighed by a learned function of the noise level.

    The weight in the other objective still counts for the size of u, but no longer for what the
    network is trained on: at the best u the two cancel.

    Args:
        objective: whose losses come with half-log-SNRs.
        size: of the hidden layer of u.
        seed: of the initial weights of u.

    Raises:
        ValueError: an objective with importance sampling, whose losses are not those of their noise
            level but divided by q: u would learn q; one that learns its schedule.
    """

    def __init__(self, objective: Objective, size: int = 64, seed: int = 0) -> None:
        super().__init__()
        if getattr(objective, "importance", None) is not None:
            raise ValueError(
                "a learned uncertainty evens out the noise levels, and importance sampling draws "
                "by how uneven they are: use one of the two"
            )
        if isinstance(objective, LearnedScheduleObjective):
            raise ValueError(
                "a learned schedule needs the bound as it is, and a learned uncertainty changes "
                "its weights: use one of the two"
            )
        self.objective, self.log_variance = objective, LogVariance(size, seed)

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        return self.objective.network

    @property
    def denoiser(self) -> NetworkDenoiser | None:
        """What the other objective trains, if it is a denoiser."""
        return getattr(self.objective, "denoiser", None)

    def forward(self, batch: Batch, generator: torch.Generator) -> Losses:
        losses: Losses = self.objective(batch, generator)
        if losses.lambda_ is None:
            raise ValueError(
                f"{type(self.objective).__name__} has no noise levels: a learned uncertainty needs "
                "an objective whose losses come with half-log-SNRs"
            )
        u = self.log_variance(losses.lambda_.to(losses.loss.device)).to(losses.loss)
        return losses._replace(loss=losses.loss * torch.exp(-u) + u)

    def after_step(self) -> None:
        self.objective.after_step()

    def parameter_groups(self) -> list[dict[str, Any]]:
        own = {"params": list(self.log_variance.parameters())}
        return [*self.objective.parameter_groups(), own]

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "of": self.objective.describe()}
