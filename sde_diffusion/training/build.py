"""From the tables of a configuration to a trainer, everything checked before the first step."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..denoise import NetworkDenoiser
from ..model import default_label
from ..networks import build
from ..options import called
from ..sample import sample
from ..schedule_names import schedule_of
from .config import Configuration
from .data import Data
from .fits import check_fits
from .objectives import objective_of
from .sources import data_of
from .trainer import Trainer


@dataclass(frozen=True)
class Samples:
    """Pictures drawn as training goes.

    Attributes:
        n: how many; classes take turns.
        steps, solver, seed: of `sample`.
    """

    n: int = 64
    steps: int | None = None
    solver: str = "default"
    seed: int = 0


def trainer_of(
    configuration: Configuration,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Trainer:
    """The trainer of a configuration, ready to `train()`.

    Args:
        configuration: the tables.
        folder: where everything is kept; default: what [training] says. Without one, neither
            samples are drawn nor held-out data looked at.
        progress: tell progress on stderr.

    Raises:
        ValueError: an unknown or missing key (with the nearest right one), a value of another type
            or out of range, data outside their stated range, a network that does not fit them; all
            name the file and the table.
    """
    place = configuration.place
    training = dict(configuration.training)
    if folder is not None:
        training["folder"] = str(folder)
    data = data_of(configuration.data, place("data"))
    held_out = None
    if configuration.held_out is not None:
        held_out = data_of(configuration.held_out, place("held_out"))
    denoiser = denoiser_of(configuration, data)
    sampler = sampler_of(denoiser, data, called(place("samples"), Samples, configuration.samples))
    kept = training.get("folder") is not None
    return called(
        place("training"),
        Trainer,
        training,
        objective=objective_of(configuration.objective, denoiser, place("objective")),
        data=data,
        held_out=held_out if kept else None,
        sampler=sampler if kept else None,
        model=None,
        progress=progress,
    )


def denoiser_of(configuration: Configuration, data: Data) -> NetworkDenoiser:
    """The untrained model: [network], [schedule] and [model]."""
    place = configuration.place
    network = build(configuration.network, data.event_shape, place("network"))
    try:
        check_fits(network, data)
    except ValueError as error:
        raise ValueError(f"{place('network')}: {error}") from error
    schedule = schedule_of(configuration.schedule, place("schedule"))
    given = {"label": default_label(schedule), **configuration.model}
    taken = {"dtype": None, "device": None}
    return called(
        place("model"), NetworkDenoiser, given, network=network, schedule=schedule, **taken
    )


def sampler_of(
    denoiser: NetworkDenoiser, data: Data, samples: Samples
) -> Callable[[nn.Module], Tensor]:
    """network -> samples, the classes taking turns."""

    def draw(network: nn.Module) -> Tensor:
        model = copy.copy(denoiser)
        model.network = network
        if data.classes:
            model = model.given((torch.arange(samples.n) % data.classes).to(model.device))
        shape = (samples.n, *data.event_shape)
        return sample(model, shape, solver=samples.solver, steps=samples.steps, seed=samples.seed)

    return draw
