r"""A finite data set as a test problem: the ideal denoiser of N points.

With v = alpha^2 h^2 + sigma^2 and P = sum_k r_k p_k, r = softmax(-|x - alpha p_k|^2 / 2v),

    E[x_0 | x] = (sigma^2 P + alpha h^2 x) / v,    grad log p = (alpha P - x) / v:

the mixture of `problems` with means p_k and covariances h^2 I. Distances come from one matrix
product; no (batch, N, D) tensor is made.

Karras et al., "Elucidating the design space of diffusion-based generative models", 2022,
arXiv:2206.00364, appendix B.3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .normal import Values, real
from .problem import Problem


class DataSet(Problem):
    """N data points p_k of equal weight, each smoothed by N(0, h^2 I): the ideal denoiser.

        E[x_0 | x] = (sigma^2 P + alpha h^2 x) / v,    v = alpha^2 h^2 + sigma^2,

    with P the mean of the points weighted by softmax(-|x - alpha p_k|^2 / 2v).

    Karras et al. (2022), arXiv:2206.00364, eq. 57 (h = 0).

    Args:
        points: p, (N, *event_shape).
        smoothing: h >= 0; with 0 the data has no density, and sigma must stay positive.

    Raises:
        ValueError: if there are no points, or a point or h is not finite, or h < 0.
        TypeError: if points is a tensor of integers.
    """

    def __init__(self, points: Values, smoothing: float = 0.0) -> None:
        points = real("points", points)
        if points.ndim == 0 or points.numel() == 0:
            raise ValueError(
                f"points has shape {tuple(points.shape)}, which holds no data; give "
                "(N, *event_shape)"
            )
        if not 0 <= smoothing < math.inf:
            raise ValueError(f"smoothing = {smoothing} must be a number h with 0 <= h < inf")
        self.event_shape = tuple(points.shape[1:])
        self.mean, self.smoothing = points.mean(0), float(smoothing)
        self.smooth = self.smoothing > 0
        # Relative to the mean, where the matrix product cancels least.
        self._points = (points - self.mean).reshape(len(points), -1)
        self._squares = self._points.square().sum(1)

    def _centre(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x - alpha mean, v, and (alpha x.p_k - alpha^2 |p_k|^2 / 2) / v, (batch, N)."""
        x = x - alpha * self.mean.to(x).reshape(-1)
        v = alpha**2 * self.smoothing**2 + sigma**2
        logits = (alpha / v * x) @ self._points.to(x).T - alpha**2 / (2 * v) * self._squares.to(x)
        return x, v, logits

    def _combine(self, x: Tensor, alpha: Tensor, sigma: Tensor, a: Tensor, b: Tensor) -> Tensor:
        x, v, logits = self._centre(x, alpha, sigma)
        p = logits.softmax(1) @ self._points.to(x)
        denoised = self.mean.to(x).reshape(-1) + (sigma**2 * p + alpha * self.smoothing**2 * x) / v
        return a * denoised + b * (alpha * p - x) / v

    def _log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        x, v, logits = self._centre(x, alpha, sigma)
        n, dim = self._points.shape
        logits = logits - x.square().sum(1, keepdim=True) / (2 * v)
        # The nearest distance again, by subtraction: the matrix product loses |x|^2 / v digits.
        best, nearest = logits.detach().max(1)
        residual = x.detach() - alpha.detach() * self._points.to(x)[nearest]
        repair = -residual.square().sum(1) / (2 * v.detach()[:, 0]) - best
        constant = math.log(n) + dim / 2 * (2 * math.pi * v[:, 0]).log()
        return logits.logsumexp(1) + repair - constant

    def _covariance(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        x, v, logits = self._centre(x, alpha, sigma)
        points, shrink = self._points.to(x), (sigma**2 / v)[..., None]
        spread = []
        for r in logits.softmax(1)[..., None]:
            centred = points - (r * points).sum(0)
            spread.append((r * centred).T @ centred)
        within = self.smoothing**2 * torch.eye(points.shape[1]).to(x)
        return shrink * within + shrink**2 * torch.stack(spread)

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        points = self._points + self.mean.reshape(-1)
        which = torch.randint(len(points), (n,), generator=generator, device=points.device)
        x = points[which]
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return x + self.smoothing * z

    def data_covariance(self) -> Tensor:
        within = self.smoothing**2 * torch.eye(self._points.shape[1]).to(self._points)
        return self._points.T @ self._points / len(self._points) + within
