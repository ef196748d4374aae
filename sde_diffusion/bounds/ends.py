"""The two ends of a bound, which the discrete and the continuous one share."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..names import unknown
from ..noised import Noised
from ..reverse import Bins, normal_nll
from ..scalar import Scalar
from ..schedule import Schedule


def prior_kl(schedule: Schedule, t: float, x_0: Tensor) -> Tensor:
    """L_T = KL(N(alpha_t x_0, sigma_t^2 I) || N(0, sigma_t^2 I)) of each sample, (n,), float64."""
    alpha_t, sigma_t = (float(v) for v in schedule(t))
    square = torch.cat([total(part.double().square()) for part in x_0.split(256)])
    return (alpha_t / sigma_t) ** 2 / 2 * square.cpu()


class Decoder(NamedTuple):
    """The law of x_0 at the cleanest time.

    Attributes:
        direct: whether it is N(x_t/alpha_t, rho_t^2 I), which needs no network; else N(d, v I).
        log_variance: log v where it was given; None: the step has its own.
    """

    direct: bool
    log_variance: float | None = None


def check_decoder(decoder: object, *names: str) -> Decoder:
    """The decoder that one of the names "direct" and "step", or a variance, stands for."""
    if isinstance(decoder, str) and decoder in names:
        return Decoder(decoder == "direct")
    if isinstance(decoder, bool) or not isinstance(decoder, int | float):
        raise ValueError(f"{unknown('decoder', decoder, names)}, or a variance")
    if not 0 < decoder < math.inf:
        raise ValueError(f"decoder = {decoder}: a variance must be positive and finite")
    return Decoder(False, math.log(decoder))


def reconstruction(bins: Bins | None, x_0: Tensor, d: Tensor, log_variance: Scalar) -> Tensor:
    """L_0 = -log p(x_0) of each row under N(d, v I), float64; of its bins, or a density."""
    nll = normal_nll if bins is None else bins.nll
    return total(nll(x_0, d, log_variance))


def direct_reconstruction(bins: Bins | None, asked: Noised) -> Tensor:
    """L_0 of rows at the cleanest time under N(x_t/alpha_t, rho_t^2 I), float64."""
    t = asked.t if isinstance(asked.t, float) else float(asked.t[0])  # one time in all rows
    alpha_t, sigma_t = (float(v) for v in asked.denoiser.schedule(t))
    log_v = 2 * (math.log(sigma_t) - math.log(alpha_t))
    if bins is None:  # |eps|^2 / 2 and a constant: its mean is known
        each = (1 + math.log(2 * math.pi) + log_v) / 2 * asked.x_0[0].numel()
        return torch.full((len(asked.x),), each, dtype=torch.float64, device=asked.x.device)
    return total(bins.nll(asked.x_0, asked.x / alpha_t, log_v))


def check_bins(bins: Bins | None, x_0: Tensor) -> None:
    """Raise unless these are bins with the data in them, or none."""
    if bins is None:
        return
    if not isinstance(bins, Bins):
        raise TypeError(f"bins = {bins!r}: give Bins(width, low, high), as Bins(2 / 255)")
    bins.check(x_0)


def check_bound(per_sample: Tensor) -> Tensor:
    """The bounds of the samples; FloatingPointError names the first that is not finite."""
    wrong = ~torch.isfinite(per_sample)
    if bool(wrong.any()):
        raise FloatingPointError(
            f"the bound of sample {int(wrong.nonzero()[0])} is not finite; look at the network's "
            "output there, or end the grid at a time with more noise"
        )
    return per_sample


def total(values: Tensor) -> Tensor:
    """The sum over a sample, float64."""
    return values.double().reshape(len(values), -1).sum(1)


def rows_of(asked: Noised, chosen: Tensor) -> Noised:
    """Some of the rows; `chosen` is a mask on the CPU."""
    at = chosen.to(asked.x.device)
    t = asked.t if isinstance(asked.t, float) else asked.t[at]
    k, i = asked.k[chosen], asked.i[chosen]
    return Noised(asked.denoiser, k, i, t, asked.x_0[at], asked.eps[at], asked.x[at])
