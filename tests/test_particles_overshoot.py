"""The twisted sampler where data vary more than its variance says: shortened, and exact as ever."""

import pytest
import torch
from particle_problems import (
    DENOISER,
    MATRIX,
    MEASUREMENT,
    NOISE,
    Y,
    assert_mean,
    exact,
    plan_of,
)

import sde_diffusion as sd
from sde_diffusion import inverse
from sde_diffusion.particles import twisted
from sde_diffusion.particles.twisted import TwistedGuide
from sde_diffusion.particles.twists import projected

SCHEDULE = sd.VPLinear()
SMALL = 0.01  # of data of variance 1


def farther(x, t, variance, twist=None):
    """Of each state, |y - A(d + p)| / |y - A d|, p the push as a change of d."""
    guide = TwistedGuide(DENOISER, MEASUREMENT, twist, variance)
    seen = guide.see(x, t, 0, torch.zeros(len(x), dtype=torch.int64))
    alpha, sigma = SCHEDULE(t)
    after = MEASUREMENT.residual(seen.d + sigma**2 / alpha * seen.push)
    return after.norm(dim=1) / MEASUREMENT.residual(seen.d).norm(dim=1)


@pytest.mark.parametrize("t", [0.1, 0.3, 0.6])
def test_the_push_leads_no_farther_from_y(t):
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(200, 3, generator=generator, dtype=torch.float64)
    assert float(farther(x, t, 1.0).max()) < 1
    assert float(farther(x, t, SMALL).max()) < 1 + 1e-9


def eager(measurement, d, pull, level):
    """The default twist, pushing three times as hard."""
    log_psi, gradient = projected(measurement, d, pull, level)
    return log_psi, 3 * gradient


def test_weights_make_up_for_a_push_that_was_shortened():
    """Four numbers of 2000 populations: false alarms below 1e-4."""
    plan, x = plan_of("ddpm"), 2 * torch.ones(1, 3, dtype=torch.float64)
    most = max(float(farther(x, float(t), 1.0, eager)) for t in plan.times[:-1])
    assert most == pytest.approx(1)  # the bound is what decides there
    options = {"twist": eager, "seed": 0, "dtype": torch.float64}
    found = twisted(plan, DENOISER, MEASUREMENT, (2000, 8, 3), **options)
    log_p, mean, _ = exact(plan, MATRIX, Y, NOISE)
    ratio = (found.log_evidence - log_p).exp()
    assert_mean(ratio, 1.0)
    assert_mean(ratio[:, None] * found.expect(), mean)


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_few_steps_on_correlated_data_end_near_the_measurement(name):
    """Of one common direction: 0.2 away; without the bound 0.7 and 5."""
    ones = torch.ones(16, 16, dtype=torch.float64) / 16
    covariance = 50 * ones + 0.05 * torch.eye(16, dtype=torch.float64)
    prior = sd.problems.GaussianMixture([1.0], torch.zeros(1, 16), covariance[None])
    x = prior.sample(1, torch.Generator().manual_seed(0))[0]
    seen = inverse.Mask(torch.arange(16) % 2 == 0)
    measurement = inverse.Measurement.simulate(seen, x, noise=0.1, seed=0)
    options = {"eta": 1.0} if name == "ddim" else {}
    plan = sd.SOLVERS[name](SCHEDULE, sd.times.default(SCHEDULE, 10), **options)
    denoiser = prior.denoiser(SCHEDULE)
    found = twisted(plan, denoiser, measurement, (8, 32, 16), seed=0, dtype=torch.float64)
    misfit = measurement.residual(found.draw(32, seed=0).flatten(0, 1)).square().mean().sqrt()
    assert float(misfit) < 0.5
