"""From the tables of a configuration to a trainer, everything checked before the first step."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..denoise import NetworkDenoiser
from ..model import default_label
from ..networks import build
from ..noise import check_seed
from ..options import called
from ..sample import check_options, find_solver, load_plan, sample
from ..schedule import Schedule
from ..schedule_names import schedule_of
from ..times import check_steps
from .config import Configuration
from .data import Data
from .objectives import objective_of
from .pictures import has_picture, usual_count
from .processes import is_first
from .sources import data_of
from .trainer import Trainer


@dataclass(frozen=True)
class Samples:
    """Pictures drawn as training goes.

    Attributes:
        n: how many; classes take turns. Default: about 64, the same number of each class.
        steps, solver, seed: of `sample`.

    Raises:
        ValueError: no sample or step; a solver that is unknown, or needs more than its name.
    """

    n: int | None = None
    steps: int | None = None
    solver: str = "default"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n is not None and self.n < 1:
            raise ValueError(f"n = {self.n}: give at least 1, or leave out n")
        if self.steps is not None:
            check_steps(self.steps)
        check_seed(self.seed)
        check_options(find_solver(load_plan(self.solver)), {})


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
    samples = called(place("samples"), Samples, configuration.samples)
    kept = training.get("folder") is not None
    drawn = has_picture(data.event_shape)
    shown = data if data.classes or held_out is None else held_out  # conditions of the pictures
    if kept and progress and not drawn and is_first():
        print(
            f"no pictures are drawn as it goes: samples of shape {data.event_shape} are neither "
            "images of 1 or 3 channels nor points in the plane",
            file=sys.stderr,
        )
    return called(
        place("training"),
        Trainer,
        training,
        objective=objective_of(configuration.objective, denoiser, place("objective")),
        data=data,
        held_out=held_out if kept else None,
        sampler=sampler_of(denoiser, shown, samples) if kept and drawn else None,
        model=None,
        progress=progress,
    )


def denoiser_of(configuration: Configuration, data: Data) -> NetworkDenoiser:
    """The untrained model: [network], [schedule] and [model]."""
    place = configuration.place
    network = build(configuration.network, data.event_shape, place("network"))
    schedule = schedule_of(configuration.schedule, place("schedule"))
    given = {"label": default_label(schedule), **configuration.model}
    taken = {"dtype": None, "device": None}
    return called(
        place("model"), NetworkDenoiser, given, network=network, schedule=schedule, **taken
    )


def sampler_of(denoiser: NetworkDenoiser, data: Data, samples: Samples) -> Callable[..., Tensor]:
    """network -> samples; on a learned schedule, what it is by then.

    Classes take turns; other conditions are those of evenly spaced samples of the data.
    """
    n = usual_count(data.classes) if samples.n is None else samples.n
    if data.classes:
        context: Tensor | None = torch.arange(n) % data.classes
    else:
        context = data.batch(torch.arange(n) * len(data) // n).context

    def draw(network: nn.Module, schedule: Schedule | None = None) -> Tensor:
        model = denoiser.on(schedule or denoiser.schedule)
        model.network = network
        if context is not None:
            model = model.given(context.to(model.device))
        shape = (n, *data.event_shape)
        return sample(model, shape, solver=samples.solver, steps=samples.steps, seed=samples.seed)

    return draw
