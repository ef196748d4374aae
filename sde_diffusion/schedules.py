"""The schedules of the literature, in closed form.

| schedule | alpha_t | sigma_t | source |
|---|---|---|---|
| VPLinear | exp(-int beta / 2) | sqrt(1 - alpha^2) | Song et al. 2021, eq. 32-33 |
| VPCosine | cos(theta_t) / cos(theta_0) | sqrt(1 - alpha^2) | Nichol & Dhariwal 2021, eq. 17 |
| SubVP | exp(-int beta / 2) | 1 - alpha^2 | Song et al. 2021, eq. 34 |
| VE | 1 | sigma_min (sigma_max / sigma_min)^t | Song et al. 2021, eq. 30 |
| EDM | 1 | t | Karras et al. 2022, table 1 |
| FlowMatching | 1 - t | t | Lipman et al. 2023; Liu et al. 2023 |

Song et al., "Score-based generative modeling through SDEs", 2021, arXiv:2011.13456. Nichol &
Dhariwal, "Improved DDPM", 2021, arXiv:2102.09672. Karras et al., "Elucidating the design space
of diffusion-based generative models", 2022, arXiv:2206.00364. Lipman et al., "Flow matching for
generative modeling", 2023, arXiv:2210.02747. Liu et al., "Flow straight and fast", 2023,
arXiv:2209.03003.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .scalar import (
    Scalar,
    acos,
    asinh,
    constant_like,
    exp,
    expm1,
    log,
    ratio,
    sin,
    softplus,
    sqrt,
)
from .schedule import Schedule


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_sigmas(sigma_min: float, sigma_max: float) -> None:
    _require(
        0 < sigma_min < sigma_max < math.inf,
        f"sigma_min = {sigma_min}, sigma_max = {sigma_max}: need 0 < sigma_min < sigma_max < inf",
    )


class _ClosedForm(Schedule):
    """A schedule that knows f and g^2: alpha' = f alpha, sigma' = (g^2/2 + f sigma^2) / sigma."""

    def derivatives(self, t: Scalar) -> tuple[Scalar, Scalar]:
        (alpha_t, sigma_t), f = self(t), self.f(t)
        return f * alpha_t, ratio(self.g2(t) / 2 + f * sigma_t**2, sigma_t)


@dataclass(frozen=True)
class _LinearBeta(_ClosedForm):
    """alpha from beta(t) = beta_min + t (beta_max - beta_min); what VPLinear and SubVP share."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _require(
            0 <= self.beta_min < self.beta_max < math.inf,
            f"beta_min = {self.beta_min}, beta_max = {self.beta_max}: need 0 <= beta_min < "
            "beta_max < inf (in continuous time; DDPM's 1e-4 and 0.02 at T = 1000 are 0.1 and 20)",
        )

    def beta(self, t: Scalar) -> Scalar:
        """beta(t), per unit of time."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def log_alpha(self, t: Scalar) -> Scalar:
        """log alpha_t = -1/2 int_0^t beta."""
        return -t * (self.beta_min / 2 + (self.beta_max - self.beta_min) / 4 * t)

    def alpha(self, t: Scalar) -> Scalar:
        return exp(self.log_alpha(t))

    def f(self, t: Scalar) -> Scalar:
        return -self.beta(t) / 2

    def _time_of_log_alpha(self, minus_log_alpha: Scalar) -> Scalar:
        """Positive root t of (beta_max - beta_min) t^2 / 4 + beta_min t / 2 = -log alpha."""
        slope = self.beta_max - self.beta_min
        root = sqrt(self.beta_min**2 + 4 * slope * minus_log_alpha)
        return 4 * minus_log_alpha / (self.beta_min + root)


@dataclass(frozen=True)
class VPLinear(_LinearBeta):
    r"""Variance-preserving, beta(t) = beta_min + t (beta_max - beta_min) on [0, 1].

    log alpha_t = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2, sigma_t^2 = 1 - alpha_t^2,
    f = -beta/2, g^2 = beta. The continuous limit of DDPM with beta_i = beta(i/N)/N. Song et al.
    (2021), arXiv:2011.13456, eq. 32-33.
    """

    def sigma(self, t: Scalar) -> Scalar:
        return sqrt(-expm1(2 * self.log_alpha(t)))

    def __call__(self, t: Scalar) -> tuple[Scalar, Scalar]:
        log_alpha = self.log_alpha(t)
        return exp(log_alpha), sqrt(-expm1(2 * log_alpha))

    def g2(self, t: Scalar) -> Scalar:
        return self.beta(t)

    def half_log_snr(self, t: Scalar) -> Scalar:
        log_alpha = self.log_alpha(t)
        return log_alpha - log(-expm1(2 * log_alpha)) / 2

    def _time_of(self, lambda_: Scalar) -> Scalar:
        return self._time_of_log_alpha(softplus(-2 * lambda_) / 2)


@dataclass(frozen=True)
class SubVP(_LinearBeta):
    """Sub-variance-preserving: alpha of `VPLinear`, sigma_t = 1 - alpha_t^2.

    f = -beta/2, g^2 = beta (1 - alpha^4). Song et al. (2021), arXiv:2011.13456, eq. 34.
    """

    def sigma(self, t: Scalar) -> Scalar:
        return -expm1(2 * self.log_alpha(t))

    def g2(self, t: Scalar) -> Scalar:
        return -self.beta(t) * expm1(4 * self.log_alpha(t))

    def half_log_snr(self, t: Scalar) -> Scalar:
        log_alpha = self.log_alpha(t)
        return log_alpha - log(-expm1(2 * log_alpha))

    def _time_of(self, lambda_: Scalar) -> Scalar:
        # exp(lambda) = alpha / (1 - alpha^2) = 1 / (2 sinh(-log alpha))
        return self._time_of_log_alpha(asinh(exp(-lambda_) / 2))


@dataclass(frozen=True)
class VPCosine(Schedule):
    """Variance-preserving cosine: alpha_t = cos(theta_t) / cos(theta_0).

    theta_t = (t + s)/(1 + s) pi/2, sigma_t^2 = sin(theta_t - theta_0) sin(theta_t + theta_0) /
    cos(theta_0)^2, f = -theta' tan(theta_t), g^2 = -2 f. Nichol & Dhariwal (2021),
    arXiv:2102.09672, eq. 17. t_max = 1 gives alpha = 0 exactly; the default 0.9946 is the end at
    which noise-prediction networks are used (Lu et al. 2022, arXiv:2206.00927, appendix D.4).
    """

    s: float = 0.008
    t_max: float = 0.9946

    def __post_init__(self) -> None:
        _require(0 < self.s < math.inf, f"s = {self.s}: the offset must be positive (0.008)")
        _require(
            self.t_clean < self.t_max <= 1, f"t_max = {self.t_max} must lie in ({self.t_clean}, 1]"
        )

    def _theta(self, t: Scalar) -> Scalar:
        return (t + self.s) / (1 + self.s) * (math.pi / 2)

    def alpha(self, t: Scalar) -> Scalar:
        # cos(theta_t), from the angle to pi/2 so that it is 0 at t = 1
        return sin((1 - t) / (1 + self.s) * (math.pi / 2)) / math.cos(self._theta(0.0))

    def sigma(self, t: Scalar) -> Scalar:
        theta_t, theta_0 = self._theta(t), self._theta(0.0)
        gap = t / (1 + self.s) * (math.pi / 2)  # theta_t - theta_0, exactly 0 at t = 0
        return sqrt(sin(gap) * sin(theta_t + theta_0)) / math.cos(theta_0)

    def derivatives(self, t: Scalar) -> tuple[Scalar, Scalar]:
        alpha_t, sigma_t = self(t)
        rate = math.pi / 2 / (1 + self.s) / math.cos(self._theta(0.0))
        alpha_dot = -rate * sin(self._theta(t))
        return alpha_dot, ratio(-alpha_t * alpha_dot, sigma_t)

    def f(self, t: Scalar) -> Scalar:
        return ratio(self.derivatives(t)[0], self.alpha(t))

    def g2(self, t: Scalar) -> Scalar:
        return -2 * self.f(t)

    def _time_of(self, lambda_: Scalar) -> Scalar:
        alpha_t = exp(-softplus(-2 * lambda_) / 2)
        theta_t = acos(alpha_t * math.cos(self._theta(0.0)))
        return theta_t * (1 + self.s) / (math.pi / 2) - self.s


@dataclass(frozen=True)
class VE(_ClosedForm):
    """Variance-exploding: alpha = 1, sigma_t = sigma_min (sigma_max / sigma_min)^t on [0, 1].

    f = 0, g^2 = 2 sigma_t^2 log(sigma_max / sigma_min). Song et al. (2021), arXiv:2011.13456,
    eq. 30. sigma never reaches 0: t = 0 carries the noise sigma_min.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_clean = 0.0

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max)

    def alpha(self, t: Scalar) -> Scalar:
        return constant_like(t, 1.0)

    def sigma(self, t: Scalar) -> Scalar:
        return self.sigma_min * exp(t * math.log(self.sigma_max / self.sigma_min))

    def f(self, t: Scalar) -> Scalar:
        return constant_like(t, 0.0)

    def g2(self, t: Scalar) -> Scalar:
        return 2 * math.log(self.sigma_max / self.sigma_min) * self.sigma(t) ** 2

    def half_log_snr(self, t: Scalar) -> Scalar:
        return -(math.log(self.sigma_min) + t * math.log(self.sigma_max / self.sigma_min))

    def _time_of(self, lambda_: Scalar) -> Scalar:
        return -(lambda_ + math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)

    def norm(self, alpha: Scalar, sigma: Scalar) -> Scalar:
        return alpha


