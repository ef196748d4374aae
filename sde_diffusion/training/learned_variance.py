r"""The hybrid loss: a network learns the mean and the variance of a reverse step.

    L = |F - F*|^2 / D + 0.001 N L_k,        k uniform over the N steps of a grid,

with F the network's prediction and L_k the term of the variational bound for step k (`reverse`),
in bits per dimension, so that N L_k is the whole bound on average. The mean is held fixed in L_k:
the bound teaches the variance alone, and the mean learns from the plain loss. Nichol & Dhariwal,
"Improved denoising diffusion probabilistic models", 2021, arXiv:2102.09672, section 3.1; bits, as
in their code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..denoise import NetworkDenoiser
from ..reverse import Bins, interpolated, kl, logarithms, normal_nll, reverse_steps
from ..states import along
from ..times import check_grid, uniform
from .batch import Batch, Losses
from .describe import describe_schedule
from .diffusion import check_clean, check_noisy_end, conditioned, withheld
from .objective import Objective
from .units import error, scales, target

STEPS = 1000  # of the grid where the schedule has no number of its own


class LearnedVarianceObjective(Objective):
    """Least squares for the mean, the variational bound for the variance.

    Args:
        denoiser: a network with two outputs and how to read it.
        times: the grid whose steps are learned, noisy to clean; default: even in time, with the
            schedule's own number of steps or 1000, from t_max to t_min.
        weight: of the bound; 0.001 in the paper.
        bins: of the data, for the last step; None: a density.
        drop: share of the samples whose context is withheld, for classifier-free guidance; in
            evaluation mode none is.

    Raises:
        TypeError: if the network has one output.
        ValueError: weight or drop out of range; a bad grid; a prediction that says nothing of the
            data at the noisy end.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        times: Sequence[float] | Tensor | None = None,
        weight: float = 0.001,
        bins: Bins | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        network = getattr(denoiser, "network", None)
        if not isinstance(network, nn.Module) or getattr(denoiser, "outputs", 1) != 2:
            raise TypeError(
                "a learned variance needs a network, a module, with two outputs: build it with "
                "outputs=2, or say NetworkDenoiser(network, schedule, outputs=2) of one that has "
                "them"
            )
        if not (0 <= weight < math.inf and 0 <= drop <= 1):
            raise ValueError(f"weight = {weight}, drop = {drop}: need weight >= 0, drop in [0, 1]")
        schedule = denoiser.schedule
        if times is None:
            times = uniform(schedule, schedule.timesteps or STEPS)
        steps = reverse_steps(schedule, [float(t) for t in check_grid(schedule, times)])
        check_noisy_end(denoiser)
        self.denoiser, self.network = denoiser, network
        self.weight, self.bins, self.drop = float(weight), bins, float(drop)
        self.times = torch.tensor([float(step.t) for step in steps], dtype=torch.float64)
        on_d = [float(step.on_d) for step in steps]
        # c_d, log betatilde and log beta of each step: on the host, in float64, and not trained.
        self._table = torch.tensor([on_d, *logarithms(steps)], dtype=torch.float64)

    def describe(self) -> dict[str, Any]:
        bins = self.bins
        return {
            **super().describe(),
            "prediction": self.denoiser.prediction,
            "schedule": describe_schedule(self.denoiser.schedule),
            "times": self.times.tolist(),
            "weight": self.weight,
            "bins": None if bins is None else [bins.width, bins.low, bins.high],
            "drop": self.drop,
        }

    def forward(self, batch: Batch, generator: torch.Generator) -> Losses:
        check_clean(batch.x)
        x_0, context = batch
        schedule, denoiser, steps = self.denoiser.schedule, self.denoiser, len(self.times)
        k = torch.randint(steps, (len(x_0),), generator=generator)
        eps = torch.randn(x_0.shape, generator=generator).to(x_0)
        dropped = withheld(self.drop * self.training, len(x_0), generator)

        # Coefficients, in float64 on the host.
        t = self.times[k]
        told = (denoiser.prediction, schedule, t, denoiser.sigma_data)
        alpha_t, sigma_t, p, q = (along(c, x_0) for c in (*scales(schedule, t), *target(*told)))
        x_t = alpha_t * x_0 + sigma_t * eps
        output, v, a, b = conditioned(denoiser, context, dropped).with_variance(x_t, t)
        simple = _mean((output - (p * x_0 + q * eps)).square())
        d = (a * x_t + b * output).detach()
        bound = self._bound(x_0, d, v, k) / math.log(2)
        in_noise = error("noise", *told[1:]) / error(*told)
        loss = simple + self.weight * steps * bound
        lambda_ = torch.as_tensor(schedule.half_log_snr(t)).detach()
        return Losses(loss, lambda_, in_noise.to(simple) ** 2 * simple.detach())

    def _bound(self, x_0: Tensor, d: Tensor, v: Tensor, k: Tensor) -> Tensor:
        """L_k of each sample, in nats per dimension."""
        on_d, lower, upper = (along(c, x_0) for c in self._table[:, k])
        log_sigma = interpolated(v, lower, upper)
        nll = normal_nll if self.bins is None else self.bins.nll
        last = (k == len(self.times) - 1).to(x_0.device)
        step = _mean(kl(x_0, d, on_d, lower, log_sigma))
        return torch.where(last, _mean(nll(x_0, d, log_sigma)), step)


def _mean(values: Tensor) -> Tensor:
    """The mean over all axes but the first."""
    return values.flatten(1).mean(1)
