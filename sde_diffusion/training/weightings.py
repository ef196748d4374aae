r"""Weights of the loss: all losses of the literature are one loss up to a weight.

A weighting is a function w of the half-log-SNR, on an error told in some unit (see `units`):

    loss(t) = w(lambda_t) |error in that unit|^2 / D.

    name              unit        w                     where it is from
    "own"             the network's own output, 1       whatever paper the prediction is from
    "noise", "snr"    noise       1                     Ho et al. 2020; SNR on data errors
    "data"            data        1
    "velocity"        velocity    1                     Salimans & Ho 2022: SNR + 1 on data errors
    "flow"            flow        1                     Lipman et al. 2023
    "score"           score       1
    "edm"             EDM output  1                     Karras et al. 2022: 1/c_out^2, data errors
    "truncated_snr"   data        max(SNR, 1)           Salimans & Ho 2022
    "min_snr"         data        min(SNR, gamma)       Hang et al. 2023
    "p2"              noise       1/(k + SNR)^gamma     Choi et al. 2022
    "sigmoid"         nats        sigmoid(b - log SNR)  Kingma & Gao 2023
    "likelihood"      nats        1                     Song et al. 2021: g^2/2 on score errors

with SNR = e^(2 lambda). What training minimises is w times the density of the times that are
drawn: a paper that states its weight for uniform times has w alone here, and the law of times
beside it. A weight in nats is different: it is stated for the half-log-SNR, so the density of the
times is divided out, and the law of times changes the variance of the loss but not its mean.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..names import look_up, unknown

UNITS = ("data", "noise", "velocity", "flow", "score", "edm", "nats")


class Weighting(ABC):
    """w(lambda) on squared errors in one unit.

    Attributes:
        unit: "own" (what the network predicts), "data", "noise", "velocity", "flow", "score",
            "edm", or "nats" (the noise, with the density of the half-log-SNR divided out).
    """

    unit: str = "own"

    @abstractmethod
    def __call__(self, lambda_: Tensor) -> Tensor:
        """w at half-log-SNR lambda, float64, -inf where alpha = 0; of lambda's shape."""


@dataclass(frozen=True)
class Flat(Weighting):
    """1 on the error in one unit; "own" is the plain squared error of what the network predicts.

    Raises:
        ValueError: an unknown unit.
    """

    unit: str = "own"

    def __post_init__(self) -> None:
        if self.unit not in ("own", *UNITS):
            raise ValueError(unknown("unit", self.unit, ("own", *UNITS)))

    def __call__(self, lambda_: Tensor) -> Tensor:
        return torch.ones_like(lambda_)


@dataclass(frozen=True)
class TruncatedSNR(Weighting):
    """max(SNR, least) on the data error, so that pure noise counts too.

    Salimans & Ho, "Progressive distillation for fast sampling of diffusion models", 2022,
    arXiv:2202.00512, with least = 1.
    """

    least: float = 1.0
    unit = "data"

    def __post_init__(self) -> None:
        _positive(least=self.least)

    def __call__(self, lambda_: Tensor) -> Tensor:
        return torch.exp(2 * lambda_).clamp(min=self.least)


@dataclass(frozen=True)
class MinSNR(Weighting):
    """min(SNR, gamma) on the data error, so that clean times do not take all.

    The same is min(SNR, gamma)/SNR on the noise error. Hang et al., "Efficient diffusion training
    via min-SNR weighting strategy", 2023, arXiv:2303.09556.
    """

    gamma: float = 5.0
    unit = "data"

    def __post_init__(self) -> None:
        _positive(gamma=self.gamma)

    def __call__(self, lambda_: Tensor) -> Tensor:
        return torch.exp(2 * lambda_).clamp(max=self.gamma)


@dataclass(frozen=True)
class P2(Weighting):
    """1/(k + SNR)^gamma on the noise error: less for the clean times, whose details are not seen.

    Choi et al., "Perception prioritized training of diffusion models", 2022, arXiv:2204.00227,
    whose lambda_t is the weight that turns the bound into a plain noise error.
    """

    k: float = 1.0
    gamma: float = 1.0
    unit = "noise"

    def __post_init__(self) -> None:
        _positive(k=self.k)
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"gamma = {self.gamma}: the exponent is at least 0 (0: no weighting)")

    def __call__(self, lambda_: Tensor) -> Tensor:
        return (self.k + torch.exp(2 * lambda_)) ** -self.gamma


@dataclass(frozen=True)
class Sigmoid(Weighting):
    """sigmoid(bias - log SNR) on the bound's integrand, whatever the law of times.

    A monotone weight: the loss is the bound of data with some noise added. Kingma & Gao,
    "Understanding diffusion objectives as the ELBO with simple data augmentation", 2023,
    arXiv:2303.00848 (their lambda is log SNR, twice ours).
    """

    bias: float = 2.0
    unit = "nats"

    def __call__(self, lambda_: Tensor) -> Tensor:
        return torch.sigmoid(self.bias - 2 * lambda_)


@dataclass(frozen=True)
class ByLambda(Weighting):
    """Any non-negative function of the half-log-SNR.

    Args:
        function: float64 tensor of lambdas -> weights, of the same shape.
        unit: of the errors that it weighs.

    Raises:
        ValueError: an unknown unit.
    """

    function: Callable[[Tensor], Tensor]
    unit: str = "noise"

    def __post_init__(self) -> None:
        Flat(self.unit)

    def __call__(self, lambda_: Tensor) -> Tensor:
        return self.function(lambda_)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} = {value}: must be positive and finite")


WEIGHTINGS: dict[str, Callable[..., Weighting]] = {
    **{unit: partial(Flat, unit) for unit in ("own", *UNITS) if unit != "nats"},
    "snr": partial(Flat, "noise"),
    "likelihood": partial(Flat, "nats"),
    "truncated_snr": TruncatedSNR,
    "min_snr": MinSNR,
    "p2": P2,
    "sigmoid": Sigmoid,
}


def weighting_of(weighting: str | Weighting, **arguments: Any) -> Weighting:
    """A weighting by name, with its arguments; one that is made already is returned as it is.

    Raises:
        ValueError: an unknown name.
        TypeError: an argument that it does not have.
    """
    if isinstance(weighting, Weighting) and not arguments:
        return weighting
    return look_up("weighting", weighting, WEIGHTINGS)(**arguments)
