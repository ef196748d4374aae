r"""Averages of the weights along training: what is sampled from.

With theta_n the weights after step n, an average is the recursion

    theta_bar_n = beta_n theta_bar_(n-1) + (1 - beta_n) theta_n.

The power-function profile has beta_n = (1 - 1/n)^(gamma + 1), of which the average is

    theta_bar_N = sum over n of (n^(gamma+1) - (n-1)^(gamma+1)) / N^(gamma+1)  theta_n:

theta_n counts in proportion to n^gamma, the initial weights not at all, and the profile stretches
with the run. Its relative width, the standard deviation of n/N under that profile, is

    sigma_rel = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))),

Karras et al., "Analyzing and improving the training dynamics of diffusion models", 2024,
arXiv:2312.02696, section 3. The classical average has a constant decay, reached by
beta_n = min(decay, n/(n + 9)), so that the random start is soon forgotten.

Averages are in float32 or wider whatever the weights are: in 16 bits, changes by 1 - beta_n of the
distance would be rounded away.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..names import unknown

WIDEST = 12**-0.5  # sigma_rel of gamma = 0, the plain mean of all steps


class Average(ABC):
    """A profile of an average of the weights."""

    @abstractmethod
    def decay(self, n: int) -> float:
        """beta_n, for the n-th step, n = 1, 2, ..."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in results and checkpoints."""


@dataclass(frozen=True)
class PowerFunction(Average):
    """The average whose profile is n^gamma; beta_n = (1 - 1/n)^(gamma + 1).

    Karras et al., 2024, arXiv:2312.02696, section 3.

    Args:
        sigma_rel: width of the profile relative to the run, in (0, 0.2887]; 0.05 to 0.15 is usual.

    Raises:
        ValueError: sigma_rel out of range.
    """

    sigma_rel: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma_rel <= WIDEST:
            raise ValueError(
                f"sigma_rel = {self.sigma_rel} must lie in (0, {WIDEST:.4f}], as 0.1; for a "
                f"constant decay write ConstantDecay({self.sigma_rel})"
            )

    @property
    def gamma(self) -> float:
        """The exponent: (gamma + 1) = sigma_rel^2 (gamma + 2)^2 (gamma + 3), its largest root."""
        t = self.sigma_rel**-2
        roots = np.roots([1.0, 7.0, 16.0 - t, 12.0 - t])
        return max(0.0, float(roots.real.max()))

    def decay(self, n: int) -> float:
        return (1 - 1 / n) ** (self.gamma + 1)

    @property
    def name(self) -> str:
        return f"sigma_rel {self.sigma_rel:g}"


@dataclass(frozen=True)
class ConstantDecay(Average):
    """The exponential average, beta_n = min(decay, n/(n + 9)).

    Args:
        largest: decay, in [0, 1); 0 is no average.

    Raises:
        ValueError: decay out of range.
    """

    largest: float

    def __post_init__(self) -> None:
        if not 0 <= self.largest < 1:
            raise ValueError(f"decay = {self.largest} must lie in [0, 1), as 0.999")

    def decay(self, n: int) -> float:
        return min(self.largest, n / (n + 9))

    @property
    def name(self) -> str:
        return f"decay {self.largest:g}"


def as_average(given: Average | float | Mapping[str, float]) -> Average:
    """A profile from sigma_rel, {"sigma_rel": s} or {"decay": d}; an `Average` as it is."""
    if isinstance(given, Average):
        return given
    if isinstance(given, Mapping):
        kinds = {"sigma_rel": PowerFunction, "decay": ConstantDecay}
        if len(given) != 1 or not set(given) <= set(kinds):
            raise ValueError(unknown("average of the weights", ", ".join(given), kinds))
        ((kind, value),) = given.items()
        return kinds[kind](value)
    return PowerFunction(given)


class Averages:
    """Running averages of some parameters, one for each profile, in float32 or wider.

    Args:
        parameters: what is averaged; the averages begin at their values.
        profiles: of the averages.
    """

    def __init__(self, parameters: Iterable[Tensor], profiles: Sequence[Average]) -> None:
        self.parameters, self.profiles = list(parameters), list(profiles)
        self._wide = [torch.promote_types(p.dtype, torch.float32) for p in self.parameters]
        self.means = [self._values(copy=True) for _ in self.profiles]
        self._position = {id(p): i for i, p in enumerate(self.parameters)}
        # gamma is a root of a cubic: found once
        self._powers = [p.gamma + 1 if isinstance(p, PowerFunction) else None for p in profiles]

    @torch.no_grad()
    def update(self, n: int) -> None:
        """Take the parameters after step n = 1, 2, ..."""
        values = self._values()
        for profile, power, means in zip(self.profiles, self._powers, self.means, strict=True):
            decay = profile.decay(n) if power is None else (1 - 1 / n) ** power
            if means:
                torch._foreach_lerp_(means, values, 1 - decay)

    def _values(self, copy: bool = False) -> list[Tensor]:
        """The parameters as they are now; those of 16 bits, or all with `copy`, copied."""
        both = zip(self.parameters, self._wide, strict=True)
        return [p.detach().to(wide, copy=copy) for p, wide in both]

    def of(self, parameter: Tensor, which: int) -> Tensor:
        """An average of one of the parameters; of a tensor that is none of them, itself."""
        position = self._position.get(id(parameter))
        return parameter if position is None else self.means[which][position]
