"""What a run is asked to do, checked; the words are those of `Trainer`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..extras import optional
from ..names import look_up
from ..noise import check_seed
from ..times import check_steps
from ..weights import describe
from .data import Data
from .ema import Average, as_average
from .fits import check_fits, check_held_out, check_sampler
from .objective import Objective
from .processes import PRECISIONS, check_device


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
    sampler: Callable[..., Tensor] | None
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
            left_out = count is None and name == "accumulate"
            if not (left_out or (type(count) is int and count >= least)):
                raise ValueError(f"{name} = {count!r} must be an integer of at least {least}")
        for name in ("learning_rate", "epsilon", "clip"):
            value = getattr(self, name)
            left_out = value is None and name == "clip"
            if not (left_out or (_is_number(value) and 0 < value < math.inf)):
                raise ValueError(f"{name} = {value!r} must be a number, positive and finite")
        if not _are_decays(self.betas):
            raise ValueError(
                f"betas = {self.betas!r} must be two numbers in [0, 1), as (0.9, 0.999)"
            )
        if not (_is_number(self.weight_decay) and 0 <= self.weight_decay < math.inf):
            raise ValueError(f"weight_decay = {self.weight_decay!r} must be a number, 0 or more")
        look_up("mixed precision", self.mixed_precision, dict.fromkeys(PRECISIONS))
        self._check_objective()
        check_fits(self.objective, self.data)
        if self.held_out is not None:
            check_held_out(self.objective, self.data, self.held_out)
        check_device(self.device)
        if not (self.sampler is None or callable(self.sampler)):
            raise TypeError(f"sampler = {self.sampler!r} must be a function, network -> samples")
        check_sampler(self.sampler, self.objective)
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
        lazy = next((n for n, p in objective.named_parameters() if is_lazy(p)), None)
        if lazy is not None:
            raise ValueError(
                f"{lazy} of {kind} has no shape yet: call the network once, as network(x, t), "
                "before it is trained"
            )

    def parts(self, processes: int) -> int:
        """Parts of a batch, over all processes.

        Raises:
            ValueError: they cannot be shared out evenly.
        """
        parts = processes if self.accumulate is None else self.accumulate
        if self.batch_size % parts or parts % processes:
            raise ValueError(
                f"batch_size = {self.batch_size} in accumulate = {parts} parts on {processes} "
                f"process{'es' * (processes > 1)}: the parts must divide the batch, and the "
                "processes the parts"
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


def averages_of(ema: Any) -> list[Average]:
    """The averages asked for: one alone, or a list of them.

    Raises:
        TypeError, ValueError: none, something else, or two of one name.
    """
    alone = _is_number(ema) or isinstance(ema, Average | Mapping)
    given = [ema] if alone else ema
    cure = "give sigma_rel of one or more averages of the weights, as (0.1, 0.05)"
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"ema = {ema!r}: {cure}")
    if not given:
        raise ValueError(f"ema = {ema!r} leaves no weights to sample from: {cure}")
    for one in given:
        values = one.values() if isinstance(one, Mapping) else [one]
        if not all(isinstance(value, Average) or _is_number(value) for value in values):
            raise TypeError(f"ema = {ema!r} with {one!r}: {cure}")
    averages = [as_average(one) for one in given]
    names = [average.name for average in averages]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"ema = {ema!r} asks twice for {twice!r}: averages go by that name")
    return averages


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _are_decays(betas: Any) -> bool:
    """Whether these are AdamW's two decays."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        return False
    return all(_is_number(beta) and 0 <= beta < 1 for beta in betas)
