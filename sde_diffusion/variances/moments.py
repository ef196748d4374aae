r"""How far a denoiser is from the data at each noise level: two measured moments.

    error(lambda) = E|x_0 - d(x_t)|^2 / D,          noise(lambda) = E|eps_hat(x_t)|^2 / D

over data, noise and coordinates, with eps_hat = (x - alpha d)/sigma. For the exact denoiser both
say the same, the mean posterior variance of a coordinate (E|x - alpha d|^2 is what remains of the
noise, since E|eps|^2/D = 1):

    E tr Cov[x_0 | x_t] / D = error = rho^2 (1 - noise),      rho = sigma/alpha = e^{-lambda}.

The first is measured with the data's help and holds for any denoiser: it is the least variance of
a Gaussian N(d, v I) for x_0 (Bao et al., "Estimating the optimal covariance with imperfect mean
in diffusion probabilistic models", 2022, arXiv:2206.07309, where a network learns it for each
coordinate). The second needs samples of x_t alone (Bao et al., "Analytic-DPM", 2022,
arXiv:2201.06503). Where there is much noise the second is a small difference of measured numbers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..denoise import Denoiser
from ..files import write_atomic
from ..names import look_up
from ..noise import seeds_of
from ..noised import Noised, averages, checked_data
from ..states import along

FORMAT = "sde_diffusion.moments/1"
SLACK = 1e-6  # of lambda, beyond the levels measured


@dataclass(frozen=True)
class Moments:
    """The moments of one denoiser on one set of data, at some noise levels.

    Attributes:
        lambda_: half-log-SNR of each level, increasing; the first may be -inf (alpha = 0).
        error: E|x_0 - d|^2 / D at each, positive.
        noise: E|eps_hat|^2 / D at each.
        samples, draws: how many samples and noises a level they were measured on.

    Raises:
        ValueError: if the levels are not increasing, or a number is out of range.
    """

    lambda_: tuple[float, ...]
    error: tuple[float, ...]
    noise: tuple[float, ...]
    samples: int = 0
    draws: int = 0

    def __post_init__(self) -> None:
        sizes = {len(self.lambda_), len(self.error), len(self.noise)}
        if len(sizes) != 1 or not self.lambda_:
            raise ValueError("need one error and one noise for each lambda, at least one")
        rising = all(a < b for a, b in zip(self.lambda_, self.lambda_[1:], strict=False))
        if not rising or math.isnan(self.lambda_[0]) or self.lambda_[-1] == math.inf:
            raise ValueError(
                f"lambda_ = {self.lambda_} must increase strictly and stay below inf (sigma > 0)"
            )
        if not all(0 < e < math.inf for e in self.error):
            raise ValueError(f"error = {self.error} must be positive and finite")
        if not all(0 <= n < math.inf for n in self.noise):
            raise ValueError(f"noise = {self.noise} must be finite and not negative")

    def variance(self, lambda_: float, kind: str = "error", bound: float = math.inf) -> float:
        """Mean variance of a coordinate of x_0 given x_t, between the levels measured.

        kind "error" is the error itself; kind "noise" is rho^2 (1 - noise), not below 0. log error
        is linear in lambda between two levels (linear in the SNR from alpha = 0), and so is
        noise. Neither is above `bound`: ((b - a)/2)^2 for data in [a, b] (Bao et al. 2022,
        arXiv:2201.06503, section 3.1; there 1).

        Raises:
            ValueError: unknown kind; lambda outside the levels measured, or -inf with "noise".
        """
        look_up("kind of moment", kind, {"noise": 0, "error": 0})
        first, last = self.lambda_[0], self.lambda_[-1]
        if not first - SLACK <= lambda_ <= last + SLACK:
            raise ValueError(
                f"lambda = {lambda_:.6g} lies outside [{first:.6g}, {last:.6g}], where the moments "
                "were measured: measure them on a grid that covers this one"
            )
        if kind == "error":
            return min(math.exp(self._between(lambda_, [math.log(e) for e in self.error])), bound)
        if lambda_ == -math.inf:
            raise ValueError(
                'alpha = 0 (lambda = -inf), where noise tells nothing of the data: kind="error", '
                "or start the grid at a smaller t"
            )
        return min(math.exp(-2 * lambda_) * max(1 - self._between(lambda_, self.noise), 0), bound)

    def _between(self, lambda_: float, values: Sequence[float]) -> float:
        knots = self.lambda_
        if knots[0] == -math.inf and len(knots) > 1 and lambda_ < knots[1]:
            share = math.exp(2 * (lambda_ - knots[1]))  # of the SNR at the first finite level
            return values[0] + share * (values[1] - values[0])
        finite = 1 if knots[0] == -math.inf and len(knots) > 1 else 0
        return float(np.interp(lambda_, knots[finite:], values[finite:]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them as JSON, atomically; numbers are kept to the last bit."""
        text = json.dumps({"format": FORMAT, **self.to_json()}, indent=1, allow_nan=False)
        write_atomic(path, text.encode())

    def to_json(self) -> dict[str, Any]:
        """Plain values, of which `from_json` makes them again; -inf is null."""
        plain = {**asdict(self), "lambda_": [v if v > -math.inf else None for v in self.lambda_]}
        return {key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Moments:
        """What `to_json` gave."""
        levels = [-math.inf if v is None else float(v) for v in plain["lambda_"]]
        error, noise = (tuple(float(v) for v in plain[name]) for name in ("error", "noise"))
        return cls(tuple(levels), error, noise, int(plain["samples"]), int(plain["draws"]))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Moments:
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is damaged or something else.
        """
        try:
            plain = json.loads(Path(path).read_bytes())
            if plain["format"] != FORMAT:
                raise ValueError(f"format {plain['format']!r}")
            return cls.from_json(plain)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no moments, or is damaged: {error}") from error

    def __str__(self) -> str:
        lines = [
            f"moments of {self.samples} samples, {self.draws} noises each",
            f"{'lambda':>9}  {'error':>10}  {'noise':>8}",
        ]
        for row in zip(self.lambda_, self.error, self.noise, strict=True):
            lines.append("{:9.4f}  {:10.4g}  {:8.5f}".format(*row))
        return "\n".join(lines)


def measure_moments(
    denoiser: Denoiser,
    data: Tensor,
    times: Sequence[float] | Tensor,
    *,
    draws: int = 1,
    seed: int | Sequence[int] = 0,
    batch: int = 256,
    context: Tensor | None = None,
    progress: bool = False,
) -> Moments:
    """Measure a denoiser's moments on data, at the noise levels of some times.

    Args:
        denoiser: E[x_0 | x_t].
        data: clean samples, floating point, shape (n, *event); training data will do.
        times: where to measure, in any order; times with sigma = 0 are left out. The grid that
            will be sampled on, or a finer one that covers it.
        draws: noises for each sample and time.
        seed: of the noise: one integer, or one a sample.
        batch: the most samples in one network call.
        context: conditions of the samples, (n, ...).
        progress: tell how far it is.

    Raises:
        TypeError, ValueError: what does not fit; no time with noise.
    """
    x_0 = checked_data(denoiser, data, context, draws, batch)
    schedule = denoiser.schedule
    levels = sorted({float(t) for t in times}, reverse=True)
    for t in levels:
        if not schedule.t_min <= t <= schedule.t_max:
            raise ValueError(
                f"t = {t:.6g} lies outside [{schedule.t_min:g}, {schedule.t_max:g}], the range of "
                f"{schedule!r}"
            )
    levels = [t for t in levels if schedule.sigma(t) > 0]
    if not levels:
        raise ValueError(f"times = {times}: none of them has sigma > 0")
    rows: list[Tensor] = []
    grid = torch.tensor(levels, dtype=torch.float64)
    how: dict[str, Any] = {"draws": draws, "seeds": seeds_of(seed, len(x_0)), "batch": batch}
    for _, values in averages(
        denoiser, x_0, grid, _squares, context=context, progress=progress, **how
    ):
        rows.append(values.mean(1))
    error, noise = torch.cat(rows).unbind(1)
    if not bool(torch.isfinite(error).all()):
        raise FloatingPointError("the denoiser's output is not finite; look at the network")
    lambdas = tuple(float(schedule.half_log_snr(t)) for t in levels)
    return Moments(lambdas, tuple(error.tolist()), tuple(noise.tolist()), len(x_0), draws)


def _squares(asked: Noised) -> Tensor:
    alpha_t, sigma_t = (along(c, asked.x) for c in asked.denoiser.schedule(asked.t))
    d = asked.denoiser(asked.x, asked.t)
    eps_hat = (asked.x - alpha_t * d) / sigma_t
    return torch.stack([_mean(asked.x_0 - d), _mean(eps_hat)], 1)


def _mean(values: Tensor) -> Tensor:
    """The mean square of each sample."""
    return values.double().square().reshape(len(values), -1).mean(1)
