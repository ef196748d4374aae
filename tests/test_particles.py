"""Particles find the plan's own posterior: E[Z_hat] = Z exactly, for every stochastic plan."""

import math

import pytest
import torch
from enumeration import every_solver
from particle_problems import (
    DENOISER,
    MATRIX,
    MEASUREMENT,
    NOISE,
    ON_RING,
    SCHEDULE,
    VARIANCE,
    Y,
    assert_mean,
    errors_on_ring,
    exact,
    plan_of,
)

import sde_diffusion as sd
from sde_diffusion.inverse import Matrix, Measurement, Operator
from sde_diffusion.particles import POTENTIALS, SCHEMES, TWISTS, steer, twisted

MANY = (300, 8, 3)


def stochastic(name, options):
    plan = plan_of(name, 4, **options)
    return plan.stochastic


EACH = {p.values[0]: p for p in reversed(every_solver()) if stochastic(*p.values)}
PLANS = list(EACH.values())  # the first claim of each solver


def find(plan, shape=MANY, seed=0, **options):
    options = {"dtype": torch.float64, "seed": seed, **options}
    return twisted(plan, DENOISER, MEASUREMENT, shape, **options)


def assert_exact(plan, found):
    """E[Z_hat / Z] = 1, E[Z_hat / Z sum W x] = E[x | y], E[Z_hat / Z sum W x x^T] likewise."""
    log_p, mean, covariance = exact(plan, MATRIX, Y, NOISE)
    ratio = (found.log_evidence - log_p).exp()
    assert_mean(ratio, 1.0)
    assert_mean(ratio[:, None] * found.expect(), mean)
    square = found.expect(lambda x: x[:, :, None] * x[:, None, :])
    second = covariance + mean[:, None] * mean
    assert_mean((ratio[:, None, None] * square).flatten(1), second.flatten())


@pytest.mark.parametrize(("name", "options"), PLANS)
def test_evidence_and_posterior_are_unbiased_for_every_stochastic_plan(name, options):
    """13 numbers of 300 populations each: false alarms below 1e-4 a plan."""
    plan = plan_of(name, **options)
    if widens(plan):  # noise predictions from pure noise, on few steps
        plan = plan_of(name, 60, **options)
    assert_exact(plan, find(plan))


def widens(plan):
    """Whether the plan's own law is far wider than the data: y is far out there."""
    *_, covariance = exact(plan, 0 * MATRIX, Y, NOISE)
    return bool((covariance.diag() > 3 * VARIANCE).any())


def test_float32_is_exact_within_the_noise():
    plan = plan_of("ddpm")
    found = find(plan, dtype=torch.float32)
    assert found.x.dtype is torch.float32
    assert_exact(plan, found)


@pytest.mark.parametrize("resampling", SCHEMES)
@pytest.mark.parametrize("threshold", [0.0, 0.7, 1.0])
def test_no_scheme_or_threshold_changes_the_mean(resampling, threshold):
    plan = plan_of("ddpm")
    assert_exact(plan, find(plan, resampling=resampling, threshold=threshold))


def misled(measurement, d, pull, level):
    """A bad twist and a worse gradient: exact all the same."""
    return 0.1 * d.sin().sum(1), 0.2 * d.cos()


@pytest.mark.parametrize("twist", [*TWISTS, misled])
@pytest.mark.parametrize("k", [1, 8])
def test_no_twist_or_number_of_particles_changes_the_mean(twist, k):
    plan = plan_of("ddpm")
    assert_exact(plan, find(plan, ({1: 900, 8: 300}[k], k, 3), twist=twist))


@pytest.mark.parametrize("potential", [*POTENTIALS, lambda r: 0.3 * r.mean(-1)])
@pytest.mark.parametrize("at", [range(12), (3, 6, 8)])
def test_every_potential_of_steering_has_the_same_target(potential, at):
    """exp(r) = the likelihood: the target is the posterior, whatever draws towards it.

    With rewards of a fifth, as "sum" over 12 points would take the weights of all but one.
    """
    plan = plan_of("ddpm")
    reward = Measurement(Matrix(MATRIX), Y, 2.0).log_likelihood
    found = steer(
        *(plan, DENOISER, reward, MANY),
        **{"potential": potential, "at": at, "dtype": torch.float64, "seed": 1},
    )
    log_p, mean, _ = exact(plan, MATRIX, Y, 2.0)
    ratio = (found.log_evidence - log_p).exp()
    assert_mean(ratio, 1.0)
    assert_mean(ratio[:, None] * found.expect(), mean)


