"""The Frechet distance as a loss of samples: its value, its gradient, and a fit that it settles."""

import numpy as np
import pytest
import scipy.linalg
import torch

import sde_diffusion as sd
from sde_diffusion.tuning.laws import frechet
from sde_diffusion.tuning.pairs import Pairs

DOUBLE = torch.float64


def loss(x, y, **options):
    residual = frechet(**options).residual(x[None], torch.zeros(1), Pairs(x, y, 1.0, 0.0))
    return residual.square().sum(1).mean()


def by_definition(x, y):
    """|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^{1/2}), by another library."""
    (m_x, c_x), (m_y, c_y) = ((s.mean(0), np.cov(s.T, bias=True)) for s in (x.numpy(), y.numpy()))
    cross = np.real(np.sqrt(scipy.linalg.eigvals(c_x @ c_y).astype(complex))).sum()
    return float(((m_x - m_y) ** 2).sum() + np.trace(c_x + c_y) - 2 * cross)


def sets(n=60, dimension=4):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, n, dimension, generator=generator, dtype=DOUBLE)
    return x, 0.5 + y @ torch.randn(dimension, dimension, generator=generator, dtype=DOUBLE)


def test_it_is_the_distance_of_the_gaussians():
    """Whatever the order of the data; where one law, or both, have no spread; with few samples."""
    x, y = sets()
    assert loss(x, y) == pytest.approx(by_definition(x, y))
    assert loss(x, y.flip(0)) == pytest.approx(by_definition(x, y))
    assert loss(x, x.flip(0)) < 1e-12
    flat_x, flat_y = x.clone(), y.clone()
    flat_x[:, 1], flat_y[:, 1:3] = 2.0, -1.0
    for a, b in ((flat_x, y), (x, flat_y), (flat_x, flat_y), (x[:3], y[:3]), (x[:1], y[:1])):
        assert loss(a, b) == pytest.approx(by_definition(a, b), rel=1e-5)


def test_its_gradient_is_that_of_the_distance():
    """Although the partners are held: they are the best there are."""
    x, y = sets()
    (slope,) = torch.autograd.grad(loss(x.requires_grad_(), y), x)
    x, way = x.detach(), torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    ahead, behind = (by_definition(x + h * way, y) for h in (1e-4, -1e-4))
    assert float((slope * way).sum()) == pytest.approx((ahead - behind) / 2e-4, rel=1e-5)


def test_features_stand_in_the_place_of_samples():
    x, y = sets()
    f = lambda x: x[:, :2].sin()
    assert loss(x, y, features=f) == pytest.approx(by_definition(f(x), f(y)))


def test_a_plan_fitted_to_samples_of_a_normal_law():
    """No start has an end of its own: data in any order settle the fit."""
    data, schedule = sd.problems.Gaussian([0.5, -1.0], [0.3, 0.1]), sd.VPLinear()
    generator = torch.Generator().manual_seed(0)
    starts = torch.randn(2048, 2, generator=generator, dtype=DOUBLE)
    large = {"batch": 1024, "chunk": 1024, "max_iterations": 60, "nfe": 2}
    ends = data.sample(2048, generator)
    denoiser = data.denoiser(schedule)
    plan = sd.tune("ddim", denoiser, starts, ends, loss="frechet", method="gradient", **large)
    base, tuned = (plan.origin["results"][key]["validation"]["loss"] for key in ("base", "tuned"))
    assert tuned < 0.05 * base
