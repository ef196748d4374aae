"""One plan to tune: a model, a range of noise, a number of network calls, and what is known.

With mean and covariance of the data known (`gaussian_start`) the denoiser answers at the noisy end
for nothing, and a table of n network calls has n + 1 calls of the denoiser. Both are those of the
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
        known: whether mean and covariance of the data are known.
    """

    model: str
    range: str
    nfe: int
    known: bool = False

    @property
    def schedule(self) -> Schedule:
        """That of the range."""
        return SCHEDULES[self.range][0]

    @property
    def calls(self) -> int:
        """Calls of the denoiser."""
        return self.nfe + self.known

    @property
    def key(self) -> str:
        """Its name among those of one model and range."""
        return f"{self.nfe}{'-known' * self.known}"

    def denoiser(self, train: Pairs) -> Denoiser:
        """The model, told of the ends if it is to know them."""
        network = PROBLEMS[self.model]().denoiser(self.schedule)
        return told(network, train) if self.known else network

    def fewer(self) -> Job:
        """The same with a call less."""
        return Job(self.model, self.range, self.nfe - 1, self.known)

    def on(self, range_: str) -> Job:
        """The same on another range."""
        return Job(self.model, range_, self.nfe, self.known)

    def cell(self, output: Path) -> Path:
        """The file of its figures."""
        return output / "cells" / f"{self.model}-{self.range}-{self.key}.json"

    def plan(self, output: Path) -> Path:
        """The file of its plan."""
        path = output / "plans" / f"{self.model}-{self.range}-{self.key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def told(network: Denoiser, pairs: Pairs) -> Denoiser:
    """The denoiser with mean and covariance of the ends known at the start of the paths."""
    ends = pairs.ends.double().flatten(1)
    weights = torch.ones(len(pairs)).double() if pairs.weights is None else pairs.weights.double()
    shares = (weights / weights.sum())[:, None]
    mean = (shares * ends).sum(0)
    covariance = ((shares * (ends - mean)).T @ (ends - mean)).contiguous()
    above = 0.999 * float(network.schedule.rho(pairs.t_start))
    return gaussian_start(network, mean.reshape(pairs.ends.shape[1:]), covariance, above)
