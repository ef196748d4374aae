"""How the output of a network is read, and how the network is told the time.

The formulas are those at the head of `denoise`; here they are tables by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from .names import look_up
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


Label = Callable[[Read, Scalar], Scalar]
"""(denoiser, t) -> what the network is told."""

LABELS: dict[str, Label] = {
    "time": lambda denoiser, t: t,
    "timestep": timestep,
    "fractional_timestep": timestep,
    "sigma": lambda denoiser, t: denoiser.schedule.rho(t),
    "log_snr": lambda denoiser, t: 2 * denoiser.schedule.half_log_snr(t),
    "edm": lambda denoiser, t: log(denoiser.schedule.rho(t)) / 4,
}


def label_of(
    label: str | Callable[[Scalar], Scalar], schedule: Schedule, timesteps: int | None
) -> Label:
    """How the network is told the time: by name, or by a function of it."""
    if callable(label):
        return lambda denoiser, t: label(t)
    found = look_up("label", label, LABELS)
    if found is timestep and not timesteps:
        raise ValueError(
            f"label {label!r} needs the number of timesteps the network knows, and "
            f"{schedule!r} has none: pass timesteps=1000"
        )
    return found


def check_defined(prediction: str, schedule: Schedule, times: Sequence[float]) -> None:
    """Raise ValueError where a prediction says nothing of the data at one of these times."""
    for scale in UNDEFINED[prediction]:
        values = torch.as_tensor(
            getattr(schedule, scale)(torch.tensor(times, dtype=torch.float64))
        ).expand(len(times))
        if not bool(values.all()):
            t = times[int((values == 0).nonzero()[0])]
            raise ValueError(
                f"{prediction} prediction says nothing of the data where {scale} = 0 (t = {t:g}): "
                "end the grid inside (t_start or t_end), or use a network that predicts the data "
                "or the velocity"
            )


def outputs_of(network: object, outputs: int | None) -> int:
    """How many tensors of the state's shape a network returns: as said, else as it says itself."""
    told = getattr(network, "outputs", 1)  # another package's may be of another meaning
    count = (told if type(told) is int else 1) if outputs is None else outputs
    if count not in (1, 2):
        raise ValueError(
            f"outputs = {count!r} must be 1, or 2 for a network that also tells a variance"
        )
    return count
