"""From a checkpoint back to the model that was trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..denoise import NetworkDenoiser
from ..learned_schedule import LearnedSchedule
from ..model import describe_model, model_of
from ..weights import TRAINING, average_name, averaged, fill_weights, latest, read_file
from .autoencoding import AutoencoderObjective
from .data import Data
from .objective import Objective


def described(objective: Objective, data: Data) -> dict[str, Any]:
    """What a checkpoint says of the model that it trains; {} if that has parts of one's own."""
    denoiser = getattr(objective, "denoiser", None)
    if not isinstance(denoiser, NetworkDenoiser):
        return {}
    try:
        return describe_model(denoiser, data.event_shape, data.classes, data.range)
    except ValueError:
        return {}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A trained model and what its samples are.

    Attributes:
        denoiser: with averaged weights, in evaluation mode.
        event_shape: shape of one sample.
        classes: number of classes, if it was trained with class labels.
        range: of the values of its data, if it was stated.
        drop: share of its training without condition; 0: it knows nothing of that. None: unknown.
        step: of the training.
        average: which average its weights are.
        averages: all that there are.
        path: the checkpoint.
        data: what it was trained on, in the words of the data.
    """

    denoiser: NetworkDenoiser
    event_shape: tuple[int, ...]
    classes: int | None
    range: tuple[float, float] | None
    drop: float | None
    step: int
    average: str
    averages: tuple[str, ...]
    path: Path
    data: str

    @property
    def about(self) -> str:
        """Which weights they are."""
        return f"{self.path} (step {self.step}, average {self.average})"


def load_model(
    path: str | os.PathLike[str],
    average: str | float | None = None,
    device: torch.device | str | None = None,
) -> LoadedModel:
    """The model of a checkpoint of `Trainer`, and what its samples are.

    Args:
        path: a checkpoint, or the folder of a run: then its latest.
        average: which average of the weights: its relative width, as 0.05, or its name, as
            "sigma_rel 0.05"; default: the first.
        device: of the network; default: the CPU.

    Raises:
        FileNotFoundError: no such file, or no checkpoint in the folder.
        ValueError: it is damaged, of another kind, does not describe its model, or has no such
            average (the nearest right one is named).
    """
    file = latest(path)
    tensors, header = read_file(file, TRAINING)
    model = header.get("model")
    if header["configuration"].get("objective") == AutoencoderObjective.__name__:
        raise ValueError(
            f"{file} holds an autoencoder, which has no samples of its own: fill yours, "
            "load_weights(autoencoder, path), and train on its latents, "
            "LatentSpace.measure(autoencoder, data)"
        )
    if not model:
        raise ValueError(
            f"{file} does not describe its model, whose network or schedule is of your own: make "
            "the network in your code, then load_weights(network, path)"
        )
    denoiser = model_of(model, f"the model of {file}")
    name = header["averages"][0] if average is None else average_name(average)
    network = denoiser.network
    assert isinstance(network, nn.Module)
    fill_weights(network, tensors, header, file, name)
    if isinstance(denoiser.schedule, LearnedSchedule):
        denoiser.schedule.load_state_dict(averaged(tensors, header, "schedule", name))
        denoiser = denoiser.on(denoiser.schedule.frozen())
    network.to(device or "cpu").eval().requires_grad_(False)
    return LoadedModel(
        denoiser,
        tuple(model["event_shape"]),
        model["classes"],
        None if model["range"] is None else tuple(model["range"]),
        _drop(header["configuration"]),
        header["step"],
        name,
        tuple(header["averages"]),
        file,
        header["configuration"]["data"],
    )


def load_denoiser(
    path: str | os.PathLike[str],
    average: str | float | None = None,
    device: torch.device | str | None = None,
) -> NetworkDenoiser:
    """The denoiser of a checkpoint of `Trainer`, with averaged weights: see `load_model`.

    Of a network of latents it is the denoiser of latents: `LatentDiffusion.from_checkpoint` has the
    decoder with it.
    """
    return load_model(path, average, device).denoiser


def _drop(objective: Mapping[str, Any]) -> float | None:
    """The share of samples without condition, of an objective or of the one within it."""
    return objective.get("drop") if "of" not in objective else _drop(objective["of"])
