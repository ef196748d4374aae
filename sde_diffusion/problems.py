r"""Test problems: data distributions with closed-form score, law and trajectories.

Every problem here is a mixture of Gaussians, x_0 ~ sum_k w_k N(mu_k, C_k), because noising keeps
it one: x = alpha x_0 + sigma eps has the law sum_k w_k N(alpha mu_k, S_k) with
S_k = alpha^2 C_k + sigma^2 I. With the posterior weights r_k(x) of the components,

    E[x_0 | x]   = sum_k r_k m_k,   m_k = mu_k + alpha C_k S_k^{-1} (x - alpha mu_k)
    grad log p   = -sum_k r_k S_k^{-1} (x - alpha mu_k)
    E[eps | x]   = -sigma grad log p                                       (Tweedie's formula)
    Cov[x_0 | x] = sum_k r_k (sigma^2 C_k S_k^{-1} + (m_k - m)(m_k - m)^T),  m = E[x_0 | x]

each stated so that nothing is divided by alpha or by sigma: both ends are exact, sigma = 0 (where
the data has a density) and alpha = 0. On Gaussian data the probability-flow trajectories are in
closed form too: V_t^{-1/2} (x_t - alpha_t mu) is constant, V_t = alpha_t^2 C + sigma_t^2 I.

Efron, "Tweedie's formula and selection bias", 2011. A finite data set, each point smoothed alike,
is the mixture of `data_set`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .data_set import DataSet
from .normal import (
    Values,
    check_variances,
    condition,
    estimate,
    gains,
    log_normal,
    real,
    spectrum,
)
from .problem import Flat, Problem

_KEPT = 1 << 20  # numbers of a mixture's components at all times of a run that are kept


class Gaussian(Problem):
    """Gaussian data N(mu, C).

    Args:
        mean: mu, (D,).
        covariance: C, (D, D), or the variances (D,), or one variance (); positive semidefinite.

    Raises:
        ValueError: if shapes disagree, or C is not finite, symmetric, positive semidefinite.
        TypeError: if a tensor of integers is given.
    """

    def __init__(self, mean: Values, covariance: Values) -> None:
        self.mean, covariance = real("mean", mean), real("covariance", covariance)
        dim = len(self.mean) if self.mean.ndim == 1 else 0
        if dim == 0 or tuple(covariance.shape) not in ((), (dim,), (dim, dim)):
            raise ValueError(
                f"mean {tuple(self.mean.shape)} and covariance {tuple(covariance.shape)} do not "
                "agree; give mean (D,) and covariance (D, D), (D,) or one number"
            )
        if covariance.ndim < 2:
            covariance = torch.diag(covariance.expand(dim))
        self.event_shape = (dim,)
        self._variances, self._basis = spectrum(covariance)
        self.smooth = bool((self._variances > 0).all())

    def _combine(self, x: Tensor, alpha: Tensor, sigma: Tensor, a: Tensor, b: Tensor) -> Tensor:
        mean, basis, c = (v.to(x) for v in (self.mean, self._basis, self._variances))
        z = (x - alpha * mean) @ basis
        return a * mean + ((a * alpha * c - b) * z / (alpha**2 * c + sigma**2)) @ basis.T

    def _denoisers(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> list[Flat]:
        mean, basis = self.mean.flatten().to(x), self._basis.to(x)
        known = zip(alpha.to(x) * mean, gains(self._variances, alpha, sigma).to(x), strict=True)
        at = lambda centre, gain: lambda x: estimate(x, mean, centre, gain, basis)
        return [at(*values) for values in known]

    def _log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        mean, basis, c = (v.to(x) for v in (self.mean, self._basis, self._variances))
        return log_normal((x - alpha * mean) @ basis, alpha**2 * c + sigma**2)

    def _covariance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        basis, c = self._basis.to(x), self._variances.to(x)
        shrunk = (c * sigma**2 / (alpha**2 * c + sigma**2)).expand(x.shape)
        return (basis * shrunk[:, None, :]) @ basis.T

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        z = torch.randn(
            n, len(self.mean), generator=generator, dtype=self.mean.dtype, device=self.mean.device
        )
        return self.mean + (z * self._variances.sqrt()) @ self._basis.T

    def data_covariance(self) -> Tensor:
        return (self._basis * self._variances) @ self._basis.T

    def _move(
        self,
        x: Tensor,
        start: tuple[float, float],
        end: tuple[float, float],
        rtol: float,
        atol: float,
    ) -> Tensor:
        """x_s = alpha_s mu + V_s^{1/2} V_t^{-1/2} (x_t - alpha_t mu): exact, no integration."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = start, end
        self._check_density(sigma_t == 0)
        mean, basis, c = (v.to(x) for v in (self.mean, self._basis, self._variances))
        stretch = ((alpha_s**2 * c + sigma_s**2) / (alpha_t**2 * c + sigma_t**2)).sqrt()
        return alpha_s * mean + (((x - alpha_t * mean) @ basis) * stretch) @ basis.T


