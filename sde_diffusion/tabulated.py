"""Schedules made from tables of a discrete DDPM, and schedules made from other schedules.

A discrete process with betas beta_1 .. beta_N has alphabar_i = prod_{j <= i} (1 - beta_j). Here
it becomes a continuous schedule on t in [0, 1]: entry i stands at t = i/N, t = 0 is clean
(alphabar = 1), and alpha = sqrt(alphabar) runs between the entries as a monotone cubic (PCHIP),
sigma = sqrt(1 - alpha^2). A network's integer timestep k = 0 .. N-1 is the time t = (k + 1)/N.
The slopes have kinks at the entries, so Runge-Kutta methods in t do not exceed order 2 on a
coarse table; methods in lambda or rho are not affected.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from .scalar import Scalar, constant_like, ratio, sqrt, where
from .schedule import Schedule


class Tabulated(Schedule):
    """Variance-preserving schedule through the cumulative alphas of a discrete process.

    Args:
        alphas_cumprod: alphabar_1 .. alphabar_N, strictly decreasing in (0, 1); the last may be
            0 (zero terminal SNR).

    Raises:
        ValueError: if fewer than 2 entries, or an entry out of order or range.
    """

    timesteps: int

    def __init__(self, alphas_cumprod: Sequence[float] | np.ndarray | Tensor) -> None:
        bars = np.asarray(alphas_cumprod, dtype=np.float64).reshape(-1)
        if len(bars) < 2:
            raise ValueError(f"alphas_cumprod has {len(bars)} entries; a table needs at least 2")
        knots = np.concatenate([[1.0], bars])
        bad = np.flatnonzero(~(np.diff(knots) < 0))
        if len(bad) or not np.isfinite(bars).all() or bars[-1] < 0:
            i = int(bad[0]) if len(bad) else len(bars) - 1
            raise ValueError(
                f"alphas_cumprod[{i}] = {bars[i]:.6g} follows {knots[i]:.6g}: cumulative alphas "
                "must decrease strictly within [0, 1) (for per-step betas use Tabulated.from_betas)"
            )
        self.alphas_cumprod = bars
        self.timesteps = len(bars)
        self.t_clean = 1.0 / len(bars)
        curve = PchipInterpolator(np.linspace(0.0, 1.0, len(knots)), np.sqrt(knots))
        self._cubics = torch.from_numpy(curve.c.T.copy())  # (N, 4), highest power first
        self._rows: list[list[float]] = self._cubics.tolist()
        self._last = math.sqrt(bars[-1])

    @classmethod
    def from_betas(cls, betas: Sequence[float] | np.ndarray | Tensor) -> Tabulated:
        """From per-step variances beta_1 .. beta_N in (0, 1); beta_N may be 1."""
        table = np.asarray(betas, dtype=np.float64).reshape(-1)
        bad = np.flatnonzero(~((table > 0) & (table <= 1)))
        if len(bad):
            raise ValueError(
                f"betas[{bad[0]}] = {table[bad[0]]:.6g}: every beta must lie in (0, 1)"
            )
        return cls(np.cumprod(1.0 - table))

    def alpha(self, t: Scalar) -> Scalar:
        u, (a, b, c, d) = self._cubic(t)
        alpha_t = ((a * u + b) * u + c) * u + d
        return where(t >= self.t_max, constant_like(t, self._last), alpha_t)  # 0 stays 0

    def sigma(self, t: Scalar) -> Scalar:
        alpha_t = self.alpha(t)
        return sqrt((1.0 - alpha_t) * (1.0 + alpha_t))

    def derivatives(self, t: Scalar) -> tuple[Scalar, Scalar]:
        u, (a, b, c, _) = self._cubic(t)
        alpha_dot = (3 * a * u + 2 * b) * u + c
        return alpha_dot, ratio(-self.alpha(t) * alpha_dot, self.sigma(t))

    def _cubic(self, t: Scalar) -> tuple[Scalar, Sequence[Scalar]]:
        """Place within the cell of t, and the cell's coefficients, highest power first."""
        n = self.timesteps
        if isinstance(t, Tensor):
            cells = (t.detach() * n).long().clamp(0, n - 1)
            return t - cells.to(t.dtype) / n, self._cubics.to(t)[cells].unbind(-1)
        cell = min(max(int(t * n), 0), n - 1)
        return t - cell / n, self._rows[cell]

    def __repr__(self) -> str:
        first, last = self.alphas_cumprod[0], self.alphas_cumprod[-1]
        check = zlib.crc32(self.alphas_cumprod.tobytes())
        return (
            f"Tabulated(alphas_cumprod={first:.6g}..{last:.6g}, timesteps={self.timesteps}, "
            f"crc32={check:08x})"
        )


