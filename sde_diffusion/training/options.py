"""What a run is asked to do, checked; the words are those of `Trainer`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..denoise import NetworkDenoiser
from ..extras import optional
from ..names import look_up
from ..noise import check_seed
from ..times import check_steps
from ..weights import describe
from .data import Data
from .ema import Average
from .fits import check_fits
from .objective import Objective
from .processes import PRECISIONS


@dataclass(frozen=True, eq=False)
class Options:
    """The arguments of `Trainer`, with nothing left open but the number of parts."""

    objective: Objective
    data: Data
    steps: int
    batch_size: int
    learning_rate: float
    warm_up: int
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    clip: float | None
    accumulate: int | None
    mixed_precision: str
    ema: Sequence[Average]
    seed: int
    folder: Path | None
    checkpoint_every: int
    keep: int
    log_every: int
    sampler: Callable[[nn.Module], Tensor] | None
    sample_every: int
    held_out: Data | None
    evaluate_every: int
    model: Mapping[str, Any]
    tensorboard: bool | None
    progress: bool
    device: torch.device | str | None

    def __post_init__(self) -> None:
        check_steps(self.steps)
        check_seed(self.seed)
        counts = ("batch_size", "checkpoint_every", "keep", "log_every", "sample_every")
        for name in (*counts, "evaluate_every", "accumulate", "warm_up"):
            count, least = getattr(self, name), 0 if name == "warm_up" else 1
            if not (count is None or (type(count) is int and count >= least)):
                raise ValueError(f"{name} = {count!r} must be an integer of at least {least}")
        for name in ("learning_rate", "epsilon", "clip"):
            value = getattr(self, name)
            if not (value is None or (math.isfinite(value) and value > 0)):
                raise ValueError(f"{name} = {value} must be positive and finite")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {self.betas} must be two numbers in [0, 1)")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay = {self.weight_decay} must be 0 or more")
        look_up("mixed precision", self.mixed_precision, dict.fromkeys(PRECISIONS))
        self._check_objective()
        if not self.ema:
            raise ValueError("ema = () leaves no weights to sample from: give (0.1,)")
        if self.folder is None:
            asked = (self.sampler, self.held_out, self.tensorboard or None)
            if any(part is not None for part in asked):
                raise ValueError("samples, evaluations and TensorBoard need a folder: give one")
        else:
            optional("safetensors.torch", "checkpoints")
        optional("accelerate", "training runs")
        if self.tensorboard:
            optional("tensorboard", "logs for TensorBoard")

    def _check_objective(self) -> None:
        objective, kind = self.objective, type(self.objective).__name__
        if not isinstance(objective, Objective):
            raise TypeError(
                f"objective must be an Objective, not {kind}; for a network, data and a schedule "
                "call sde_diffusion.train"
            )
        if not isinstance(getattr(objective, "network", None), nn.Module):
            raise TypeError(f"{kind} has no module `network`: name the one wanted in the end so")
        if not any(p.requires_grad for p in objective.parameters()):
            raise ValueError(f"{kind} has no weights to train: all have requires_grad=False")
        if isinstance(getattr(objective, "denoiser", None), NetworkDenoiser):
            check_fits(objective.network, self.data)

    def parts(self, processes: int) -> int:
        """Parts of a batch, over all processes.

        Raises:
            ValueError: they cannot be shared out evenly.
        """
        parts = processes if self.accumulate is None else self.accumulate
        if self.batch_size % parts or parts % processes:
            raise ValueError(
                f"batch_size = {self.batch_size} in accumulate = {parts} parts on {processes} "
                "processes: the parts must divide the batch, and the processes the parts"
            )
        return parts

    def configuration(self, parts: int) -> dict[str, Any]:
        """What settles each step, as JSON: a run is resumed with the same only."""
        plain = ("batch_size", "learning_rate", "warm_up", "epsilon", "weight_decay", "clip")
        return {
            **{name: getattr(self, name) for name in (*plain, "mixed_precision", "seed")},
            "betas": list(self.betas),
            "accumulate": parts,
            "ema": [average.name for average in self.ema],
            **self.objective.describe(),
            "data": self.data.describe(),
            "network": describe(self.objective),
        }
