r"""The processes themselves, for other people's solvers.

    forward        dx = f(t) x dt + g(t) dw
    reverse        dx = [f(t) x - g(t)^2 score(x, t)] dt + g(t) dw          t runs from t_max down
    ODE            dx/dt = f(t) x - g(t)^2/2 score(x, t) = alpha' d + sigma' (x - alpha d)/sigma

all with the marginals of x_t = alpha_t x_0 + sigma_t eps. Anderson, "Reverse-time diffusion
equation models", 1982; Song et al., "Score-based generative modeling through SDEs", 2021,
arXiv:2011.13456, eq. 5, 6 and 13.

`ForwardSDE` and `ReverseSDE` are what torchsde takes; `ProbabilityFlowODE` is what torchdiffeq
and scipy take.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .denoise import Denoiser
from .scalar import Scalar, sqrt
from .schedule import Schedule
from .states import along, double


class ForwardSDE:
    """dx = f(t) x dt + g(t) dw, from data at t_min to noise at t_max.

    torchsde takes it as it is (Ito, diagonal noise):
    `torchsde.sdeint(ForwardSDE(schedule), x, ts)`.
    """

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def drift(self, x: Tensor, t: Scalar) -> Tensor:
        """f(t) x."""
        return along(self.schedule.f(t), x) * x

    def diffusion(self, t: Scalar) -> Scalar:
        """g(t)."""
        return sqrt(self.schedule.g2(t))

    def marginal(self, x_0: Tensor, t: Scalar) -> tuple[Tensor, Scalar]:
        """Mean alpha_t x_0 and standard deviation sigma_t of x_t | x_0."""
        alpha_t, sigma_t = self.schedule(_precise(t))
        return along(alpha_t, x_0) * x_0, along(sigma_t, x_0)

    def sample_marginal(
        self, x_0: Tensor, t: Scalar, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """(x_t, eps) with x_t = alpha_t x_0 + sigma_t eps; t one time, or one a sample."""
        eps = _normal(x_0, generator)
        mean, std = self.marginal(x_0, t)
        return mean + std * eps, eps

    def sample_transition(
        self, x_s: Tensor, s: Scalar, t: Scalar, generator: torch.Generator | None = None
    ) -> Tensor:
        """x_t | x_s ~ N(alpha_{t|s} x_s, sigma_{t|s}^2 I), exactly, from s to a noisier t."""
        alpha_ts, sigma_ts = self.schedule.transition(_precise(s), _precise(t))
        return along(alpha_ts, x_s) * x_s + along(sigma_ts, x_s) * _normal(x_s, generator)

    def sample_path(
        self, x_0: Tensor, times: Sequence[float] | Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """One exact path through increasing times, the first being that of x_0.

        Returns:
            shape (len(times), batch, *event).

        Raises:
            ValueError: if the times do not increase strictly within [t_min, t_max].
        """
        grid = [float(t) for t in times]
        inside = all(self.schedule.t_min <= t <= self.schedule.t_max for t in grid)
        if not inside or any(s >= t for s, t in pairwise(grid)):
            raise ValueError(
                f"times {grid} must increase strictly within [{self.schedule.t_min:g}, "
                f"{self.schedule.t_max:g}]: the forward process runs from clean to noisy"
            )
        path = [x_0]
        for s, t in pairwise(grid):
            path.append(self.sample_transition(path[-1], s, t, generator))
        return torch.stack(path)

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        """Drift, in torchsde's order of arguments."""
        return self.drift(x, t)

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        """Diffusion in the shape of x, as torchsde wants it."""
        return along(self.diffusion(t), x) * torch.ones_like(x)


class ReverseSDE:
    """dx = [f x - g^2 score] dt + g dw, run from t_max down.

    torchsde integrates forwards only, on states of shape (batch, numbers), so `f` and `g` run on
    the clock tau = t_max - t, which increases: `torchsde.sdeint(reverse, x_T, ts)` with
    ts = [reverse.clock(t_start), reverse.clock(t_end)].

    Args:
        denoiser: E[x_0 | x_t].
        event_shape: shape of one sample, if the states handed over are flattened.
    """

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, denoiser: Denoiser, event_shape: Sequence[int] | None = None) -> None:
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.event_shape = None if event_shape is None else tuple(event_shape)

    def drift(self, x: Tensor, t: Scalar) -> Tensor:
        """f(t) x - g(t)^2 score(x, t), per unit of t (which decreases)."""
        f, g2 = (along(c, x) for c in (self.schedule.f(t), self.schedule.g2(t)))
        return f * x - g2 * self.denoiser.score(x, t)

    def diffusion(self, t: Scalar) -> Scalar:
        """g(t)."""
        return sqrt(self.schedule.g2(t))

    def clock(self, t: Scalar) -> Scalar:
        """tau = t_max - t."""
        return self.schedule.t_max - t

    def f(self, tau: Tensor, x: Tensor) -> Tensor:
        """-drift at t = t_max - tau, in torchsde's order of arguments."""
        event = x if self.event_shape is None else x.reshape(-1, *self.event_shape)
        return -self.drift(event, self.clock(tau)).reshape(x.shape)

    def g(self, tau: Tensor, x: Tensor) -> Tensor:
        """Diffusion in the shape of x."""
        return along(self.diffusion(self.clock(tau)), x) * torch.ones_like(x)


class ProbabilityFlowODE:
    """dx/dt = f x - g^2/2 score, called as (t, x): what torchdiffeq and scipy take.

    `torchdiffeq.odeint(ode, x, ts)` with tensors; `scipy.integrate.solve_ivp(ode, (t, s), y)`
    with a flat numpy vector y, for which `state_shape` says what it holds.

    Args:
        denoiser: E[x_0 | x_t].
        state_shape: (batch, *event) of a flat numpy state.
        device: where a numpy state is evaluated; default: the network's device.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        state_shape: Sequence[int] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.state_shape = None if state_shape is None else tuple(state_shape)
        self.device = device if device is not None else getattr(denoiser, "device", None)

    def drift(self, x: Tensor, t: Scalar) -> Tensor:
        """alpha' d + sigma' (x - alpha d)/sigma; regular at alpha = 0, not at sigma = 0."""
        alpha_t, sigma_t = (along(c, x) for c in self.schedule(t))
        alpha_dot, sigma_dot = (along(c, x) for c in self.schedule.derivatives(t))
        d = self.denoiser(x, t)
        return alpha_dot * d + sigma_dot / sigma_t * (x - alpha_t * d)

    def __call__(self, t: Scalar, x: Tensor | np.ndarray) -> Tensor | np.ndarray:
        if isinstance(x, Tensor):
            return self.drift(x, t)
        if self.state_shape is None:
            raise ValueError(
                "a numpy state is flat: say what it holds, "
                "ProbabilityFlowODE(denoiser, state_shape=(batch, *event))"
            )
        state = torch.from_numpy(np.ascontiguousarray(x)).to(self.device or "cpu")
        with torch.no_grad():
            slope = self.drift(state.reshape(self.state_shape), float(t))
        return slope.cpu().numpy().reshape(-1)


def _precise(t: Scalar) -> Scalar:
    return double(t) if isinstance(t, Tensor) else t


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.empty_like(like).normal_(generator=generator)