class GaussianMixture(Problem):
    """A mixture of Gaussians, x_0 ~ sum_k w_k N(mu_k, C_k).

    Args:
        weights: w, (K,), non-negative, of sum 1.
        means: mu, (K, D).
        covariances: C, (K, D, D) full, (K, D) diagonal or (K,) isotropic; positive semidefinite.

    Raises:
        ValueError: if shapes disagree, weights are negative or do not sum to 1 (within 1e-6), or
            a covariance is not finite, symmetric, positive semidefinite.
        TypeError: if a tensor of integers is given.

    Attributes:
        weights: of the components, (K,), float64, those of weight 0 left out.
    """

    def __init__(self, weights: Values, means: Values, covariances: Values) -> None:
        w, means = real("weights", weights), real("means", means)
        covariances = real("covariances", covariances)
        k, dim = means.shape if means.ndim == 2 else (0, 0)
        shapes = ((k, dim, dim), (k, dim), (k,))
        if k * dim == 0 or tuple(w.shape) != (k,) or tuple(covariances.shape) not in shapes:
            raise ValueError(
                f"weights {tuple(w.shape)}, means {tuple(means.shape)} and covariances "
                f"{tuple(covariances.shape)} do not agree; give (K,), (K, D) and one of "
                "(K, D, D), (K, D), (K,)"
            )
        if bool((w < 0).any()) or abs(float(w.sum()) - 1) > 1e-6:
            raise ValueError(
                f"weights have minimum {float(w.min()):.6g} and sum {float(w.sum()):.9g}; they "
                "must be non-negative and sum to 1: write weights / weights.sum()"
            )
        kept = w > 0  # components of weight 0 are no part of the law
        w, means, covariances = w[kept] / w.sum(), means[kept], covariances[kept]
        self._covariances = covariances
        self._basis: Tensor | None = None
        if covariances.ndim == 3:
            self._variances, self._basis = spectrum(covariances)
        else:
            self._variances = covariances.reshape(len(w), -1).expand(len(w), dim)
            check_variances(self._variances)
        self.event_shape = (dim,)
        self.smooth = bool((self._variances > 0).all())
        self.weights, self._means, self._log_weights = w, means, w.log()[:, None]
        self.mean = self.weights @ means
        # mu_k in the eigenbasis of C_k, where the work is done.
        self._turned = means
        if self._basis is not None:
            self._turned = torch.einsum("kd,kde->ke", means, self._basis)

    def shaped(self, *event_shape: int) -> GaussianMixture:
        """The same law, its D numbers arranged in another shape, such as (1, 8, 8) for 64."""
        if any(n < 1 for n in event_shape) or math.prod(event_shape) != self._means.shape[1]:
            raise ValueError(
                f"shape {event_shape} holds {math.prod(event_shape)} numbers, but a sample has "
                f"D = {self._means.shape[1]}"
            )
        other = copy.copy(self)
        other.event_shape, other.mean = event_shape, self.mean.reshape(event_shape)
        return other

    def given(self, components: Sequence[int] | Tensor) -> GaussianMixture:
        """The law of some components: sum_{k in components} w_k N(mu_k, C_k), divided by its mass.

        Args:
            components: their numbers, 0..K-1 in the order of `weights`, each once.
        """
        chosen = torch.as_tensor(components).flatten()
        count = len(self.weights)
        if chosen.dtype in (torch.bool, torch.float32, torch.float64) or len(chosen) == 0:
            raise ValueError(f"components = {components} must be numbers, 0 to {count - 1}")
        if bool(((chosen < 0) | (chosen >= count)).any()) or len(chosen.unique()) < len(chosen):
            raise ValueError(
                f"components = {chosen.tolist()} must be different numbers, 0 to {count - 1}"
            )
        w = self.weights[chosen]
        return self._like(w / w.sum(), self._means[chosen], self._covariances[chosen])

    def posterior(self, matrix: Values, y: Values, noise: float) -> GaussianMixture:
        """The law of x_0 given y = A x_0 + sigma_y n, n ~ N(0, I): a mixture again.

        Each component is conditioned by its own gain, and weighed by its own evidence:

            w_k p_k(y) / p(y),   N(mu_k + K_k (y - A mu_k), C_k - K_k A C_k).

        No component is dropped, so that they keep their numbers.

        Args:
            matrix: A, (M, D), of the flattened data.
            y: one measurement, M numbers in any shape.
            noise: sigma_y >= 0; 0 where A C_k A^T is regular (then it has no density).

        Raises:
            ValueError: if shapes disagree, a value is not finite, noise is negative, or noise is
                0 and A C_k A^T singular.
        """
        log_evidence, means, covariances = self._given(matrix, y, noise)
        w = (self.weights.log() + log_evidence).softmax(0).clamp_min(1e-300)
        return self._like(w, means, covariances)

    def evidence(self, matrix: Values, y: Values, noise: float) -> float:
        """log p(y) = log sum_k w_k N(y; A mu_k, A C_k A^T + sigma_y^2 I); as for `posterior`."""
        log_evidence, _, _ = self._given(matrix, y, noise)
        return float((self.weights.log() + log_evidence).logsumexp(0))

    def _given(self, matrix: Values, y: Values, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        factors = torch.diag_embed(self._variances.sqrt())
        if self._basis is not None:
            factors = self._basis @ factors
        return condition(self._means, factors, matrix, y, noise)

    def _like(self, w: Tensor, means: Tensor, covariances: Tensor) -> GaussianMixture:
        return GaussianMixture(w, means, covariances).shaped(*self.event_shape)

    def _components(
        self, x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log w_k N(x; alpha mu_k, S_k), (K, batch), and z, C, S in the eigenbases of the C_k.

        Components come first: sums over the few of them then run along the many samples.
        """
        turned, c = self._turned.to(x)[:, None], self._variances.to(x)[:, None]
        z = self._turn(x) - alpha * turned
        s = alpha**2 * c + sigma**2
        return self._log_weights.to(x) + log_normal(z, s), z, c, s

    def _turn(self, x: Tensor) -> Tensor:
        """To the eigenbases of the C_k, (batch, D) to (K, batch, D); x where they are its own."""
        return x if self._basis is None else x @ self._basis.to(x)

    def _turn_back(self, z: Tensor) -> Tensor:
        """From the eigenbases of the C_k to the coordinates of x, (K, batch, D) to the same."""
        return z if self._basis is None else z @ self._basis.to(z).mT

    def _combine(self, x: Tensor, alpha: Tensor, sigma: Tensor, a: Tensor, b: Tensor) -> Tensor:
        log_joint, z, c, s = self._components(x, alpha, sigma)
        r = log_joint.softmax(0)
        pull = self._turn_back(r[..., None] * z * ((a * alpha * c - b) / s)).sum(0)
        return a * (r.T @ self._means.to(x)) + pull

    def _denoisers(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> list[Flat]:
        if len(alpha) * self._means.numel() > _KEPT:
            return super()._denoisers(x, alpha, sigma)
        alpha, sigma = alpha[:, None, None], sigma[:, None, None]  # (times, 1, 1, 1)
        c = self._variances[:, None]
        s = alpha**2 * c + sigma**2
        offset = self._log_weights - s.log().sum(-1) / 2
        known = (alpha * self._turned[:, None], -0.5 / s, alpha * c / s, offset)
        means = self._means.to(x)[:, None]

        def at(centre: Tensor, half: Tensor, gain: Tensor, offset: Tensor) -> Flat:
            def denoised(x: Tensor) -> Tensor:
                z = self._turn(x) - centre
                r = ((z * z * half).sum(-1) + offset).softmax(0)[..., None]
                return (r * (means + self._turn_back(z * gain))).sum(0)

            return denoised

        return [at(*values) for values in zip(*(v.to(x) for v in known), strict=True)]

    def _log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._components(x, alpha, sigma)[0].logsumexp(0)

    def _covariance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        log_joint, z, c, s = self._components(x, alpha, sigma)
        r = log_joint.softmax(0)[..., None]
        m = self._means.to(x)[:, None] + self._turn_back(alpha * c * z / s)
        m = (m - (r * m).sum(0)).transpose(0, 1)
        between = (r.transpose(0, 1) * m).mT @ m
        within = r * sigma**2 * c / s
        if self._basis is None:
            return between + torch.diag_embed(within.sum(0))
        for basis, part in zip(self._basis.to(x), within, strict=True):
            between = between + (basis * part[:, None, :]) @ basis.T
        return between

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(
            n, self._means.shape[1], generator=generator, dtype=self.mean.dtype, device=which.device
        )
        z = z * self._variances.sqrt()[which]
        if self._basis is not None:
            for k, basis in enumerate(self._basis):
                z[which == k] = z[which == k] @ basis.T
        return self._means[which] + z

    def data_covariance(self) -> Tensor:
        basis = (
            torch.eye(self._means.shape[1]).to(self.mean) if self._basis is None else self._basis
        )
        within = (basis * self._variances[:, None, :]) @ basis.mT
        centred = self._means - self.mean.flatten()
        return torch.einsum("k,kde->de", self.weights, within) + (
            (self.weights[:, None] * centred).T @ centred
        )


def two_gaussians() -> GaussianMixture:
    """Two unequal modes on the line: 0.3 N(-1, 0.3^2) + 0.7 N(0.9, 0.2^2)."""
    return GaussianMixture([0.3, 0.7], [[-1.0], [0.9]], [0.09, 0.04])


def ring(
    modes: int = 8, dimension: int = 2, radius: float = 1.4, std: float = 0.15
) -> GaussianMixture:
    """Equal modes evenly spaced on a circle of the first two coordinates, variance near 1.

    Args:
        modes: number of modes.
        dimension: D >= 2; coordinates after the second are N(0, std^2).
        radius: of the circle.
        std: of each mode.
    """
    if modes < 1 or dimension < 2:
        raise ValueError(f"modes = {modes}, dimension = {dimension}: need at least 1 and 2")
    angles = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    means = torch.zeros(modes, dimension, dtype=torch.float64)
    means[:, 0], means[:, 1] = radius * angles.cos(), radius * angles.sin()
    return GaussianMixture([1 / modes] * modes, means, [std**2] * modes)


def spectrum_mixture(components: int = 32, dimension: int = 64, seed: int = 0) -> GaussianMixture:
    """Random equal components with 1/f spectra in random bases, average variance 1 per coordinate.

    Eigenvalues c_j are proportional to 1/j, j = 1..D; a component is N(mu_k, U_k diag(c/2) U_k^T)
    with U_k a random rotation and mu_k ~ N(0, diag(c/2)), then all is scaled to trace D.
    """
    if components < 1 or dimension < 1:
        raise ValueError(f"components = {components}, dimension = {dimension}: both must be >= 1")
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    half = 0.5 / torch.arange(1, dimension + 1, dtype=torch.float64)
    means = normal(components, dimension) * half.sqrt()
    basis = torch.linalg.qr(normal(components, dimension, dimension)).Q
    scale = dimension / (half.sum() + (means - means.mean(0)).square().sum() / components)
    covariances = scale * (basis * half) @ basis.mT
    return GaussianMixture([1 / components] * components, scale.sqrt() * means, covariances)


__all__ = [
    "DataSet",
    "Gaussian",
    "GaussianMixture",
    "ring",
    "spectrum_mixture",
    "two_gaussians",
]
