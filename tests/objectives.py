"""Objectives whose network answers what a given denoiser would, and what is known of them.

On Gaussian data x_0 ~ N(m, v) the best denoiser is linear in x_t, with V = alpha^2 v + sigma^2:

    E[x_0 | x_t] = m + alpha v (x_t - alpha m)/V,      mean squared error sigma^2 v/V.
"""

import torch
from torch import nn

import sde_diffusion as sd
from sde_diffusion.training import DiffusionObjective
from sde_diffusion.training.units import target

MEAN, VARIANCE = 0.7, 0.3
PREDICTIONS = ["noise", "data", "velocity", "flow", "score", "edm"]
SCHEDULES = [sd.VPLinear(), sd.SubVP(), sd.VPCosine(), sd.VE(), sd.EDM(), sd.FlowMatching()]
AT_ALPHA_ZERO = ["data", "velocity", "flow"]  # the others divide by alpha: refused there
PAIRS = [
    (schedule, prediction)
    for schedule in SCHEDULES
    for prediction in (AT_ALPHA_ZERO if schedule.alpha(schedule.t_max) == 0 else PREDICTIONS)
]
DOUBLE = torch.float64


class Answering(nn.Module):
    """A network that answers what a given denoiser function would, in any prediction."""

    def __init__(self, best, schedule, prediction, sigma_data=0.5):
        super().__init__()
        self.best, self.schedule = best, schedule
        self.prediction, self.sigma_data = prediction, sigma_data
        self.scale = nn.Parameter(torch.ones((), dtype=DOUBLE))

    def forward(self, x, t):
        alpha, sigma = (torch.as_tensor(c).reshape(-1, 1) for c in self.schedule(t))
        if self.prediction == "edm":  # the network is given c_in x
            x = x * alpha * torch.sqrt((sigma / alpha) ** 2 + self.sigma_data**2)
        d = self.best(x, alpha, sigma)
        eps = (x - alpha * d) / sigma
        p, q = (c.reshape(-1, 1) for c in target(self.prediction, self.schedule, t))
        return self.scale * (p * d + q * eps)


def gaussian_mean(x, alpha, sigma):
    total = alpha**2 * VARIANCE + sigma**2
    return MEAN + alpha * VARIANCE * (x - alpha * MEAN) / total


def crude(x, alpha, sigma):
    """Some denoiser, not the best."""
    return torch.tanh(x) / (1 + alpha) + 0.1 * sigma


def objective(schedule, prediction, best=crude, **options):
    denoiser = sd.NetworkDenoiser(
        Answering(best, schedule, prediction), schedule, prediction, label=lambda t: t
    )
    return DiffusionObjective(denoiser, **options)
