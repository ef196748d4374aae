r"""Gaussian data as a reference: the part of a divergence that is known in closed form.

For x_0 ~ N(mu, C) the denoiser is linear, and with V_t = alpha_t^2 C + sigma_t^2 I,

    dd/dx = J_G = alpha_t C V_t^{-1},    x_T - alpha_T mu = V_T^{1/2} V_t^{-1/2} (x_t - alpha_t mu),
    log |det dx_T/dx_t| = 1/2 sum_j log(V_T,j / V_t,j),

so that along any path a flow stretches volume by that determinant and by what its own Jacobian
differs from J_G. Only the difference is left to integrate, and to estimate by probes: the reference
is a control variate that changes no expectation, whatever C is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..scalar import Scalar


class GaussianReference:
    """The covariance of Gaussian data like those at hand.

    Args:
        covariance: C: one variance for all coordinates, variances of the event's shape (or flat,
            (D,)), or a matrix (D, D); positive semidefinite.

    Raises:
        ValueError: a covariance that is not finite, symmetric or positive semidefinite.
    """

    def __init__(self, covariance: Tensor | Sequence[float] | float = 1.0) -> None:
        c = torch.as_tensor(covariance, dtype=torch.float64).detach().cpu()
        self._basis: Tensor | None = None
        if not bool(torch.isfinite(c).all()):
            raise ValueError("the reference covariance has entries that are not finite")
        if c.ndim == 2 and len(c) == c.shape[1]:
            if float((c - c.T).abs().max()) > 1e-6 * float(c.abs().max()):
                raise ValueError("the reference covariance is not symmetric; give (C + C.T) / 2")
            c, self._basis = torch.linalg.eigh((c + c.T) / 2)
            c = torch.where(c.abs() <= 1e-12 * c.abs().max(), 0.0, c)
        if bool((c < 0).any()):
            raise ValueError(
                f"the reference has a variance of {float(c.min()):.6g}; a covariance is positive "
                "semidefinite: give variances, not logarithms"
            )
        self._variances = c.reshape(-1)

    @classmethod
    def of(cls, data: Tensor, shrink: float = 0.01) -> GaussianReference:
        """The covariance of a data set, (n, *event), drawn towards its average variance.

        Args:
            data: samples of x_0, as many as there are; not the samples whose likelihood is sought.
            shrink: share in [0, 1] of the average variance in C.
        """
        if data.ndim < 2 or len(data) < 2:
            raise ValueError(
                f"data of shape {tuple(data.shape)}: a covariance needs (n, *event), n >= 2"
            )
        if not 0 <= shrink <= 1:
            raise ValueError(f"shrink = {shrink} must lie in [0, 1]")
        flat = data.detach().reshape(len(data), -1).double()
        centred = flat - flat.mean(0)
        c = centred.T @ centred / (len(flat) - 1)
        eye = torch.eye(len(c), dtype=c.dtype, device=c.device)
        return cls((1 - shrink) * c + shrink * c.diagonal().mean() * eye)

    def check(self, dimension: int) -> None:
        """Raise ValueError unless the covariance is one of so many coordinates."""
        if len(self._variances) not in (1, dimension):
            raise ValueError(
                f"the reference has {len(self._variances)} variances and a sample {dimension} "
                "numbers: give one variance, one for each, or a (D, D) covariance"
            )

    def gain(self, alpha: Scalar, sigma: Scalar, like: Tensor) -> Tensor:
        """Eigenvalues of J_G, (1 or D,), or (batch, 1 or D) for one alpha and sigma a sample."""
        alpha, sigma = (torch.as_tensor(v, dtype=torch.float64)[..., None] for v in (alpha, sigma))
        c = self._variances.to(alpha.device)
        return (alpha * c / (alpha**2 * c + sigma**2)).to(like)

    def trace(self, gain: Tensor, dimension: int) -> Tensor:
        """tr J_G, () or (batch,)."""
        return gain.sum(-1) * (dimension if len(self._variances) == 1 else 1)

    def product(self, gain: Tensor, vectors: Tensor) -> Tensor:
        """J_G v of vectors (k, batch, D)."""
        if self._basis is None:
            return gain * vectors
        basis = self._basis.to(vectors)
        return (gain * (vectors @ basis)) @ basis.T

    def log_stretch(
        self, clean: tuple[float, float], noisy: tuple[float, float], dimension: int
    ) -> float:
        """log |det dx_T/dx_t| from the (alpha, sigma) of one time to those of another."""
        low, high = (a**2 * self._variances + s**2 for a, s in (clean, noisy))
        each = 0.5 * (high.log() - low.log()).sum()
        return float(each) * (dimension if len(self._variances) == 1 else 1)

    def __repr__(self) -> str:
        size = math.sqrt(float(self._variances.mean()))
        kind = "matrix" if self._basis is not None else f"{len(self._variances)} variances"
        return f"GaussianReference({kind}, standard deviation {size:.3g})"
