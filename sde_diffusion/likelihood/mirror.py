r"""The process seen from its other end: noise in the place of data, so that samplers run upwards.

x = alpha x_0 + sigma eps does not say which of the two is the data. With eps in that place, the
scales are (sigma, alpha), time is -t, and the conditional mean is E[eps | x] = (x - alpha d)/sigma.
The probability-flow ODE alpha' d + sigma' E[eps | x] is the same one. So a solver that goes from
noise to data goes from data to noise when it is given the mirror image; it needs no inverse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..scalar import Scalar
from ..schedule import Schedule
from ..states import along

_NEAR_NOISE = 1e-6  # alpha/sigma from which one step reaches alpha = 0; its error is the square


class MirrorSchedule(Schedule):
    """(sigma_{-u}, alpha_{-u}) at time u = -t."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.t_min, self.t_max = -schedule.t_max, -schedule.t_min
        self.t_clean = self.t_min
        if schedule.alpha(schedule.t_max) == 0:
            near = torch.tensor(_NEAR_NOISE, dtype=torch.float64).log()
            self.t_clean = -float(schedule.time_of(float(near)))

    def alpha(self, t: Scalar) -> Scalar:
        return self.schedule.sigma(-t)

    def sigma(self, t: Scalar) -> Scalar:
        return self.schedule.alpha(-t)

    def derivatives(self, t: Scalar) -> tuple[Scalar, Scalar]:
        alpha_dot, sigma_dot = self.schedule.derivatives(-t)
        return -sigma_dot, -alpha_dot

    def half_log_snr(self, t: Scalar) -> Scalar:
        return -self.schedule.half_log_snr(-t)

    def _time_of(self, lambda_: Scalar) -> Scalar:
        return -self.schedule.time_of(-lambda_)


class Mirror(Denoiser):
    """E[eps | x] as the denoiser of `MirrorSchedule`."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.schedule = denoiser, MirrorSchedule(denoiser.schedule)
        self.device = getattr(denoiser, "device", None)

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        alpha_t, sigma_t = (along(c, x) for c in self.denoiser.schedule(-t))
        return (x - alpha_t * self.denoiser(x, -t)) / sigma_t

    def select(self, who: Tensor) -> Mirror:
        chosen = Mirror.__new__(Mirror)
        chosen.denoiser, chosen.schedule = self.denoiser.select(who), self.schedule
        chosen.device = self.device
        return chosen
