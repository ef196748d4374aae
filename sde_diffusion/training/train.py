"""The one-line front door of training: a network, data and a schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..denoise import NetworkDenoiser
from ..model import default_label
from ..scalar import Scalar
from ..schedule import Schedule
from ..schedule_names import schedule_of
from .diffusion import DiffusionObjective
from .laws import Law
from .trainer import Trainer, TrainResult
from .weightings import Weighting


def train(
    network: nn.Module,
    data: Any,
    schedule: Schedule | str | Mapping[str, Any],
    *,
    steps: int,
    prediction: str = "noise",
    label: str | Callable[[Scalar], Scalar] | None = None,
    weighting: str | Weighting = "own",
    times: str | Law | None = None,
    drop: float = 0.0,
    **options: Any,
) -> TrainResult:
    """Fit a network to data by least squares on what it predicts, and average its weights.

    The short form of

        denoiser = NetworkDenoiser(network, schedule, prediction, label)
        objective = DiffusionObjective(denoiser, weighting=weighting, times=times, drop=drop)
        Trainer(objective, data, steps=steps, ...).train()

    Args:
        network: gives the initial weights and is left as it was; asked as network(x, label), with
            conditions as network(x, label, context, drop).
        data: a tensor (n, *event), a pair (tensor, conditions), or `Data`.
        schedule: t -> (alpha_t, sigma_t), or its name, as "vp_cosine", or description.
        steps: number of updates, at least 1.
        prediction: "noise", "data", "velocity", "flow", "score" or "edm".
        label: how the network is told the time, as for `NetworkDenoiser`; default: "time" where
            the schedule's times lie in [0, 1], else "edm", log(sigma/alpha)/4.
        weighting, times: of the loss and of the training times, as for `DiffusionObjective`.
        drop: share of the samples whose condition is withheld, for classifier-free guidance.
        options: as for `Trainer`: batch_size, learning_rate, ema, seed, folder, progress, ...

    It raises what `Trainer` and `Trainer.train` do.
    """
    if isinstance(schedule, str | Mapping):
        schedule = schedule_of({"kind": schedule} if isinstance(schedule, str) else schedule)
    if not isinstance(schedule, Schedule):
        raise TypeError(
            f"schedule = {schedule!r}: give a Schedule, as VPCosine(), or the name of one"
        )
    label = default_label(schedule) if label is None else label
    denoiser = NetworkDenoiser(network, schedule, prediction, label)
    objective = DiffusionObjective(denoiser, weighting=weighting, times=times, drop=drop)
    return Trainer(objective, data, steps=steps, **options).train()
