r"""Laws of the training time, each given by its quantile function u -> t.

A law is a distribution F of one coordinate c of time, cut to the range [t_clean, t_max] of a
schedule: the place in the range of time, or the half-log-SNR lambda. With u uniform on [0, 1],

    c(u) = F^{-1}(F(c_clean) + u (F(c_noisy) - F(c_clean))),

which runs from clean (u = 0) to noisy (u = 1). Drawing is a matter of u alone: stratified u ("low
discrepancy": Kingma et al., "Variational diffusion models", 2021, arXiv:2107.00630, appendix I.1)
and importance sampling serve every law.

    name               coordinate   density
    "uniform"          time         1
    "logit_normal"     time         normal in log(t/(1 - t))     Esser et al. 2024
    "uniform_lambda"   lambda       1                            Song et al. 2021, on the bound
    "log_normal"       lambda       normal in log(sigma/alpha)   Karras et al. 2022
    "laplace"          lambda       Laplace                      Hang et al. 2024
    "cosine"           lambda       1/(pi cosh lambda)           what the cosine schedule draws

The density per unit of time and that per unit of lambda differ by |lambda'|, which is infinite
where alpha or sigma is 0. So the one is made of the other by two factors that have limits there,

    p(t) = p(lambda) e^|lambda| * |lambda'| e^-|lambda|,
    |lambda'| e^-|lambda| = (alpha sigma' - sigma alpha') / max(alpha, sigma)^2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..names import look_up
from ..schedule import Schedule
from .units import error, scales


class Law(ABC):
    """A distribution of one coordinate of time; it need not be normalised.

    Attributes:
        coordinate: "time" (t as a part of the range, from 0 at t_min to 1 at t_max) or "lambda".
    """

    coordinate: str = "lambda"

    @abstractmethod
    def cdf(self, c: Tensor) -> Tensor:
        """F(c), increasing."""

    @abstractmethod
    def quantile(self, p: Tensor) -> Tensor:
        """F^{-1}(p)."""

    @abstractmethod
    def density(self, c: Tensor) -> Tensor:
        """F'(c)."""

    def scaled_density(self, c: Tensor) -> Tensor:
        """F'(c) e^|c|, at c = -inf and inf its limit; needed of laws in lambda alone.

        As it stands here for laws that fall faster than e^-|c|; others override it.
        """
        density = self.density(c)
        return torch.where(density > 0, density * torch.exp(c.abs()), torch.zeros_like(c))

    def on(self, schedule: Schedule) -> Times:
        """The law, cut to the range of a schedule."""
        return Times(self, schedule)


