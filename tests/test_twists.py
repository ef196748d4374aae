"""Twists and tempered rewards against the laws that they stand for."""

import pytest
import torch
from particle_problems import MATRIX, SCHEDULE, Y

import sde_diffusion as sd
from sde_diffusion.gradient import denoise_with_pull
from sde_diffusion.inverse import Matrix, Measurement
from sde_diffusion.inverse.posterior import remaining
from sde_diffusion.particles import Level, matched, projected, tweedie
from sde_diffusion.particles.steering import SteeringGuide

MIXTURE = sd.problems.GaussianMixture(
    [0.4, 0.6], [[1.0, 0.0, 0.5], [-1.0, 0.3, 0.0]], [[0.1, 0.3, 0.02], [0.05, 0.1, 0.2]]
)
NOISE = 0.3


def of(twist, t, matrix=MATRIX, y=Y, prior=MIXTURE, variance=1.0):
    """log psi and its gradient at 40 states of the prior, noised."""
    alpha, sigma = map(float, SCHEDULE(t))
    x = prior.sample_marginal(40, alpha, sigma, torch.Generator().manual_seed(0))
    d, pull = denoise_with_pull(prior.denoiser(SCHEDULE), x, t)
    level = Level(alpha, sigma, float(remaining(variance, alpha, sigma)))
    return twist(Measurement(Matrix(matrix), y, NOISE), d, pull, level)


def relative(log_psi):
    return log_psi - log_psi[0]


TIMES = pytest.mark.parametrize("t", [0.1, 0.4, 0.9])


@TIMES
def test_for_one_measured_number_matched_is_tweedie(t):
    found, right = (of(twist, t, MATRIX[:1], Y[:1]) for twist in (matched, tweedie))
    torch.testing.assert_close(relative(found[0]), relative(right[0]))
    torch.testing.assert_close(found[1], right[1])
    assert (
        relative(of(projected, t, MATRIX[:1], Y[:1])[0]) - relative(right[0])
    ).abs().max() > 0.01


@TIMES
def test_on_data_of_the_variance_that_is_told_matched_is_projected(t):
    """Both are then p(y | x_t)."""
    prior = sd.problems.Gaussian([0.3, -0.2, 0.1], 0.7)
    found, right = (of(twist, t, prior=prior, variance=0.7) for twist in (matched, projected))
    torch.testing.assert_close(found[0], right[0])
    torch.testing.assert_close(found[1], right[1])


@TIMES
def test_matched_is_no_narrower_along_its_line_than_the_whole_covariance(t):
    """Its quadratic part, log psi + log(k)/2, is at least that of tweedie; k by both gradients."""
    log_psi, gradient = of(matched, t)
    k = (of(projected, t)[1].norm(dim=1) / gradient.norm(dim=1)).log()
    alpha, sigma = map(float, SCHEDULE(t))
    x = MIXTURE.sample_marginal(40, alpha, sigma, torch.Generator().manual_seed(0))
    e = Y - MIXTURE.denoised(x, alpha, sigma) @ MATRIX.T
    c = MATRIX @ MIXTURE.covariance(x, alpha, sigma) @ MATRIX.T + NOISE**2 * torch.eye(2)
    whole = -(e * torch.linalg.solve(c, e)).sum(1) / 2
    assert bool((log_psi + k / 2 >= whole - 1e-9).all())
    assert float((log_psi + k / 2 - whole).max()) > 0.01


def test_a_tempered_reward_is_its_mean_over_what_is_left():
    """Data N(m, I), r = -c |x - a|^2/2: log E[e^r | x_t] of all states but for one constant."""
    prior, c, t = sd.problems.Gaussian([0.3, -0.2, 0.1], 1.0), 40.0, 0.3
    a = torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64)
    alpha, sigma = map(float, SCHEDULE(t))
    x = prior.sample_marginal(40, alpha, sigma, torch.Generator().manual_seed(0))
    posterior = prior.denoised(x, alpha, sigma), sigma**2 / (alpha**2 + sigma**2)
    right = -((posterior[0] - a) ** 2).sum(1) / (2 * (1 / c + posterior[1]))
    reward = lambda x: -c * ((x - a) ** 2).sum(1) / 2
    guide = SteeringGuide(prior.denoiser(SCHEDULE), reward, curvature=c)
    found = guide.see(x, t, 0, torch.zeros(40, dtype=torch.int64))
    torch.testing.assert_close(found.value, right)
    torch.testing.assert_close(guide.end(x, torch.zeros(40, dtype=torch.int64)), reward(x))
