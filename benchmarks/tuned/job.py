"""One plan to tune: a model, a range of noise, a number of network calls, and what is known.

With the mean of the data known (`gaussian_start`) the denoiser answers at the noisy end for
nothing, and a table of n network calls has n + 1 calls of the denoiser. The mean is that of the
teacher's ends, from starts that are fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sde_diffusion import Schedule
from sde_diffusion.denoise import Denoiser
from sde_diffusion.guidance import gaussian_start
from sde_diffusion.tuning.pairs import Pairs

from ..quality.models import PROBLEMS, SCHEDULES


@dataclass(frozen=True)
class Job:
    """What is tuned.

    Attributes:
        model, range: keys of `PROBLEMS`, `SCHEDULES`.
        nfe: network calls a sample.
        mean: whether the mean of the data is known.
    """

    model: str
    range: str
    nfe: int
    mean: bool = False

    @property
    def schedule(self) -> Schedule:
        """That of the range."""
        return SCHEDULES[self.range][0]

    @property
    def t_start(self) -> float:
        """The noisy end."""
        return SCHEDULES[self.range][1]

    @property
    def calls(self) -> int:
        """Calls of the denoiser."""
        return self.nfe + self.mean

    @property
    def key(self) -> str:
        """Its name among those of one model and range."""
        return f"{self.nfe}{'-mean' * self.mean}"

    def denoiser(self, train: Pairs) -> Denoiser:
        """The model, told the mean of the ends if it is to know it."""
        network = PROBLEMS[self.model]().denoiser(self.schedule)
        return with_mean(network, train) if self.mean else network

    def on(self, range_: str) -> Job:
        """The same on another range."""
        return Job(self.model, range_, self.nfe, self.mean)

    def cell(self, output: Path) -> Path:
        """The file of its figures."""
        return output / "cells" / f"{self.model}-{self.range}-{self.key}.json"

    def plan(self, output: Path) -> Path:
        """The file of its plan."""
        path = output / "plans" / f"{self.model}-{self.range}-{self.key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def with_mean(network: Denoiser, pairs: Pairs) -> Denoiser:
    """The denoiser with the mean and the variance of the ends known at the start of the paths."""
    ends = pairs.ends.double()
    weights = torch.ones(len(pairs)).double() if pairs.weights is None else pairs.weights.double()
    shares = (weights / weights.sum()).reshape(-1, *[1] * (ends.ndim - 1))
    mean = (shares * ends).sum(0)
    variance = float((shares * (ends - mean).square()).sum(0).mean())
    above = 0.999 * float(network.schedule.rho(pairs.t_start))
    return gaussian_start(network, mean, variance, above)
