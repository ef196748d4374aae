r"""What all guidance has in common: one denoiser made of several, asked at the same state.

    d(x, t) = rule_t(x, d_1(x, t), .., d_k(x, t)).

A guidance says which of its branches it needs at a time, and how their answers are combined there.
What depends on the time alone is worked out once, when a run binds its times.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoise import Call, Denoiser
from ..scalar import Scalar


class Rule(NamedTuple):
    """Guidance at one time.

    Attributes:
        needs: which branches are asked, by number; the others cost nothing.
        combine: (x, d of each of them) -> d, all of x's shape. It does not write into them.
    """

    needs: tuple[int, ...]
    combine: Callable[..., Tensor]


class Guided(Denoiser):
    """A denoiser made of others, its branches.

    Args:
        branches: denoisers of one schedule.

    Raises:
        TypeError: if a branch is no Denoiser.
        ValueError: no branches, or branches of different schedules.
    """

    def __init__(self, *branches: Denoiser) -> None:
        if not branches:
            raise ValueError("guidance needs at least one denoiser")
        for branch in branches:
            if not isinstance(branch, Denoiser):
                raise TypeError(
                    f"guidance needs Denoisers, not {type(branch).__name__}; wrap it: "
                    "NetworkDenoiser(network, schedule) or FunctionDenoiser(function, schedule)"
                )
        self.branches = branches
        self.schedule = branches[0].schedule

    @abstractmethod
    def rule(self, t: Scalar) -> Rule:
        """What is done at time t, a float, a 0-d tensor, or one a sample, (batch,)."""

    @property
    def device(self) -> torch.device | None:
        """Where the networks are; None: unknown."""
        return next((d for b in self.branches if (d := getattr(b, "device", None))), None)

    @property
    def conditioned(self) -> bool:
        """Whether a branch has conditions bound, one a sample."""
        return any(getattr(branch, "conditioned", False) for branch in self.branches)

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        rule = self.rule(t)
        return rule.combine(x, *(self.branches[i](x, t) for i in rule.needs))

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        raise NotImplementedError

    def select(self, who: Tensor) -> Guided:
        raise NotImplementedError
