r"""Learning the schedule beside the network: the one for variance, the other for the mean.

Under a weight that is stated for the half-log-SNR ("likelihood", "sigmoid"), with times uniform,

    E[L] = int_0^1 w e (-lambda'_t) dt = int w e d lambda,      e = E |eps - eps_hat|^2/D,

depends on lambda(t) through its two ends alone: whatever lies between them changes the variance of
the estimate L and nothing else. So the network and the ends are trained on the mean of L, and the
curve between the ends on the mean of L^2, whose minimum is that of the variance. Both gradients
come from one backward pass, by d L^2 = 2 L dL along the path from L through s(t) and s'(t) to the
weights of the curve. Kingma et al., "Variational diffusion models", 2021, arXiv:2107.00630, section
5.1 and appendix.

Where the ends are learned too, the two other terms of the bound are added to L, which hold them:
for data in bins, per coordinate,

    KL(N(alpha_1 x_0, sigma_1^2) || N(0, 1))          at the noisy end,
    -log P(bin of x_0 | N(x_{t=0}/alpha, rho^2))      at the clean end.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..denoise import NetworkDenoiser
from ..learned_schedule import LearnedSchedule, Squared
from ..reverse import Bins
from .batch import Batch, Losses
from .diffusion import DiffusionObjective
from .laws import Uniform
from .objective import Objective
from .weightings import Flat

LIKELIHOOD = Flat("nats")


class LearnedScheduleObjective(Objective):
    """A denoising objective whose schedule is trained too, for the least variance of the loss.

    After training, `objective.denoiser.schedule.frozen()` is the schedule to sample with.

    Args:
        objective: on a `LearnedSchedule`; weighted in nats ("likelihood" or "sigmoid"), with
            uniform times and without importance sampling.
        bins: of the data, where the ends are learned.
        learning_rate: of the schedule; None: that of the network.

    Raises:
        TypeError: another schedule.
        ValueError: an objective whose mean depends on the schedule between its ends; a network
            that is told the time; ends to learn without bins.
    """

    def __init__(
        self,
        objective: DiffusionObjective,
        bins: Bins | None = None,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__()
        schedule = objective.denoiser.schedule
        if not isinstance(schedule, LearnedSchedule):
            raise TypeError(f"{schedule!r} has no weights to learn: build a LearnedSchedule")
        plain = isinstance(objective.times.law, Uniform) and objective.importance is None
        if objective.weighting.unit != "nats" or not plain:
            raise ValueError(
                f"with weighting = {objective.weighting!r}, times = {objective.times.law!r} and "
                f"importance = {objective.importance!r} the mean of the loss depends on the "
                "schedule between its ends, so that learning it would change what is minimised: "
                "take weighting='likelihood' or 'sigmoid', times='uniform' and importance=None"
            )
        label = objective.denoiser.label
        if label in ("time", "timestep", "fractional_timestep"):
            raise ValueError(
                f"label = {label!r} tells the network the time, whose noise level moves as the "
                "schedule is learned: take label='edm' or 'log_snr'"
            )
        if schedule.learn_ends and (bins is None or objective.weighting != LIKELIHOOD):
            raise ValueError(
                "the ends are learned by the whole bound of discrete data: give bins, and "
                "weighting='likelihood'; or learn_ends=False"
            )
        self.objective, self.schedule = objective, schedule
        self.bins, self.learning_rate = bins, learning_rate

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        return self.objective.network

    @property
    def denoiser(self) -> NetworkDenoiser:
        """The network on the schedule that is learned."""
        return self.objective.denoiser

    def forward(self, batch: Batch, generator: torch.Generator) -> Losses:
        squared = Squared(self.schedule)
        inner = copy.copy(self.objective)
        inner.denoiser = self.objective.denoiser.on(squared)
        losses = inner.forward(batch, generator)
        squared.losses = losses.loss.detach()
        if self.schedule.learn_ends:
            eps = torch.randn(batch.x.shape, generator=generator).to(batch.x)
            losses = losses._replace(loss=losses.loss + self._ends(batch.x, eps).to(losses.loss))
        return losses

    def _ends(self, x_0: Tensor, eps: Tensor) -> Tensor:
        """L_T + L_0, nats per coordinate, shape (batch,)."""
        assert self.bins is not None
        clean, noisy = (v.to(x_0) for v in self.schedule.ends())
        alpha2, log_sigma2 = torch.sigmoid(2 * noisy), nn.functional.logsigmoid(-2 * noisy)
        prior = (alpha2 * x_0.square() + torch.expm1(log_sigma2) - log_sigma2) / 2
        guess = x_0 + torch.exp(-clean) * eps  # x_t/alpha_t at the clean end
        reconstruction = self.bins.nll(x_0, guess, -2 * clean)
        return (prior + reconstruction).reshape(len(x_0), -1).mean(1)

    def after_step(self) -> None:
        self.objective.after_step()

    def parameter_groups(self) -> list[dict[str, Any]]:
        own: dict[str, Any] = {"params": [p for p in self.schedule.parameters() if p.requires_grad]}
        own["weight_decay"] = 0.0  # the weights of the curve have no zero to return to
        if self.learning_rate is not None:
            own["lr"] = self.learning_rate
        return [*self.objective.parameter_groups(), own]

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "of": self.objective.describe(),
            "bins": repr(self.bins),
            "learning_rate": self.learning_rate,
        }
