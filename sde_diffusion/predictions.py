"""How the output of a network is read, and how the network is told the time.

The formulas are those at the head of `denoise`; here they are tables by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .scalar import Scalar, log, sqrt
from .schedule import Schedule


class Read(Protocol):
    """What the tables know of a denoiser."""

    schedule: Schedule
    sigma_data: float
    timesteps: int | None


Affine = Callable[[Read, Scalar, Scalar, Scalar], tuple[Scalar, Scalar, Scalar]]
"""(denoiser, t, alpha, sigma) -> (c_in, a, b) with d = a x + b F(c_in x)."""


def _flow(denoiser: Read, t: Scalar, alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    alpha_dot, sigma_dot = denoiser.schedule.derivatives(t)
    wronskian = alpha * sigma_dot - sigma * alpha_dot
    return 1.0, sigma_dot / wronskian, -sigma / wronskian


def _edm(denoiser: Read, t: Scalar, alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    rho, data = sigma / alpha, denoiser.sigma_data
    total = rho * rho + data * data
    return 1 / (alpha * sqrt(total)), data * data / (total * alpha), rho * data / sqrt(total)


AFFINE: dict[str, Affine] = {
    "data": lambda denoiser, t, alpha, sigma: (1.0, 0.0, 1.0),
    "noise": lambda denoiser, t, alpha, sigma: (1.0, 1 / alpha, -sigma / alpha),
    "velocity": lambda denoiser, t, alpha, sigma: (
        1.0,
        alpha / (alpha * alpha + sigma * sigma),
        -sigma / (alpha * alpha + sigma * sigma),
    ),
    "flow": _flow,
    "score": lambda denoiser, t, alpha, sigma: (1.0, 1 / alpha, sigma * sigma / alpha),
    "edm": _edm,
}
UNDEFINED = {
    "data": (),
    "noise": ("alpha",),
    "velocity": (),
    "flow": (),
    "score": ("alpha",),
    "edm": ("alpha", "sigma"),
}


def timestep(denoiser: Read, t: Scalar) -> Scalar:
    """k with t = t_min + (t_max - t_min) (k + 1) / N."""
    schedule = denoiser.schedule
    count = denoiser.timesteps or 0  # given, or the constructor refused
    return (t - schedule.t_min) / (schedule.t_max - schedule.t_min) * count - 1


def plain_label(function: Callable[[Scalar], Scalar]) -> Callable[[Read, Scalar], Scalar]:
    return lambda denoiser, t: function(t)


LABELS: dict[str, Callable[[Read, Scalar], Scalar]] = {
    "time": lambda denoiser, t: t,
    "timestep": timestep,
    "fractional_timestep": timestep,
    "sigma": lambda denoiser, t: denoiser.schedule.rho(t),
    "log_snr": lambda denoiser, t: 2 * denoiser.schedule.half_log_snr(t),
    "edm": lambda denoiser, t: log(denoiser.schedule.rho(t)) / 4,
}


def undefined(prediction: str, scale: str, t: float) -> str:
    """What to say where a prediction in `UNDEFINED` is asked at scale = 0."""
    return (
        f"{prediction} prediction says nothing of the data where {scale} = 0 (t = {t:g}): end the "
        "grid inside (t_start or t_end), or use a network that predicts the data or the velocity"
    )
