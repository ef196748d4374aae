r"""One reverse step: its mean, its variances, and what it costs in nats.

Given x_0, a step from t to s (cleaner) of the forward process turned round is Gaussian, for every
eta in [0, 1] (Song et al., "Denoising diffusion implicit models", 2021, arXiv:2010.02502, eq. 7;
eta = 1 is the posterior of Ho et al. 2020, arXiv:2006.11239, eq. 6-7):

    x_s | x_t, x_0 ~ N(c_x x_t + c_d x_0, v_0 I),          v_0 = eta^2 sigma_s^2 (1 - e^{-2h})
    c_x = sqrt(sigma_s^2 - v_0) / sigma_t,                 c_d = alpha_s - alpha_t c_x

with h = lambda_s - lambda_t. A model has d(x_t) in the place of x_0 and a variance v of its own.
With r = log(v / v_0) the two are apart, in each coordinate, by

    KL = (e^{-r} - 1 + r) / 2 + c_d^2 (x_0 - d)^2 / (2 v).

The last step, to the data themselves (alpha_s = 1, sigma_s = 0), has v_0 = 0 and c_d = 1: there
the model is a density of x_0, or a probability of the bin in which x_0 lies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import log_ndtr

from .scalar import Scalar, expm1, sqrt
from .schedule import Schedule


@dataclass(frozen=True)
class Step:
    """A reverse step from t to s, before any sample is seen.

    Attributes:
        t: the time it starts from, sigma_t > 0.
        s: the time it goes to; None for the data themselves.
        on_x, on_d: c_x and c_d, what multiplies x_t and x_0 (or d) in the mean.
        posterior: v_0; for eta = 1 this is DDPM's betatilde.
        beta: sigma_{t|s}^2 = sigma_t^2 (1 - e^{-2h}), DDPM's other variance.
    """

    t: Scalar
    s: Scalar | None
    on_x: Scalar
    on_d: Scalar
    posterior: Scalar
    beta: Scalar


def reverse_step(schedule: Schedule, t: Scalar, s: Scalar | None, eta: Scalar = 1.0) -> Step:
    """The step from t to s, or from t to the data (s = None); sigma_t > 0, alpha_t may be 0."""
    alpha_t, sigma_t = schedule(t)
    alpha_s, sigma_s = (1.0, 0.0) if s is None else schedule(s)
    shrink = alpha_t * sigma_s / (alpha_s * sigma_t)  # e^{-h}
    lambda_s = math.inf if s is None else schedule.half_log_snr(s)
    gain = -expm1(2 * (schedule.half_log_snr(t) - lambda_s))  # 1 - e^{-2h}
    # sqrt(1 - eta^2 gain), which is e^{-h} at eta = 1.
    kept = sqrt((1 - eta**2) + (eta * shrink) ** 2)
    on_x = sigma_s * kept / sigma_t
    # At eta = 1 the difference would lose the digits that a short step needs.
    on_d = alpha_s * gain if not isinstance(eta, Tensor) and eta == 1 else alpha_s - alpha_t * on_x
    return Step(t, s, on_x, on_d, eta**2 * sigma_s**2 * gain, sigma_t**2 * gain)


def reverse_steps(schedule: Schedule, grid: list[float]) -> list[Step]:
    """The DDPM steps of a grid, noisy to clean, and then to the data.

    A grid that ends at sigma = 0 is at the data there; else one more step leads to them.
    """
    points = [t for t in grid if schedule.sigma(t) > 0]
    ends: list[float | None] = [*points[1:], None]
    return [reverse_step(schedule, t, s) for t, s in zip(points, ends, strict=True)]


def logarithms(steps: list[Step]) -> tuple[list[float], list[float]]:
    """(log posterior variance, log beta) of every step; the last posterior is the one before it.

    That of the last step itself is 0, and Ho et al. (2020) put that of the step before in its
    place; where there is none, beta.
    """
    upper = [math.log(float(step.beta)) for step in steps]
    lower = [math.log(float(step.posterior)) for step in steps[:-1]]
    return [*lower, lower[-1] if lower else upper[-1]], upper


def interpolated(v: Tensor, log_posterior: Scalar, log_beta: Scalar) -> Tensor:
    """log Sigma = (1 - u) log betatilde + u log beta, u = (v + 1)/2, for what a network tells.

    Nichol & Dhariwal, "Improved denoising diffusion probabilistic models", 2021, arXiv:2102.09672,
    eq. 15, with u from a v in [-1, 1] as in their networks (in the paper the output is u itself).
    """
    u = (v + 1) / 2
    return u * log_beta + (1 - u) * log_posterior


def kl(x_0: Tensor, d: Tensor, on_d: Scalar, log_posterior: Scalar, log_variance: Scalar) -> Tensor:
    """KL(N(c_x x + c_d x_0, v_0) || N(c_x x + c_d d, v)) in nats, in each coordinate.

    Args:
        x_0, d: data and their estimate, shape (batch, *event).
        on_d: c_d.
        log_posterior: log v_0.
        log_variance: log v. All three: numbers, or tensors that broadcast with x_0.
    """
    log_v, r = _like(x_0, log_variance), _like(x_0, log_variance - log_posterior)
    mean = on_d**2 * (x_0 - d).square() * torch.exp(-log_v) / 2
    return mean + (torch.expm1(-r) + r) / 2


def normal_nll(x_0: Tensor, d: Tensor, log_variance: Scalar) -> Tensor:
    """-log N(x_0; d, v) in nats, in each coordinate."""
    log_v = _like(x_0, log_variance)
    return ((x_0 - d).square() * torch.exp(-log_v) + log_v + math.log(2 * math.pi)) / 2


def _like(x: Tensor, value: Scalar) -> Tensor:
    """A number as a tensor of x's dtype; a tensor as it is."""
    return (
        value if isinstance(value, Tensor) else torch.tensor(value, dtype=x.dtype, device=x.device)
    )