def ddpm_linear(
    timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Tabulated:
    """Betas evenly spaced; Ho et al., "DDPM", 2020, arXiv:2006.11239, section 4."""
    return Tabulated.from_betas(np.linspace(beta_start, beta_end, timesteps))


def ddpm_scaled_linear(
    timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Tabulated:
    """Square roots of beta evenly spaced; Rombach et al. 2022, arXiv:2112.10752."""
    return Tabulated.from_betas(np.linspace(beta_start**0.5, beta_end**0.5, timesteps) ** 2)


def ddpm_squared_cosine(
    timesteps: int = 1000, s: float = 0.008, beta_cap: float = 0.999
) -> Tabulated:
    """alphabar a squared cosine, betas capped; Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17."""
    theta = (np.arange(timesteps + 1) / timesteps + s) / (1 + s) * np.pi / 2
    bars = np.cos(theta) ** 2
    return Tabulated.from_betas(np.minimum(1.0 - bars[1:] / bars[:-1], beta_cap))


class ZeroTerminalSNR(Schedule):
    """A variance-preserving schedule rescaled so that alpha(t_max) = 0 exactly.

    alpha'_t = (alpha_t - alpha_T) / (1 - alpha_T), sigma'_t = sqrt(1 - alpha'_t^2): Lin et al.,
    "Common diffusion noise schedules and sample steps are flawed", 2023, arXiv:2305.08891,
    algorithm 1, except that the clean end kept is alpha(t_min) = 1, not the table's first entry.
    Noise prediction is undefined at t_max then: use v or data prediction.

    Raises:
        ValueError: if the base is not variance-preserving with alpha(t_min) = 1.
    """

    def __init__(self, base: Schedule) -> None:
        for t in (base.t_min, (base.t_min + base.t_max) / 2, base.t_max):
            alpha_t, sigma_t = base(t)
            if abs(float(alpha_t**2 + sigma_t**2) - 1) > 1e-9:
                raise ValueError(
                    f"{base!r} has alpha^2 + sigma^2 = {alpha_t**2 + sigma_t**2:.6g} at "
                    f"t = {t:.4g}: zero-terminal-SNR rescaling needs a variance-preserving schedule"
                )
        if base.sigma(base.t_min) != 0:
            raise ValueError(f"{base!r} starts at sigma = {base.sigma(base.t_min):.6g}, not at 0")
        self.base = base
        self.t_min, self.t_max, self.t_clean = base.t_min, base.t_max, base.t_clean
        self.timesteps = base.timesteps
        self._last = float(base.alpha(base.t_max))

    def alpha(self, t: Scalar) -> Scalar:
        alpha_t = (self.base.alpha(t) - self._last) / (1.0 - self._last)
        rounding = alpha_t.detach() if isinstance(alpha_t, Tensor) else alpha_t
        # exactly 0 at the end, with the slope that it has there
        return alpha_t - where(t >= self.t_max, rounding, constant_like(rounding, 0.0))

    def sigma(self, t: Scalar) -> Scalar:
        alpha_t, sigma_t = self.base(t)
        # 1 - alpha' from 1 - alpha = sigma^2 / (1 + alpha): no cancellation near the clean end
        below_one = sigma_t * sigma_t / ((1.0 + alpha_t) * (1.0 - self._last))
        return sqrt(below_one * (1.0 + self.alpha(t)))

    def derivatives(self, t: Scalar) -> tuple[Scalar, Scalar]:
        alpha_dot = self.base.derivatives(t)[0] / (1.0 - self._last)
        return alpha_dot, ratio(-self.alpha(t) * alpha_dot, self.sigma(t))

    def __repr__(self) -> str:
        return f"ZeroTerminalSNR({self.base!r})"


class Shifted(Schedule):
    """A schedule with its noise-to-signal ratio multiplied: rho'_t = factor rho_t at every t.

    lambda'_t = lambda_t - log(factor). On the flow-matching line it is the timestep shift
    t' = factor t / (1 + (factor - 1) t) of Esser et al., "Scaling rectified flow transformers",
    2024, arXiv:2403.03206, eq. 23; on a variance-preserving schedule, the resolution shift of
    Hoogeboom et al., "Simple diffusion", 2023, arXiv:2301.11093, section 3.1. The family (VP,
    flow, alpha = 1) is kept: (alpha, factor sigma) is scaled back to the base's norm.
    """

    def __init__(self, base: Schedule, factor: float) -> None:
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(f"factor = {factor}: the noise-to-signal multiplier must be positive")
        self.base, self.factor = base, float(factor)
        self.t_min, self.t_max, self.t_clean = base.t_min, base.t_max, base.t_clean
        self.timesteps = base.timesteps

    def _scale(self, alpha_t: Scalar, sigma_t: Scalar) -> Scalar:
        norm = self.base.norm
        return norm(alpha_t, sigma_t) / norm(alpha_t, self.factor * sigma_t)

    def alpha(self, t: Scalar) -> Scalar:
        alpha_t, sigma_t = self.base(t)
        return alpha_t * self._scale(alpha_t, sigma_t)

    def sigma(self, t: Scalar) -> Scalar:
        alpha_t, sigma_t = self.base(t)
        return self.factor * sigma_t * self._scale(alpha_t, sigma_t)

    def half_log_snr(self, t: Scalar) -> Scalar:
        return self.base.half_log_snr(t) - math.log(self.factor)

    def _time_of(self, lambda_: Scalar) -> Scalar:
        return self.base.time_of(lambda_ + math.log(self.factor))

    def norm(self, alpha: Scalar, sigma: Scalar) -> Scalar:
        return self.base.norm(alpha, sigma)

    def __repr__(self) -> str:
        return f"Shifted({self.base!r}, factor={self.factor:g})"