class Times:
    """A law of times on a schedule, cut to [t_clean, t_max].

    Raises:
        ValueError: the law has no weight, or no finite one, on the range of the schedule.
    """

    def __init__(self, law: Law, schedule: Schedule) -> None:
        self.law, self.schedule = law, schedule
        ends = torch.tensor([schedule.t_clean, schedule.t_max], dtype=torch.float64)
        coordinates = self._coordinate(ends).detach()
        self._clean, self._noisy = law.cdf(coordinates)
        self.mass = float((self._noisy - self._clean).abs())
        if not 0 < self.mass < math.inf:
            raise ValueError(
                f"{law!r} has weight {self.mass:g} on {schedule!r}, whose {law.coordinate} runs "
                f"from {coordinates[0]:g} to {coordinates[1]:g}: it must be positive and finite; "
                "take another law, such as 'uniform' or 'cosine'"
            )

    def quantile(self, u: Tensor) -> Tensor:
        """t(u), increasing; u in [0, 1], float64, any shape."""
        first, last, schedule = self._clean, self._noisy, self.schedule
        c = self.law.quantile(first + u * (last - first))
        span = schedule.t_max - schedule.t_min
        if self.law.coordinate == "time":
            t = schedule.t_min + span * c
        else:
            lowest, highest = (
                float(schedule.half_log_snr(end)) for end in (schedule.t_max, schedule.t_clean)
            )
            t = torch.as_tensor(schedule.time_of(c.clamp(lowest, highest)))
        return t.clamp(schedule.t_clean, schedule.t_max)

    def cdf(self, t: Tensor) -> Tensor:
        """u(t), the inverse of `quantile`."""
        return (self.law.cdf(self._coordinate(t)) - self._clean) / (self._noisy - self._clean)

    def density(self, t: Tensor) -> Tensor:
        """Density per unit of time at t in [t_clean, t_max]; float64, t's shape."""
        if self.law.coordinate == "time":
            span = self.schedule.t_max - self.schedule.t_min
            return self.law.density(self._coordinate(t)) / (self.mass * span)
        alpha, sigma = scales(self.schedule, t)
        speed = error("flow", self.schedule, t) / torch.maximum(alpha, sigma) ** 2
        return self.law.scaled_density(self._coordinate(t)) * speed / self.mass

    def density_in_lambda(self, t: Tensor, lambda_: Tensor | None = None) -> Tensor:
        """Density per unit of half-log-SNR at lambda_t.

        Args:
            t: times, float64.
            lambda_: theirs, where known better than t tells: next to alpha = 0 a change of lambda
                is less than the rounding of t. Default: lambda_t.
        """
        lambda_ = torch.as_tensor(self.schedule.half_log_snr(t)) if lambda_ is None else lambda_
        if self.law.coordinate == "lambda":
            return self.law.density(lambda_) / self.mass
        sigma = scales(self.schedule, t)[1]
        # 1/|lambda'|, with alpha = sigma e^lambda
        return self.density(t) * sigma**2 * torch.exp(lambda_) / error("flow", self.schedule, t)

    def _coordinate(self, t: Tensor) -> Tensor:
        if self.law.coordinate == "lambda":
            return torch.as_tensor(self.schedule.half_log_snr(t))
        return (t - self.schedule.t_min) / (self.schedule.t_max - self.schedule.t_min)

    def __repr__(self) -> str:
        return f"{self.law!r} on {self.schedule!r}"


class _Flat(Law):
    def cdf(self, c: Tensor) -> Tensor:
        return c

    def quantile(self, p: Tensor) -> Tensor:
        return p

    def density(self, c: Tensor) -> Tensor:
        return torch.ones_like(c)


@dataclass(frozen=True)
class Uniform(_Flat):
    """Uniform in t."""

    coordinate = "time"


@dataclass(frozen=True)
class UniformLambda(_Flat):
    """Uniform in the half-log-SNR: with the noise error, the bound on the likelihood.

    The importance sampling of Song et al., "Maximum likelihood training of score-based diffusion
    models", 2021, arXiv:2101.09258, g^2/sigma^2 = -2 lambda'.
    """

    coordinate = "lambda"


@dataclass(frozen=True)
class LogitNormal(Law):
    """log(c/(1 - c)) ~ N(mean, std^2), c = t on [0, 1]: mostly the middle of the range.

    Esser et al., "Scaling rectified flow transformers for high-resolution image synthesis", 2024,
    arXiv:2403.03206 (their time too runs from data to noise).
    """

    mean: float = 0.0
    std: float = 1.0
    coordinate = "time"

    def __post_init__(self) -> None:
        _check_location_scale("mean", self.mean, "std", self.std)

    def cdf(self, c: Tensor) -> Tensor:
        return torch.special.ndtr((torch.logit(c) - self.mean) / self.std)

    def quantile(self, p: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(p))

    def density(self, c: Tensor) -> Tensor:
        z = (torch.logit(c) - self.mean) / self.std
        slope = self.std * c * (1 - c)
        return torch.where(slope > 0, _bell(z) / slope, torch.zeros_like(c))


