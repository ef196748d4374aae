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
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from .scalar import Scalar, constant_like, expm1, log, ratio, sqrt, where

FEW = 4  # lambdas that are inverted one by one
PARTS = 16  # of an interval, tried at once


class Schedule(ABC):
    """t -> (alpha_t, sigma_t), with f, g^2, lambda_t and t(lambda) derived from them.

    A subclass gives `alpha` and `sigma`, as functions of a float or of a tensor, and the range
    of time. It may override `derivatives`, `f`, `g2`, `half_log_snr` and `_time_of` by
    closed forms; otherwise they come from automatic differentiation and from bracketing.

    Attributes:
        t_min: cleanest time; sigma may be 0 there.
        t_max: noisiest time; alpha may be 0 there.
        t_clean: where to stop asking a network when sigma(t_min) = 0: grids that cannot reach
            sigma = 0 smoothly (uniform in lambda, Karras) and ODE packages go there and then jump.
        timesteps: number of integer timesteps of the discrete process behind it, if there is one.
    """

    t_min: float = 0.0
    t_max: float = 1.0
    t_clean: float = 1e-3
    timesteps: int | None = None

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
        return ratio(self.derivatives(t)[0], self.alpha(t))

    def g2(self, t: Scalar) -> Scalar:
        """Squared diffusion coefficient g(t)^2 = d sigma_t^2/dt - 2 f(t) sigma_t^2."""
        alpha_t, sigma_t = self(t)
        alpha_dot, sigma_dot = self.derivatives(t)
        return 2 * sigma_t * (sigma_dot - sigma_t * ratio(alpha_dot, alpha_t))

    def time_of(self, lambda_: Scalar) -> Scalar:
        """t(lambda), the inverse of `half_log_snr`; exact at both ends.

        Raises:
            ValueError: if lambda lies outside [lambda(t_max), lambda(t_min)] by more than rounding.
        """
        lowest, highest = self._lambda_range
        single = isinstance(lambda_, Tensor) and lambda_.dtype == torch.float32
        finite = [abs(end) for end in (lowest, highest) if math.isfinite(end)]
        slack = (1e-5 if single else 1e-12) * (1 + max(finite, default=0.0))
        inside = (lambda_ >= lowest - slack) & (lambda_ <= highest + slack)
        if not bool(inside if isinstance(inside, bool) else inside.all()):
            wrong = lambda_ if not isinstance(lambda_, Tensor) else lambda_[~inside].flatten()[0]
            raise ValueError(
                f"lambda = {float(wrong):.6g} lies outside [{lowest:.6g}, {highest:.6g}], the "
                f"half-log-SNR range of {self!r}; ask for a lambda inside it"
            )
        above, below = lambda_ >= highest, lambda_ <= lowest
        middle = where(above | below, constant_like(lambda_, self._lambda_middle), lambda_)
        t = self._time_of(middle)
        t = where(t > self.t_max, constant_like(t, self.t_max), t)
        t = where(t < self.t_min, constant_like(t, self.t_min), t)
        t = where(above, constant_like(t, self.t_min), t)
        return where(below, constant_like(t, self.t_max), t)

    def _time_of(self, lambda_: Scalar) -> Scalar:
        """t(lambda) inside the range: by bracketing, unless a subclass knows a closed form.

        A tensor's gradient is that of the inverse function, dt/dlambda = 1/lambda'(t).
        """
        if not isinstance(lambda_, Tensor):
            return self._bracket(lambda_)
        flat = lambda_.detach().reshape(-1).to("cpu", torch.float64)
        root = (
            self._bracket_all(flat)
            if len(flat) > FEW and self.t_min >= 0
            else flat.clone().apply_(self._bracket)
        )
        root = root.reshape(lambda_.shape)
        if not lambda_.requires_grad:
            return root.to(lambda_)
        slope = torch.as_tensor(_derivative(self.half_log_snr, root))
        return root.to(lambda_) + (lambda_ - lambda_.detach()) / slope.to(lambda_)

    def _bracket(self, lambda_: float) -> float:
        def error(t: float) -> float:  # finite at the ends, where lambda may be infinite
            return min(max(float(self.half_log_snr(t)), -1e4), 1e4) - lambda_

        return float(brentq(error, self.t_min, self.t_max, xtol=1e-300, rtol=1e-15, maxiter=2000))

    @torch.no_grad()
    def _bracket_all(self, lambda_: Tensor) -> Tensor:
        """t(lambda) of many, float64 on the CPU: the floats between the ends searched in order.

        The bits of floats that are not negative, read as integers, number them in their order. Each
        round cuts the interval of every lambda to one of `PARTS`, until its ends are neighbours.
        """
        ends = torch.tensor([abs(self.t_min), self.t_max], dtype=torch.float64)  # -0.0 is 0.0
        low, high = ends.view(torch.int64).tolist()
        low, high = (torch.full(lambda_.shape, end, dtype=torch.int64) for end in (low, high))
        steps = torch.arange(1, PARTS)
        while bool((high - low > 1).any()):
            between = low[:, None] + (high - low)[:, None] // PARTS * steps
            between += ((high - low)[:, None] % PARTS * steps) // PARTS
            found = torch.as_tensor(self.half_log_snr(between.reshape(-1).view(torch.float64)))
            above = (found.reshape(between.shape) >= lambda_[:, None]).sum(1, keepdim=True)
            ends = torch.cat([low[:, None], between, high[:, None]], 1)
            low, high = ends.gather(1, above)[:, 0], ends.gather(1, above + 1)[:, 0]
        return low.view(torch.float64)

    @cached_property
    def _lambda_range(self) -> tuple[float, float]:
        return float(self.half_log_snr(self.t_max)), float(self.half_log_snr(self.t_min))

    @cached_property
    def _lambda_middle(self) -> float:
        return float(self.half_log_snr((self.t_min + self.t_max) / 2))

    def transition(self, s: Scalar, t: Scalar) -> tuple[Scalar, Scalar]:
        """(alpha_{t|s}, sigma_{t|s}) of the kernel x_t | x_s, from s (cleaner) to t (noisier).

        sigma_{t|s}^2 = sigma_t^2 (1 - exp(2 (lambda_t - lambda_s))), free of cancellation.
        """
        if not isinstance(s, Tensor) and not isinstance(t, Tensor) and s > t:
            raise ValueError(f"s = {s:g} is noisier than t = {t:g}; a kernel goes from s to t >= s")
        alpha_s, (alpha_t, sigma_t) = self.alpha(s), self(t)
        gap = self.half_log_snr(t) - self.half_log_snr(s)
        gap = where(s == t, constant_like(gap, 0.0), gap)  # inf - inf where sigma = 0
        return alpha_t / alpha_s, sigma_t * sqrt(-expm1(2 * gap))

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
        self._check_differentiable()

    def alpha(self, t: Scalar) -> Scalar:
        return _through_tensor(self._alpha, t)

    def sigma(self, t: Scalar) -> Scalar:
        return _through_tensor(self._sigma, t)

    def _check_differentiable(self) -> None:
        """Raise unless automatic differentiation sees what a difference quotient sees."""
        t, step = (self.t_min + self.t_max) / 2, 1e-6 * (self.t_max - self.t_min)
        for name, scale in (("alpha", self.alpha), ("sigma", self.sigma)):
            quotient = float(scale(t + step) - scale(t - step)) / (2 * step)
            slope = float(_derivative(scale, t))
            if abs(slope - quotient) > 1e-3 * (1 + abs(quotient)):
                raise ValueError(
                    f"d {name}/dt at t = {t:.4g} is {quotient:.4g}, but automatic differentiation "
                    f"gives {slope:.4g}: write {name} in torch operations (torch.cos, not math.cos)"
                )

    def __repr__(self) -> str:
        names = [
            getattr(fn, "__qualname__", type(fn).__name__) for fn in (self._alpha, self._sigma)
        ]
        middle = ", ".join(f"{v:.6g}" for v in self((self.t_min + self.t_max) / 2))
        return (
            f"CustomSchedule({names[0]}, {names[1]}, t_min={self.t_min:g}, t_max={self.t_max:g}: "
            f"{middle} in the middle)"
        )


def _through_tensor(function: Callable[[Tensor], Tensor], t: Scalar) -> Scalar:
    """A tensor function of a float or of a tensor, answered in kind; constants are broadcast."""
    if isinstance(t, Tensor):
        value = function(t)
        return value if isinstance(value, Tensor) else constant_like(t, float(value))
    return float(function(torch.tensor(t, dtype=torch.float64)))


def _derivative(function: Callable[[Scalar], Scalar], t: Scalar) -> Scalar:
    """d function/dt at each entry of t, by automatic differentiation."""
    with torch.inference_mode(False), torch.enable_grad():
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