def test_a_proposal_is_made_up_for():
    """A denoiser of other data leads the particles; the target stays the model's."""
    plan = plan_of("ddpm")
    other = sd.problems.Gaussian([0.8, -0.3, 0.1], [0.8, 0.3, 0.06]).denoiser(SCHEDULE)
    found = steer(
        *(plan, DENOISER, MEASUREMENT.log_likelihood, (800, 16, 3)),
        **{"proposal": other, "dtype": torch.float64, "seed": 2},
    )
    assert_exact(plan, found)


def test_the_scale_multiplies_the_reward():
    """E[exp(lambda a.x)] = exp(lambda a.m + lambda^2 a.V a / 2), also for negative lambda."""
    plan = plan_of("ddpm")
    a = torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64)
    _, mean, variance = exact(plan, torch.zeros(1, 3, dtype=torch.float64), Y[:1] * 0, 1.0)
    for scale in (1.5, -1.0):
        found = steer(
            *(plan, DENOISER, lambda x: x @ a, MANY), scale=scale, dtype=torch.float64, seed=3
        )
        log_p = scale * a @ mean + scale**2 * a @ variance @ a / 2
        assert_mean((found.log_evidence - log_p).exp(), 1.0)
        assert_mean(
            (found.log_evidence - log_p).exp()[:, None] * found.expect(),
            mean + scale * variance @ a,
        )


class Parabola(Operator):
    event_shape, measured_shape = (3,), (1,)

    def apply(self, x):
        return x[:, :1] ** 2 + x[:, 1:2]


def test_a_nonlinear_operator_has_its_evidence():
    """y = x_1^2 + x_2 + noise; p(y) by integration over x_1."""
    plan = plan_of("ddpm")
    y, noise = torch.tensor([1.5], dtype=torch.float64), 0.8
    _, mean, variance = exact(plan, torch.zeros(1, 3, dtype=torch.float64), Y[:1] * 0, 1.0)
    u = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    spread = noise**2 + variance[1, 1]
    x_1 = mean[0] + variance[0, 0].sqrt() * u
    density = (-0.5 * u**2 - 0.5 * (y - x_1**2 - mean[1]) ** 2 / spread).exp()
    p = torch.trapezoid(density, u) / (2 * math.pi * spread.sqrt())
    found = twisted(
        *(plan, DENOISER, Measurement(Parabola(), y, noise), MANY), dtype=torch.float64, seed=4
    )
    assert_mean(found.log_evidence.exp() / p, 1.0)


def test_each_population_has_its_own_measurement():
    plan = plan_of("ddpm")
    y = torch.stack([Y, -Y]).repeat_interleave(300, 0)
    found = twisted(
        *(plan, DENOISER, Measurement(Matrix(MATRIX), y, NOISE), (600, 16, 3)),
        **{"dtype": torch.float64, "seed": 5, "batch": 1000},
    )
    for part, of in ((slice(0, 300), Y), (slice(300, 600), -Y)):
        log_p, mean, _ = exact(plan, MATRIX, of, NOISE)
        ratio = (found.log_evidence[part] - log_p).exp()
        assert_mean(ratio, 1.0)
        assert_mean(ratio[:, None] * found.expect()[part], mean)


def test_errors_fall_as_one_over_the_root_of_the_number_of_particles():
    """On a mixture in the plane: slopes -1/2 within 0.12, four standard errors."""
    options = {"dtype": torch.float64, "seed": 6}
    solve = lambda plan, denoiser, shape: twisted(plan, denoiser, ON_RING, shape, **options)
    found = errors_on_ring(solve)
    assert bool(((found[2] + 0.5).abs() < 0.12).all()), found


def test_a_narrow_reward_needs_tempering():
    """With its curvature at least that slope, and of 128 particles less than 0.7 of the error."""

    def solve(plan, denoiser, shape):
        reward = ON_RING.log_likelihood
        return steer(plan, denoiser, reward, shape, curvature=c, dtype=torch.float64, seed=6)

    c = ON_RING.noise**-2
    tempered = errors_on_ring(solve)
    c = 0.0
    untempered = errors_on_ring(solve)
    assert bool((tempered[2] < -0.4).all()), tempered
    assert bool((untempered[2] > -0.4).all()), untempered
    assert bool((tempered[1] < 0.7 * untempered[1]).all())
