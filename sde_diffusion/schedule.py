r"""Noise schedules: two functions of time, and all that follows from them.

A diffusion process is given by the scales of its marginals, x_t = alpha_t x_0 + sigma_t eps with
eps ~ N(0, I). Everything else is a consequence (Kingma et al., "Variational Diffusion Models",
2021, arXiv:2107.00630, section 3 and appendix; Lu et al., "DPM-Solver", 2022, arXiv:2206.00927,
section 2):

    f(t)     = d log alpha_t / dt                                    drift of dx = f x dt + g dw
    g(t)^2   = d sigma_t^2/dt - 2 f(t) sigma_t^2 = -2 sigma_t^2 lambda_t'     squared diffusion
    lambda_t = log(alpha_t / sigma_t)                                half-log-SNR (HALF the log-SNR)
    rho_t    = sigma_t / alpha_t = exp(-lambda_t)                    noise-to-signal ratio

and, for s < t, the transition kernel x_t | x_s ~ N(alpha_{t|s} x_s, sigma_{t|s}^2 I) with

    alpha_{t|s} = alpha_t / alpha_s,     sigma_{t|s}^2 = sigma_t^2 - alpha_{t|s}^2 sigma_s^2.

Time runs from t_min (clean) to t_max (noisy), and lambda_t decreases strictly. The ends may be
exact: sigma = 0 (lambda = inf) at t_min, alpha = 0 (lambda = -inf) at t_max.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from .scalar import Scalar, constant_like, expm1, log, ratio, sqrt


class Schedule(ABC):
    """t -> (alpha_t, sigma_t), with f, g^2, lambda_t and t(lambda) derived from them.

    A subclass gives `alpha` and `sigma`, as functions of a float or of a tensor, and the range
    of time. It may override `derivatives`, `f`, `g2`, `half_log_snr` and `time_of` by
    closed forms; otherwise they come from automatic differentiation and from bracketing.

    Attributes:
        t_min: cleanest time; sigma may be 0 there.
        t_max: noisiest time; alpha may be 0 there.
        t_clean: cleanest time at which a network is asked when sigma(t_min) = 0; grids that
            cannot reach sigma = 0 smoothly (uniform in lambda, Karras) end there and then jump.
    """

    t_min: float = 0.0
    t_max: float = 1.0
    t_clean: float = 1e-3

    @abstractmethod
    def alpha(self, t: Scalar) -> Scalar:
        """Signal scale alpha_t."""

    @abstractmethod
    def sigma(self, t: Scalar) -> Scalar:
        """Noise scale sigma_t."""

    def __call__(self, t: Scalar) -> tuple[Scalar, Scalar]:
        """(alpha_t, sigma_t)."""
        return self.alpha(t), self.sigma(t)

    def half_log_snr(self, t: Scalar) -> Scalar:
        """lambda_t = log(alpha_t / sigma_t); half of the log-SNR."""
        alpha_t, sigma_t = self(t)
        return log(alpha_t) - log(sigma_t)

    def rho(self, t: Scalar) -> Scalar:
        """rho_t = sigma_t / alpha_t = exp(-lambda_t), the sigma of EDM; inf where alpha = 0."""
        alpha_t, sigma_t = self(t)
        return ratio(sigma_t, alpha_t)

    def derivatives(self, t: Scalar) -> tuple[Scalar, Scalar]:
        """(d alpha_t/dt, d sigma_t/dt), by automatic differentiation."""
        return _derivative(self.alpha, t), _derivative(self.sigma, t)

    def f(self, t: Scalar) -> Scalar:
        """Drift coefficient f(t) = d log alpha_t / dt of dx = f(t) x dt + g(t) dw."""
        return self.derivatives(t)[0] / self.alpha(t)

    def g2(self, t: Scalar) -> Scalar:
        """Squared diffusion coefficient g(t)^2 = d sigma_t^2/dt - 2 f(t) sigma_t^2."""
        alpha_t, sigma_t = self(t)
        alpha_dot, sigma_dot = self.derivatives(t)
        return 2 * sigma_t * (sigma_dot - sigma_t * alpha_dot / alpha_t)

    def time_of(self, lambda_: Scalar) -> Scalar:
        """t(lambda), the inverse of `half_log_snr`, by bracketing on [t_min, t_max].

        A tensor's gradient is that of the inverse function, dt/dlambda = 1/lambda'(t).

        Raises:
            ValueError: if lambda lies outside [lambda(t_max), lambda(t_min)].
        """
        if isinstance(lambda_, Tensor):
            flat = [self._bracket(v) for v in lambda_.detach().reshape(-1).tolist()]
            root = torch.tensor(flat, dtype=torch.float64).reshape(lambda_.shape)
            if lambda_.requires_grad:
                slope = _derivative(self.half_log_snr, root)
                root = root + (lambda_ - lambda_.detach()) / slope
            return root.to(lambda_)
        return self._bracket(lambda_)

    def _bracket(self, lambda_: float) -> float:
        lowest, highest = (float(self.half_log_snr(t)) for t in (self.t_max, self.t_min))
        if not lowest <= lambda_ <= highest:
            raise ValueError(
                f"lambda = {lambda_:.6g} lies outside [{lowest:.6g}, {highest:.6g}], the "
                f"half-log-SNR range of {self!r}; ask for a lambda inside it"
            )
        if lambda_ in (lowest, highest):
            return self.t_max if lambda_ == lowest else self.t_min
        # Bracket where the curve is finite: atan keeps lambda = +-inf at the ends usable.
        target = math.atan(lambda_)
        error = lambda t: math.atan(float(self.half_log_snr(t))) - target
        coarse = brentq(error, self.t_min, self.t_max, xtol=1e-15, rtol=1e-14)
        slope = float(_derivative(self.half_log_snr, coarse))
        if not math.isfinite(slope) or slope == 0:
            return float(coarse)
        # One Newton step in lambda itself: atan is flat where |lambda| is large.
        polished = coarse - (float(self.half_log_snr(coarse)) - lambda_) / slope
        return min(max(float(polished), self.t_min), self.t_max)

    def transition(self, s: Scalar, t: Scalar) -> tuple[Scalar, Scalar]:
        """(alpha_{t|s}, sigma_{t|s}) of the kernel x_t | x_s, from s (cleaner) to t (noisier).

        sigma_{t|s}^2 = sigma_t^2 (1 - exp(2 (lambda_t - lambda_s))), free of cancellation.
        """
        alpha_s, (alpha_t, sigma_t) = self.alpha(s), self(t)
        shrink = expm1(2 * (self.half_log_snr(t) - self.half_log_snr(s)))
        return alpha_t / alpha_s, sigma_t * sqrt(-shrink)

    def norm(self, alpha: Scalar, sigma: Scalar) -> Scalar:
        """A norm of (alpha, sigma) that this family keeps fixed when its noise is rescaled."""
        return sqrt(alpha * alpha + sigma * sigma)

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}(t_min={self.t_min:g}, t_max={self.t_max:g})"

    def check(self, points: int = 257) -> None:
        """Raise ValueError unless alpha, sigma are finite, non-negative and lambda decreases."""
        if not (math.isfinite(self.t_min) and math.isfinite(self.t_max)):
            raise ValueError(f"t_min = {self.t_min}, t_max = {self.t_max}: both must be finite")
        if not self.t_min < self.t_max:
            raise ValueError(f"t_min = {self.t_min} must be below t_max = {self.t_max}")
        if not self.t_min <= self.t_clean < self.t_max:
            raise ValueError(
                f"t_clean = {self.t_clean} must lie in [t_min, t_max), here "
                f"[{self.t_min}, {self.t_max})"
            )
        times = np.linspace(self.t_min, self.t_max, points).tolist()
        previous = math.inf
        for i, t in enumerate(times):
            for name, value in (("alpha", self.alpha(t)), ("sigma", self.sigma(t))):
                if not math.isfinite(value) or value < 0:
                    raise ValueError(
                        f"{name}({t:.6g}) = {float(value):.6g}: alpha and sigma must be finite and "
                        "non-negative on [t_min, t_max]; mend the function or narrow the range"
                    )
            lambda_t = float(self.half_log_snr(t))
            if math.isnan(lambda_t) or (i > 0 and not lambda_t < previous):
                raise ValueError(
                    f"half-log-SNR goes from {previous:.6g} to {lambda_t:.6g} just before "
                    f"t = {t:.6g}: log(alpha/sigma) must decrease strictly, so that t = t_min is "
                    "clean and t = t_max is noise (for data at t = 1, substitute 1 - t)"
                )
            previous = lambda_t


class CustomSchedule(Schedule):
    """A schedule from two functions of one's own.

    Args:
        alpha: signal scale; takes a float64 tensor t and returns a tensor, in torch operations.
        sigma: noise scale, likewise.
        t_min, t_max: range of time, clean to noisy.
        t_clean: cleanest time at which a network is asked; default t_min if sigma(t_min) > 0,
            else a thousandth of the range above t_min.

    Raises:
        ValueError: if a scale is negative or not finite, or lambda does not decrease strictly.
    """

    def __init__(
        self,
        alpha: Callable[[Tensor], Tensor],
        sigma: Callable[[Tensor], Tensor],
        t_min: float = 0.0,
        t_max: float = 1.0,
        t_clean: float | None = None,
    ) -> None:
        self._alpha, self._sigma = alpha, sigma
        self.t_min, self.t_max = float(t_min), float(t_max)
        if t_clean is None:
            reaches_zero = self.sigma(self.t_min) == 0
            t_clean = self.t_min + (1e-3 * (self.t_max - self.t_min) if reaches_zero else 0.0)
        self.t_clean = float(t_clean)
        self.check()

    def alpha(self, t: Scalar) -> Scalar:
        return _through_tensor(self._alpha, t)

    def sigma(self, t: Scalar) -> Scalar:
        return _through_tensor(self._sigma, t)

    def __repr__(self) -> str:
        names = [
            getattr(fn, "__qualname__", type(fn).__name__) for fn in (self._alpha, self._sigma)
        ]
        return f"CustomSchedule({names[0]}, {names[1]}, t_min={self.t_min}, t_max={self.t_max})"


def _through_tensor(function: Callable[[Tensor], Tensor], t: Scalar) -> Scalar:
    """A tensor function of a float or of a tensor, answered in kind; constants are broadcast."""
    if isinstance(t, Tensor):
        value = function(t)
        return value if isinstance(value, Tensor) else constant_like(t, float(value))
    return float(function(torch.tensor(t, dtype=torch.float64)))


def _derivative(function: Callable[[Scalar], Scalar], t: Scalar) -> Scalar:
    """d function/dt at each entry of t, by automatic differentiation."""
    with torch.enable_grad():
        keep_graph = isinstance(t, Tensor) and t.requires_grad
        u = torch.as_tensor(t, dtype=None if isinstance(t, Tensor) else torch.float64)
        u = u if keep_graph else u.detach().clone().requires_grad_()
        value = function(u)
        if not isinstance(value, Tensor) or not value.requires_grad:
            return constant_like(t, 0.0)
        (slope,) = torch.autograd.grad(value.sum(), u, create_graph=keep_graph, allow_unused=True)
    if slope is None:
        return constant_like(t, 0.0)
    return slope if isinstance(t, Tensor) else float(slope)