@dataclass(frozen=True)
class LogNormal(Law):
    """log(sigma/alpha) ~ N(mean, std^2), so lambda ~ N(-mean, std^2).

    Karras et al., "Elucidating the design space of diffusion-based generative models", 2022,
    arXiv:2206.00364, table 1 (P_mean = -1.2, P_std = 1.2), for data of standard deviation 0.5.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        _check_location_scale("mean", self.mean, "std", self.std)

    def cdf(self, c: Tensor) -> Tensor:
        return torch.special.ndtr((c + self.mean) / self.std)

    def quantile(self, p: Tensor) -> Tensor:
        return -self.mean + self.std * torch.special.ndtri(p)

    def density(self, c: Tensor) -> Tensor:
        return _bell((c + self.mean) / self.std) / self.std


@dataclass(frozen=True)
class Laplace(Law):
    """Density exp(-|lambda - location|/scale) / (2 scale) in the half-log-SNR.

    Hang et al., "Improved noise schedule for diffusion training", 2024, arXiv:2407.03297, with
    location 0 and scale 0.5 for the log-SNR, twice ours.
    """

    location: float = 0.0
    scale: float = 0.25

    def __post_init__(self) -> None:
        _check_location_scale("location", self.location, "scale", self.scale)

    def cdf(self, c: Tensor) -> Tensor:
        z = (c - self.location) / self.scale
        tail = torch.exp(-z.abs()) / 2
        return torch.where(z < 0, tail, 1 - tail)

    def quantile(self, p: Tensor) -> Tensor:
        lower, upper = torch.log(2 * p), -torch.log(2 * (1 - p))
        return self.location + self.scale * torch.where(p < 0.5, lower, upper)

    def density(self, c: Tensor) -> Tensor:
        return torch.exp(-((c - self.location) / self.scale).abs()) / (2 * self.scale)

    def scaled_density(self, c: Tensor) -> Tensor:
        return torch.exp(_rise(c, self.location, self.scale)) / (2 * self.scale)


@dataclass(frozen=True)
class Cosine(Law):
    """Density 1/(pi cosh(lambda - location)): uniform t on the schedule alpha = cos(pi t/2).

    There lambda = -log tan(pi t/2). A shift of the location is a shift of the noise-to-signal ratio
    by exp(-location). Kingma & Gao 2023, arXiv:2303.00848, for the view of a schedule as a density.
    """

    location: float = 0.0

    def cdf(self, c: Tensor) -> Tensor:
        return torch.atan(torch.exp(c - self.location)) * (2 / math.pi)

    def quantile(self, p: Tensor) -> Tensor:
        return self.location + torch.log(torch.tan(p * (math.pi / 2)))

    def density(self, c: Tensor) -> Tensor:
        return 1 / (math.pi * torch.cosh(c - self.location))

    def scaled_density(self, c: Tensor) -> Tensor:
        one = 1 + torch.exp(-2 * (c - self.location).abs())
        return torch.exp(_rise(c, self.location, 1.0)) * 2 / (math.pi * one)


def _rise(c: Tensor, location: float, scale: float) -> Tensor:
    """|c| - |c - location|/scale, at c = -inf and inf its limit."""
    limit = c.sign() * location if scale == 1 else c.abs() * (1 - 1 / scale)
    return torch.where(c.isinf(), limit, c.abs() - (c - location).abs() / scale)


def _bell(z: Tensor) -> Tensor:
    return torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _check_location_scale(location: str, at: float, scale: str, size: float) -> None:
    if not (math.isfinite(at) and 0 < size < math.inf):
        raise ValueError(f"{location} = {at} must be finite and {scale} = {size} positive")


LAWS: dict[str, Callable[..., Law]] = {
    "uniform": Uniform,
    "uniform_lambda": UniformLambda,
    "logit_normal": LogitNormal,
    "log_normal": LogNormal,
    "laplace": Laplace,
    "cosine": Cosine,
}


def law_of(law: str | Law | None, schedule: Schedule, **arguments: Any) -> Law:
    """A law by name, with its arguments; one that is made already is returned as it is.

    None is uniform where times lie in [0, 1], for which such schedules were made, and log-normal
    elsewhere: where t is sigma itself, uniform times would hardly ever show the network a signal.

    Raises:
        ValueError: an unknown name.
        TypeError: an argument that it does not have.
    """
    if law is None:
        law = "uniform" if schedule.t_min >= 0 and schedule.t_max <= 1 else "log_normal"
    if isinstance(law, Law) and not arguments:
        return law
    return look_up("law of times", law, LAWS)(**arguments)
