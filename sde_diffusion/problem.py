r"""The problem interface: data whose score, noised law and trajectories are known exactly.

x = alpha x_0 + sigma eps, eps ~ N(0, I), has a law p(x; alpha, sigma) that knows nothing of time:
a schedule only says which (alpha, sigma) a time has. So the probability-flow ODE (Song et al.,
"Score-based generative modeling through SDEs", 2021, arXiv:2011.13456, section 4.3),

    dx/dt = f x - g^2/2 grad log p = (alpha'/alpha) x + (sigma' - sigma alpha'/alpha) E[eps | x],

is integrated once for all schedules. With alpha = r cos(theta), sigma = r sin(theta), y = x / r,

    dy/dtheta = cos(theta) E[eps | x] - sin(theta) E[x_0 | x],    0 <= theta <= pi/2,

regular at both ends, theta = 0 (data that has a density) and theta = pi/2 (noise).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from .denoise import Call, Denoiser
from .scalar import Scalar
from .schedule import Schedule

Flat = Callable[[Tensor], Tensor]
"""A function of states flattened to (batch, D)."""
_CHUNK = 128  # samples integrated together by `trajectory`


class Problem(ABC):
    """Data with a closed-form score, law and probability-flow trajectory.

    Common arguments: x, of shape (batch, *event_shape), float32 or float64, is a state of the
    noised law; alpha >= 0 and sigma >= 0, not both 0, are its signal and noise scales: floats, or
    tensors of shape () or (batch,). Answers come in the dtype and on the device of x.

    Common errors: TypeError if x is not a float32 or float64 tensor; ValueError if its event shape
    is another, if alpha or sigma is out of range, or if sigma = 0 and the data has no density.

    Attributes:
        event_shape: shape of one sample; D is its number of entries.
        mean: E[x_0], of shape event_shape, float64.
        smooth: whether the data has a density, so that sigma = 0 is allowed.
    """

    event_shape: tuple[int, ...]
    mean: Tensor
    smooth: bool

    @abstractmethod
    def _combine(self, x: Tensor, alpha: Tensor, sigma: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """a E[x_0 | x] + b grad log p(x), of x (batch, D) and columns alpha, sigma, a, b."""

    def _denoisers(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> list[Flat]:
        """E[x_0 | x] at each row of the columns alpha, sigma, for states like x, (batch, D)."""
        columns = (alpha, sigma, torch.ones_like(alpha), torch.zeros_like(alpha))

        def at(*row: Tensor) -> Flat:
            return lambda x: self._combine(x, *row)

        return [at(*row) for row in zip(*(v.to(x).split(1) for v in columns), strict=True)]

    @abstractmethod
    def _log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p(x), (batch,), of x (batch, D) and columns alpha, sigma."""

    @abstractmethod
    def _covariance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Cov[x_0 | x], (batch, D, D), of x (batch, D) and columns alpha, sigma."""

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        """n samples of x_0, (n, D), float64."""

    @abstractmethod
    def data_covariance(self) -> Tensor:
        """Cov[x_0] of the flattened data, (D, D), float64."""

    def denoised(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
        """Ideal denoiser E[x_0 | alpha x_0 + sigma eps = x], in the shape of x."""
        flat, alpha, sigma = self._enter(x, alpha, sigma)
        one, zero = torch.ones_like(sigma), torch.zeros_like(sigma)
        return self._combine(flat, alpha, sigma, one, zero).reshape(x.shape)

    def denoisers(self, x: Tensor, scales: Sequence[tuple[float, float]]) -> list[Flat]:
        """`denoised` at each (alpha, sigma), for states like x: all that can be done beforehand."""
        flat, *_ = self._enter(x, 1.0, 1.0)
        pairs = torch.tensor(scales, dtype=torch.float64).reshape(-1, 2).to(self.mean)
        _, alpha, sigma = self._enter(self.mean.expand(len(pairs), *self.event_shape), *pairs.T)
        functions = self._denoisers(flat, alpha, sigma)
        if x.ndim == 2:
            return functions
        unflattened = lambda f: lambda x: f(x.reshape(len(x), -1)).reshape(x.shape)
        return [unflattened(function) for function in functions]

    def score(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
        """Score grad log p(x) of the noised law, in the shape of x."""
        flat, alpha, sigma = self._enter(x, alpha, sigma)
        one, zero = torch.ones_like(sigma), torch.zeros_like(sigma)
        return self._combine(flat, alpha, sigma, zero, one).reshape(x.shape)

    def noise(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
        """Expected noise E[eps | x] = -sigma grad log p(x), in the shape of x; 0 at sigma = 0."""
        flat, alpha, sigma = self._enter(x, alpha, sigma)
        return self._combine(flat, alpha, sigma, torch.zeros_like(sigma), -sigma).reshape(x.shape)

    def denoiser(self, schedule: Schedule) -> ExactDenoiser:
        """The ideal denoiser of this data under a schedule: what a perfect network would be."""
        return ExactDenoiser(self, schedule)

    def log_prob(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
        """Log-density log p(x) of the noised law, (batch,); of the data at alpha = 1, sigma = 0."""
        return self._log_prob(*self._enter(x, alpha, sigma))

    def covariance(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
        """Posterior covariance Cov[x_0 | x] of the flattened data, (batch, D, D)."""
        return self._covariance(*self._enter(x, alpha, sigma))

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """n independent samples of the data, (n, *event_shape).

        Drawn in float64 and rounded to dtype, so that a seed means one sample in every dtype.
        """
        if n < 1:
            raise ValueError(f"n = {n} samples cannot be drawn; ask for at least one")
        return self._draw(n, generator).reshape(n, *self.event_shape).to(dtype)

    def sample_marginal(
        self,
        n: int,
        alpha: Scalar,
        sigma: Scalar,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """n independent samples alpha x_0 + sigma eps of the noised law, (n, *event_shape)."""
        x = self.sample(n, generator).reshape(n, -1)
        alpha, sigma = (_column(k, v, x) for k, v in (("alpha", alpha), ("sigma", sigma)))
        eps = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return (alpha * x + sigma * eps).reshape(n, *self.event_shape).to(dtype)

    def trajectory(
        self,
        x: Tensor,
        schedule: Schedule,
        times: Sequence[float] | Tensor,
        rtol: float = 1e-11,
        atol: float = 1e-12,
    ) -> Tensor:
        """States of the probability-flow ODE dx/dt = f x - g^2/2 grad log p at the given times.

        Integrated from time to time in float64 by DOP853 (Hairer, Norsett & Wanner, 1993), with
        an error bound that holds for each sample; in closed form on Gaussian data. Between modes
        trajectories part, and errors with them: a sample that ends there asks for a smaller rtol.

        Args:
            x: states at times[0], (batch, *event_shape).
            schedule: t -> (alpha_t, sigma_t).
            times: times to visit, in any order, inside [t_min, t_max].
            rtol, atol: relative and absolute local error of a sample of x / hypot(alpha, sigma).

        Returns:
            (len(times), batch, *event_shape), of which the first is x.

        Raises:
            ValueError: if x is not finite, a time lies outside the schedule, or a time has
                sigma = 0 and the data no density (Gaussian data may end, not start, there).
        """
        path = [float(t) for t in (times.tolist() if isinstance(times, Tensor) else times)]
        if not path:
            raise ValueError("times is empty; give at least the time at which x stands")
        for t in path:
            if not schedule.t_min <= t <= schedule.t_max:
                raise ValueError(
                    f"time {t:.6g} lies outside [{schedule.t_min:.6g}, {schedule.t_max:.6g}], the "
                    f"range of {schedule!r}; give times inside it"
                )
        if not (0 < rtol < math.inf and 0 < atol < math.inf):
            raise ValueError(f"rtol = {rtol}, atol = {atol}: both must be positive and finite")
        scales = [(float(alpha_t), float(sigma_t)) for alpha_t, sigma_t in map(schedule, path)]
        flat = self._enter(x, *scales[0])[0]
        if not bool(torch.isfinite(x).all()):
            raise ValueError("x has entries that are not finite, from which no trajectory starts")
        states = [flat.detach().double()]
        for start, end in pairwise(scales):
            states.append(self._move(states[-1], start, end, rtol, atol))
        return torch.stack(states).reshape(len(path), *x.shape).to(x.dtype)

    def endpoint(self, x: Tensor, schedule: Schedule, t: float, s: float) -> Tensor:
        """State at time s of the probability-flow trajectory that passes through x at time t."""
        return self.trajectory(x, schedule, [t, s])[-1]

    def _move(
        self,
        x: Tensor,
        start: tuple[float, float],
        end: tuple[float, float],
        rtol: float,
        atol: float,
    ) -> Tensor:
        """x (batch, D), float64, carried from one (alpha, sigma) to another."""
        self._check_density(end[1] == 0)
        interval = [math.atan2(sigma, alpha) for alpha, sigma in (start, end)]
        y = (x / math.hypot(*start)).cpu()
        if interval[0] != interval[1] and len(y):
            parts = [self._integrate(part, interval, rtol, atol) for part in y.split(_CHUNK)]
            y = torch.cat(parts)
        return (math.hypot(*end) * y).to(x)

    @torch.no_grad()
    def _integrate(self, y: Tensor, interval: list[float], rtol: float, atol: float) -> Tensor:
        def velocity(theta: float, flat: np.ndarray) -> np.ndarray:
            state = torch.from_numpy(flat).reshape(y.shape)
            cos, sin = torch.full((2, 1, 1), theta, dtype=y.dtype)
            cos, sin = cos.cos(), sin.sin()
            return self._combine(state, cos, sin, -sin, -cos * sin).flatten().numpy()

        # The solver's norm is a mean over all entries: a sample's share of it can be 1/len(y).
        share = math.sqrt(len(y))
        tight, floor = max(rtol / share, 2.3e-14), atol / share
        result = solve_ivp(
            velocity, interval, y.flatten().numpy(), "DOP853", rtol=tight, atol=floor
        )
        if not result.success:
            raise RuntimeError(
                f"the trajectory stopped at angle {result.t[-1]:.3g} of {interval}: "
                f"{result.message} Loosen rtol = {rtol}, atol = {atol}, or stay at a larger sigma"
            )
        return torch.from_numpy(result.y[:, -1].copy()).reshape(y.shape)

    def _enter(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> tuple[Tensor, Tensor, Tensor]:
        """x flattened to (batch, D), alpha and sigma as columns, all checked."""
        if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x is {kind}, not a float32 or float64 tensor; cast it: x.double()")
        if x.ndim == 0 or tuple(x.shape[1:]) != self.event_shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, but samples of this problem have the event shape "
                f"{self.event_shape}; give x of shape (batch, *{self.event_shape})"
            )
        column_alpha, column_sigma = _column("alpha", alpha, x), _column("sigma", sigma, x)
        if isinstance(sigma, Tensor) or sigma == 0:
            noiseless = column_sigma == 0
            if bool((noiseless & (column_alpha == 0)).any()):
                raise ValueError(
                    "alpha = sigma = 0 leaves nothing of x; one of them must be positive"
                )
            self._check_density(bool(noiseless.any()))
        return x.reshape(len(x), math.prod(self.event_shape)), column_alpha, column_sigma

    def _check_density(self, at_zero: bool) -> None:
        if at_zero and not self.smooth:
            raise ValueError(
                "sigma = 0, but this data has no density (zero smoothing, or a variance of 0): "
                "there is no score; stay at sigma > 0, or give the data a positive variance"
            )


class ExactDenoiser(Denoiser):
    """E[x_0 | x_t] in closed form; noise and score likewise, without a division by sigma."""

    def __init__(self, problem: Problem, schedule: Schedule) -> None:
        self.problem, self.schedule = problem, schedule

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        return self.problem.denoised(x, *self.schedule(t))

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        scales = [(float(alpha), float(sigma)) for alpha, sigma in map(self.schedule, times)]
        at = lambda function: lambda x, out: function(x)
        return [Call(at(function)) for function in self.problem.denoisers(x, scales)]

    def noise(self, x: Tensor, t: Scalar) -> Tensor:
        return self.problem.noise(x, *self.schedule(t))

    def score(self, x: Tensor, t: Scalar) -> Tensor:
        return self.problem.score(x, *self.schedule(t))


def _column(name: str, value: Scalar, x: Tensor) -> Tensor:
    """A scale as a column, (1, 1) or (batch, 1), in the dtype and on the device of x; checked."""
    if not isinstance(value, Tensor | float | int | np.number):
        raise TypeError(f"{name} is {type(value).__name__}; give a float or a tensor")
    if not isinstance(value, Tensor):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} = {value}: scales must be finite and non-negative")
        return x.new_full((1, 1), float(value))
    if value.ndim > 1 or (value.ndim == 1 and len(value) != len(x)):
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, but x has batch {len(x)}; give a float or a "
            f"tensor of shape () or ({len(x)},)"
        )
    if not bool(((value >= 0) & (value < math.inf)).all()):
        raise ValueError(f"{name} = {value}: scales must be finite and non-negative")
    return value.to(x).reshape(-1, 1)
