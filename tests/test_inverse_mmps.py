"""MMPS with more iterations than there is to solve: singular systems, and single precision."""

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion import inverse

F64 = torch.float64
VARIANCES = torch.tensor([1.0, 0.7, 0.3], dtype=F64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def _problem(matrix, noise):
    prior = sd.problems.GaussianMixture([1.0], torch.zeros(1, 3), torch.diag(VARIANCES)[None])
    x = torch.tensor([1.0, 0.0, 0.5], dtype=F64)
    measurement = inverse.Measurement.simulate(inverse.Matrix(matrix), x, noise, seed=0)
    return prior.denoiser(sd.VPLinear()), measurement


def _exact(matrix, measurement, x, t):
    """d + V A^T (A V A^T + sigma_y^2 I)^+ (y - A d), V = (1/v + alpha^2/sigma^2)^{-1}."""
    alpha, sigma = sd.VPLinear()(t)
    v = 1 / (1 / VARIANCES + (alpha / sigma) ** 2)
    d = alpha / sigma**2 * v * x
    inner = (matrix * v) @ matrix.T + measurement.noise**2 * torch.eye(len(matrix), dtype=F64)
    gain = (v[:, None] * matrix.T) @ torch.linalg.pinv(inner, rtol=1e-10, hermitian=True)
    return d + (measurement.y.double() - d @ matrix.T) @ gain.T


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.2])
@pytest.mark.parametrize("rank", [1, 2])
def test_iterations_beyond_the_rank_change_nothing(rank, noise, dtype):
    """Directions that A does not see have a curvature of rounding alone, and no step is taken."""
    matrix = normal(4, rank) @ normal(rank, 3, seed=1)
    denoiser, measurement = _problem(matrix, noise)
    x = normal(64, 3, seed=2)
    # The network's J is of single precision, and 1/sigma_y^2 is 10^6.
    slack = 1e-8 if dtype is F64 else 0.02 if noise == 1e-3 else 1e-4
    for t in (0.05, 0.3, 0.8):
        exact = _exact(matrix, measurement, x, t)
        for iterations in (rank + 1, 4, 8, 16):
            found = inverse.mmps(denoiser, measurement, iterations)(x.to(dtype), t)
            assert float((found.double() - exact).abs().max()) < slack, (t, iterations)


def test_samples_without_noise_are_what_was_measured():
    matrix = normal(4, 1) @ normal(1, 3, seed=1)
    denoiser, measurement = _problem(matrix, 0.0)
    guided = inverse.mmps(denoiser, measurement, iterations=4)
    x = sd.sample(guided, (64, 3), solver="ddim", eta=1.0, steps=20, seed=0)
    assert float(measurement.residual(x).abs().max()) < 1e-5
