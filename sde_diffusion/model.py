"""A model as plain data: what a file must hold to make the denoiser again, but for the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .denoise import NetworkDenoiser
from .learned_schedule import Monotone
from .networks import build
from .options import called
from .schedule import Schedule
from .schedule_names import description_of, schedule_of


def default_label(schedule: Schedule) -> str:
    """How a new network is told the time: "time" where it lies in [0, 1], else "edm".

    On a schedule that moves while it is learned, "edm" too: a noise level, not a time.
    """
    if isinstance(schedule, Monotone):
        return "edm"
    return "time" if schedule.t_min >= 0 and schedule.t_max <= 1 else "edm"


def describe_model(
    denoiser: NetworkDenoiser,
    event_shape: Sequence[int],
    classes: int | None = None,
    range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """What `model_of` makes the denoiser again from, and what its samples are, as JSON has it.

    Args:
        denoiser: with a network of `NETWORKS`.
        event_shape: shape of one sample.
        classes: number of classes of its data, if there are.
        range: of the values of its data.

    Raises:
        ValueError: a network, schedule or label of one's own, which has no name.
    """
    network = getattr(denoiser.network, "configuration", None)
    if network is None or callable(denoiser.label):
        what = denoiser.label if network is not None else type(denoiser.network).__name__
        raise ValueError(
            f"{what} cannot be made again from a file: take a network of sde_diffusion.networks "
            "and a label by name, or keep the code and use load_weights"
        )
    return {
        "network": network,
        "schedule": description_of(denoiser.schedule),
        "prediction": denoiser.prediction,
        "label": denoiser.label,
        "timesteps": denoiser.timesteps,
        "sigma_data": denoiser.sigma_data,
        "event_shape": list(event_shape),
        "classes": classes,
        "range": None if range is None else list(range),
    }


def model_of(description: Mapping[str, Any], where: str = "model") -> NetworkDenoiser:
    """The denoiser of a description, its network with the initial weights of its seed.

    Raises:
        ValueError: unknown or missing keys, the nearest right one named.
    """
    return called(where, _model, description)


def _model(
    network: Mapping[str, Any],
    schedule: Mapping[str, Any],
    prediction: str,
    label: str,
    event_shape: list[int],
    timesteps: int | None = None,
    sigma_data: float = 0.5,
    classes: int | None = None,
    range: list[float] | None = None,
) -> NetworkDenoiser:
    made = build(network, event_shape)
    return NetworkDenoiser(made, schedule_of(schedule), prediction, label, timesteps, sigma_data)
