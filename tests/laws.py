"""Problems of every kind, and their laws written out, for tests against closed forms."""

import math

import torch
from scipy.special import ndtr

from sde_diffusion.problem import Problem
from sde_diffusion.problems import (
    DataSet,
    Gaussian,
    GaussianMixture,
    ring,
    spectrum_mixture,
    two_gaussians,
)
from sde_diffusion.schedules import EDM, VE, FlowMatching, SubVP, VPCosine, VPLinear


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def double(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def eye(dim: int) -> torch.Tensor:
    return torch.eye(dim, dtype=torch.float64)


def covariances(*shape: int, seed: int) -> torch.Tensor:
    root = normal(*shape, shape[-1], seed=seed)
    return 0.3 * root @ root.mT + 0.05 * eye(shape[-1])


def close(a, b, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def marginal(problem: Problem, n: int, alpha: float, sigma: float, seed: int) -> torch.Tensor:
    return problem.sample_marginal(n, alpha, sigma, torch.Generator().manual_seed(seed))


def line_cdf(x, alpha: float, sigma: float):
    parts = ((0.3, -1.0, 0.09), (0.7, 0.9, 0.04))
    return sum(w * ndtr((x - alpha * m) / math.sqrt(alpha**2 * c + sigma**2)) for w, m, c in parts)


SCHEDULES = [VPLinear(), VPCosine(), SubVP(), VE(), EDM(), FlowMatching()]
PROBLEMS: dict[str, Problem] = {
    "gaussian": Gaussian(normal(3, seed=1), covariances(3, seed=2)),
    "gaussian-variances": Gaussian([1.0, -2.0], [0.5, 0.1]),
    "gaussian-number": Gaussian([1.0, -2.0], 0.3),
    "full": GaussianMixture([0.2, 0.5, 0.3], normal(3, 3, seed=3), covariances(3, 3, seed=4)),
    "diagonal": GaussianMixture([0.4, 0.6], [[0.0, 1.0], [-1.0, 0.5]], [[0.3, 0.1], [0.2, 0.6]]),
    "line": two_gaussians(),
    "ring": ring(),
    "spectrum": spectrum_mixture(components=4, dimension=5),
    "data": DataSet(normal(9, 2, 2, seed=5), smoothing=0.3),
    "points": DataSet(normal(9, 2, seed=6) + 3),
}

# Weights, means and full covariances of the problems above, written out.
LAWS = {
    "gaussian": (double([1.0]), normal(1, 3, seed=1), covariances(3, seed=2)[None]),
    "gaussian-variances": (double([1.0]), double([[1.0, -2.0]]), double([[[0.5, 0], [0, 0.1]]])),
    "gaussian-number": (double([1.0]), double([[1.0, -2.0]]), 0.3 * eye(2)[None]),
    "full": (double([0.2, 0.5, 0.3]), normal(3, 3, seed=3), covariances(3, 3, seed=4)),
    "diagonal": (
        double([0.4, 0.6]),
        double([[0.0, 1.0], [-1.0, 0.5]]),
        double([[[0.3, 0.0], [0.0, 0.1]], [[0.2, 0.0], [0.0, 0.6]]]),
    ),
    "line": (double([0.3, 0.7]), double([[-1.0], [0.9]]), double([[[0.09]], [[0.04]]])),
    "data": (double([1 / 9] * 9), normal(9, 4, seed=5), 0.09 * eye(4).expand(9, 4, 4)),
    "points": (double([1 / 9] * 9), normal(9, 2, seed=6) + 3, 0 * eye(2).expand(9, 2, 2)),
}
