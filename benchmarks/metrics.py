r"""Distances between two sets of samples, and a set of features to take one of them in.

Sliced Wasserstein-2: project both sets on random directions theta, where the optimal transport of
two sets of one size is the sorted one,

    SW_2^2 = E_theta mean_i (x_(i) . theta - y_(i) . theta)^2.

Rabin et al., "Wasserstein barycenter and its application to texture mixing", 2011.

Energy distance, as a U-statistic (unbiased, so it may be negative):

    2 E|x - y| - E|x - x'| - E|y - y'|.

Szekely & Rizzo, "Energy statistics", 2013.

Frechet distance, between Gaussians of the moments of features:

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^{1/2}).

Heusel et al., "GANs trained by a two time-scale update rule", 2017, arXiv:1706.08500, eq. 6. It
is biased upwards in the number of samples: compare it only between sets of one size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

METRICS = {
    "sliced": "sliced Wasserstein-2",
    "energy": "energy distance",
    "frechet": "Fréchet distance",
}
PROJECTIONS = 256


def directions(dimension: int, count: int = PROJECTIONS, seed: int = 0) -> Tensor:
    """Random unit vectors as columns, (dimension, count), float64."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(dimension, count, generator=generator, dtype=torch.float64)
    return theta / theta.norm(dim=0)


def sliced_wasserstein(x: Tensor, y: Tensor, theta: Tensor | None = None) -> float:
    """Sliced Wasserstein-2 distance of two sets of one size.

    Args:
        x, y: (n, *event).
        theta: unit vectors as columns; default `directions`.

    Raises:
        ValueError: if the sets differ in size.
    """
    a, b = _flat(x), _flat(y)
    if a.shape != b.shape:
        raise ValueError(f"sets of shapes {tuple(x.shape)} and {tuple(y.shape)}: need one shape")
    theta = directions(a.shape[1]) if theta is None else theta
    gap = (a @ theta).sort(0).values - (b @ theta).sort(0).values
    return float(gap.square().mean().sqrt())


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, unbiased; sets of any sizes >= 2."""
    a, b = _flat(x), _flat(y)
    within = sum(float(torch.pdist(s).mean()) for s in (a, b))
    return 2 * float(torch.cdist(a, b).mean()) - within


Moments = tuple[Tensor, Tensor]


def moments(x: Tensor) -> Moments:
    """Mean, (d,), and covariance, (d, d), of a set."""
    a = _flat(x)
    return a.mean(0), torch.cov(a.T).reshape(a.shape[1], -1)


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Squared Frechet distance of the Gaussians with the moments of two sets of features."""
    return frechet_of_moments(moments(x), moments(y))


def frechet_of_moments(x: Moments, y: Moments) -> float:
    """The same, of moments that are known."""
    (m_a, c_a), (m_b, c_b) = x, y
    values, vectors = torch.linalg.eigh(c_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ c_b @ root).clamp(min=0).sqrt().sum()
    return float((m_a - m_b).square().sum() + c_a.trace() + c_b.trace() - 2 * cross)


@dataclass(frozen=True)
class Judge:
    """All distances to one held-out set.

    Attributes:
        held_out: the real set, (n, *event).
        features: images -> features, for the Frechet distance.
    """

    held_out: Tensor
    features: Callable[[Tensor], Tensor]

    def __call__(self, samples: Tensor) -> dict[str, float]:
        """Metric -> distance of as many samples as the real set has, or of fewer to its head."""
        real = self.held_out[: len(samples)]
        return {
            "sliced": sliced_wasserstein(samples, real),
            "energy": energy_distance(samples, real),
            "frechet": frechet_distance(self.features(samples), self.features(real)),
        }


def classifier_features(
    images: Tensor, labels: Tensor, width: int = 64, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """The hidden layer of a classifier trained on images: relu(W x + b), (n, width).

    Raises:
        ImportError: without scikit-learn.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier
    except ImportError as error:
        raise ImportError("features need scikit-learn: pip install 'sde_diffusion[bench]'") from (
            error
        )
    classifier = MLPClassifier((width,), max_iter=40, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(images.flatten(1).numpy().astype(np.float64), labels.numpy())
    weight, bias = torch.tensor(classifier.coefs_[0]), torch.tensor(classifier.intercepts_[0])
    return lambda x: (_flat(x) @ weight + bias).relu()


def _flat(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).to(torch.float64)
