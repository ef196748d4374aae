"""Normal laws N(mu, C): spectra, densities, and what is left of them after a linear measurement.

For x_0 ~ N(mu, C) and y = A x_0 + sigma_y n, n ~ N(0, I), with S = A C A^T + sigma_y^2 I,

    y ~ N(A mu, S),    x_0 | y ~ N(mu + K (y - A mu), C - K A C),    K = C A^T S^{-1}.

With C = B B^T and A B = U diag(s) V^T, all of it is one factor of known sign,

    C - K A C = B V diag(sigma_y^2 / (s^2 + sigma_y^2)) V^T B^T,

and sigma_y = 0 is allowed where A C A^T is regular.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .scalar import Scalar

Values = Tensor | np.ndarray | Sequence[Any] | float


def real(name: str, value: Values) -> Tensor:
    """The value as a float64 tensor, finite."""
    if isinstance(value, Tensor) and not value.is_floating_point():
        raise TypeError(f"{name} has dtype {value.dtype}; give real numbers: {name}.double()")
    try:
        if not isinstance(value, Tensor) and np.iscomplexobj(value):
            raise TypeError("complex")
        tensor = torch.as_tensor(value, dtype=torch.float64).detach()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} = {value!r} is no tensor, array or list of real numbers ({error})"
        ) from None
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} has entries that are not finite; remove or replace them")
    return tensor


def check_variances(variances: Tensor) -> None:
    if bool((variances < 0).any()):
        raise ValueError(
            f"a variance (an eigenvalue of a covariance) is {float(variances.min()):.6g}; a "
            "covariance must be positive semidefinite: give variances, not logarithms or precisions"
        )


def spectrum(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., D) and eigenvectors (..., D, D) of a covariance, rounding removed."""
    size = covariance.abs().amax((-2, -1), keepdim=True)
    if bool(((covariance - covariance.mT).abs() > 1e-6 * size).any()):
        raise ValueError("a covariance is not symmetric; give (C + C.mT) / 2")
    variances, basis = torch.linalg.eigh((covariance + covariance.mT) / 2)
    # What eigh cannot tell from 0 is 0: the data then has no density.
    rounding = 1e-15 * covariance.shape[-1] * size[..., 0]
    variances = torch.where(variances.abs() <= rounding, 0.0, variances)
    check_variances(variances)
    return variances, basis


def log_normal(z: Tensor, variances: Tensor) -> Tensor:
    """log N(z; 0, diag(variances)), summed over the last dimension."""
    return -0.5 * ((z**2 / variances).sum(-1) + (2 * math.pi * variances).log().sum(-1))


def gains(variances: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
    """alpha v/(alpha^2 v + sigma^2): how far x_0 ~ N(m, v) is told by x = alpha x_0 + sigma eps."""
    return alpha * variances / (alpha**2 * variances + sigma**2)


def estimate(x: Tensor, mean: Tensor, centre: Tensor, gain: Tensor, basis: Tensor) -> Tensor:
    """E[x_0 | x] = m + basis gain basis^T (x - alpha m), of states (batch, D).

    Args:
        x: states.
        mean, centre: m and alpha m.
        gain: `gains` of the variances along the basis, (D,) or (batch, D).
        basis: (D, D), columns.
    """
    return mean + ((x - centre) @ basis * gain) @ basis.T


def condition(
    means: Tensor, factors: Tensor, matrix: Values, y: Values, noise: float
) -> tuple[Tensor, Tensor, Tensor]:
    """log p(y), (K,), and the means (K, D) and covariances (K, D, D) of K normal laws given y.

    Args:
        means: mu, (K, D).
        factors: B with C = B B^T, (K, D, D).
        matrix: A, (M, D).
        y: M numbers, in any shape.
        noise: sigma_y >= 0.
    """
    a, y, noise = _measured(means, matrix, y, noise)
    u, s, vt = torch.linalg.svd(a @ factors)  # full: V has D columns, U has M
    variances = torch.zeros(*s.shape[:1], len(y)).to(s)
    variances[:, : s.shape[1]] = s**2
    variances += noise**2
    if noise == 0:
        most = torch.linalg.matrix_norm(a, 2) * torch.linalg.matrix_norm(factors, 2)
        if len(y) > means.shape[1] or bool((s.amin(1) <= 1e-14 * len(y) * most).any()):
            raise ValueError(
                "noise = 0, but A C A^T is singular: some combination of the measured numbers is "
                "known beforehand, so that no density of y exists; give noise > 0, or remove rows "
                "of the matrix that follow from the others"
            )
    surprise = torch.einsum("kmn,km->kn", u, y - means @ a.T)
    rank = s.shape[1]
    gain = s / variances[:, :rank]
    turned = factors @ vt.mT
    shift = torch.einsum("kdr,kr->kd", turned[..., :rank], gain * surprise[:, :rank])
    shrink = torch.ones(len(means), means.shape[1]).to(s)
    shrink[:, :rank] = noise / variances[:, :rank].sqrt()
    left = turned * shrink[:, None]
    return log_normal(surprise, variances), means + shift, left @ left.mT


def _measured(
    means: Tensor, matrix: Values, y: Values, noise: float
) -> tuple[Tensor, Tensor, float]:
    a, y, noise = real("matrix", matrix).to(means), real("y", y).to(means).flatten(), float(noise)
    if a.ndim != 2 or a.shape[1] != means.shape[1] or len(a) == 0:
        raise ValueError(
            f"matrix has shape {tuple(a.shape)}, but the data have D = {means.shape[1]} numbers; "
            f"give A of shape (M, {means.shape[1]})"
        )
    if len(y) != len(a):
        raise ValueError(
            f"y has {len(y)} numbers, but the matrix measures {len(a)}; give one y of as many"
        )
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise = {noise} must be a standard deviation, 0 <= sigma_y < inf")
    return a, y, noise