@dataclass(frozen=True)
class Bins:
    """Data that take evenly spaced values, each of which stands for the bin around it.

    Pixels of n grey levels scaled to [-1, 1] have width 2 / (n - 1): 2/255 for bytes. The first
    and the last bin reach to infinity.

    Args:
        width: distance between two values, positive.
        low, high: the least and the largest value; their distance is a multiple of the width.

    Raises:
        ValueError: if a number is not finite, or they do not fit.
    """

    width: float
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        finite = all(math.isfinite(v) for v in (self.width, self.low, self.high))
        if not finite or self.width <= 0 or self.low >= self.high:
            raise ValueError(f"{self!r}: need a positive width and low < high, all finite")
        count = (self.high - self.low) / self.width
        if abs(count - round(count)) > 1e-4:
            raise ValueError(
                f"{self!r}: high - low is {count:g} widths, not a whole number of them; for n "
                "values from low to high the width is (high - low)/(n - 1)"
            )

    def check(self, x_0: Tensor) -> None:
        """Raise ValueError unless every number of x_0 is one of the values."""
        place = (x_0.detach().double() - self.low) / self.width
        top = round((self.high - self.low) / self.width)
        wrong = ((place - place.round()).abs() > 1e-2) | (place < -0.01) | (place > top + 0.01)
        if bool(wrong.any()):
            raise ValueError(
                f"the data hold {float(x_0[wrong][0]):.6g}, which is none of the {top + 1} values "
                f"from {self.low:g} to {self.high:g} in steps of {self.width:g}: scale the data "
                "to them, give their own width, low and high, or leave out bins for a density"
            )

    def nll(self, x_0: Tensor, d: Tensor, log_variance: Scalar) -> Tensor:
        """-log of the probability of the bin of x_0 under N(d, v), in nats, in each coordinate.

        Ho et al. (2020), arXiv:2006.11239, eq. 13; as a difference of logarithms of the normal
        distribution function, so that no probability is rounded to 0.
        """
        inverse = torch.exp(-_like(x_0, log_variance) / 2)
        below = (x_0 - d - self.width / 2) * inverse
        above = (x_0 - d + self.width / 2) * inverse
        # In the lower half, where logarithms keep their digits: (a, b) has the mass of (-b, -a).
        upper = x_0 > d
        log_a = log_ndtr(torch.where(upper, -above, below))
        log_b = log_ndtr(torch.where(upper, -below, above))
        inside = log_b + torch.log(-torch.expm1(log_a - log_b))
        tail = torch.where(x_0 < self.low + self.width / 2, log_ndtr(above), inside)
        return -torch.where(x_0 > self.high - self.width / 2, log_ndtr(-below), tail)
