r"""How far samples are from an exact posterior p(x_0 | y).

sliced: sliced Wasserstein-2 distance to as many exact samples (`benchmarks.metrics`). Its floor is
the distance of exact samples to exact samples.

kl: of the moments, in nats a dimension. Along the principal axes j of the exact covariance, with
exact variances c_j and means mu_j, and those of the samples v_j, m_j,

    KL = 1/(2 D) sum_j [v_j / c_j + (m_j - mu_j)^2 / c_j - 1 - log(v_j / c_j)],

the divergence KL(samples || exact) of the Gaussians that are independent along these axes. Full
covariances of fewer samples than dimensions would be singular; along fixed axes nothing has to be
regularised. n exact samples have about 1/n.

inside: coverage of the credible set of highest density, {x: log p(x | y) >= q}, with q such that it
holds 90 % of the posterior. The share of the samples inside is 0.9 if they are exact, more if they
crowd at the modes, less if they miss the measurement or the prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sde_diffusion.problems import GaussianMixture

from ..metrics import sliced_wasserstein

CREDIBLE = 0.9
NAMES = {
    "sliced": "sliced Wasserstein-2 to the exact posterior",
    "kl": "KL of the moments, nats a dimension",
    "inside": "share inside the 90 % credible set",
}


@dataclass(frozen=True)
class Posterior:
    """An exact posterior, with what distances to it need.

    Attributes:
        law: p(x_0 | y).
        mean, axes, variances: mu, (D,); principal axes as columns, (D, D); c along them, (D,).
        threshold: q.
    """

    law: GaussianMixture
    mean: Tensor
    axes: Tensor
    variances: Tensor
    threshold: float

    @classmethod
    def of(cls, law: GaussianMixture, draws: int = 4000, seed: int = 12345) -> Posterior:
        """With q from so many exact samples; its coverage has standard error 0.3 / sqrt(draws)."""
        variances, axes = torch.linalg.eigh(law.data_covariance())
        density = law.log_prob(law.sample(draws, torch.Generator().manual_seed(seed)), 1.0, 0.0)
        threshold = float(density.quantile(1 - CREDIBLE))
        return cls(law, law.mean, axes, variances, threshold)

    def kl(self, x: Tensor) -> float:
        """Of the moments of samples x, (n, D), n > 1."""
        z = (x.double() - self.mean) @ self.axes
        shift, spread = z.mean(0).square() / self.variances, z.var(0) / self.variances
        return float((spread + shift - 1 - spread.log()).mean() / 2)

    def inside(self, x: Tensor) -> float:
        """Share of the samples in the credible set."""
        density = self.law.log_prob(x.double(), 1.0, 0.0)
        return float((density >= self.threshold).double().mean())

    def distances(self, x: Tensor, exact: Tensor) -> dict[str, float]:
        """All three, of as many samples as there are exact ones."""
        figures = sliced_wasserstein(x, exact), self.kl(x), self.inside(x)
        return dict(zip(NAMES, figures, strict=True))