@dataclass(frozen=True)
class EDM(Schedule):
    """alpha = 1, sigma_t = t on [0, sigma_max]; f = 0, g^2 = 2 t.

    Karras et al. (2022), arXiv:2206.00364, table 1. `sigma_min` is the last noise level at which
    the network is asked (t_clean).
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max)
        object.__setattr__(self, "t_max", float(self.sigma_max))
        object.__setattr__(self, "t_clean", float(self.sigma_min))

    def alpha(self, t: Scalar) -> Scalar:
        return constant_like(t, 1.0)

    def sigma(self, t: Scalar) -> Scalar:
        return t * 1.0

    def derivatives(self, t: Scalar) -> tuple[Scalar, Scalar]:
        return constant_like(t, 0.0), constant_like(t, 1.0)

    def f(self, t: Scalar) -> Scalar:
        return constant_like(t, 0.0)

    def g2(self, t: Scalar) -> Scalar:
        return 2.0 * t

    def half_log_snr(self, t: Scalar) -> Scalar:
        return -log(t)

    def _time_of(self, lambda_: Scalar) -> Scalar:
        return exp(-lambda_)

    def norm(self, alpha: Scalar, sigma: Scalar) -> Scalar:
        return alpha


@dataclass(frozen=True)
class FlowMatching(Schedule):
    """The straight line alpha = 1 - t, sigma = t on [0, 1] (rectified flow, conditional OT).

    f = -1/(1 - t), g^2 = 2 t/(1 - t), lambda = log((1 - t)/t). Lipman et al. (2023),
    arXiv:2210.02747; Liu et al. (2023), arXiv:2209.03003. Here, as everywhere in this library,
    t = 0 is data and t = 1 is noise.
    """

    def alpha(self, t: Scalar) -> Scalar:
        return 1.0 - t

    def sigma(self, t: Scalar) -> Scalar:
        return t * 1.0

    def derivatives(self, t: Scalar) -> tuple[Scalar, Scalar]:
        return constant_like(t, -1.0), constant_like(t, 1.0)

    def f(self, t: Scalar) -> Scalar:
        return -ratio(constant_like(t, 1.0), 1.0 - t)

    def g2(self, t: Scalar) -> Scalar:
        return ratio(2.0 * t, 1.0 - t)

    def _time_of(self, lambda_: Scalar) -> Scalar:
        return 1.0 / (1.0 + exp(lambda_))

    def norm(self, alpha: Scalar, sigma: Scalar) -> Scalar:
        return alpha + sigma
