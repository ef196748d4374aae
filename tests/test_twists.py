"""Twists and tempered rewards against the laws that they stand for."""

import math

import pytest
import torch
from particle_problems import MATRIX, SCHEDULE, Y

import sde_diffusion as sd
from sde_diffusion.gradient import denoise_with_pull
from sde_diffusion.inverse import Matrix, Measurement
from sde_diffusion.inverse.posterior import remaining
from sde_diffusion.particles import Level, matched, projected, tweedie, twisted
from sde_diffusion.particles.guide import Move
from sde_diffusion.particles.steering import SteeringGuide
from sde_diffusion.particles.twisted import TwistedGuide

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


def covariances(t, matrix=MATRIX, prior=MIXTURE, variance=1.0):
    """C and M at the states of `of`."""
    alpha, sigma = map(float, SCHEDULE(t))
    x = prior.sample_marginal(40, alpha, sigma, torch.Generator().manual_seed(0))
    noise = NOISE**2 * torch.eye(len(matrix), dtype=torch.float64)
    own = matrix @ prior.covariance(x, alpha, sigma) @ matrix.T + noise
    return own, remaining(variance, alpha, sigma) * matrix @ matrix.T + noise


def test_for_one_measured_number_matched_is_the_wider_of_tweedie_and_projected():
    seen = set()
    for t in (0.1, 0.4, 0.9):
        options = {"t": t, "matrix": MATRIX[:1], "variance": 0.3}
        found, own, told = (
            of(twist, y=Y[:1], **options) for twist in (matched, tweedie, projected)
        )
        c, m = (v.flatten() for v in covariances(**options))
        wider = c > m
        right = torch.where(wider, own[0] + m.log() / 2, told[0])
        torch.testing.assert_close(found[0], right)
        torch.testing.assert_close(found[1], torch.where(wider[:, None], own[1], told[1]))
        seen |= set(wider.tolist())
    assert seen == {True, False}


@TIMES
def test_on_data_of_the_variance_that_is_told_matched_is_projected(t):
    """Both are then p(y | x_t)."""
    prior = sd.problems.Gaussian([0.3, -0.2, 0.1], 0.7)
    found, right = (of(twist, t, prior=prior, variance=0.7) for twist in (matched, projected))
    torch.testing.assert_close(found[0], right[0])
    torch.testing.assert_close(found[1], right[1])


@TIMES
def test_matched_adds_the_one_direction_that_its_product_shows(t):
    """M <= C' <= C where C >= M, and log psi is N(y; A d, C'); C' u = C u."""
    prior = sd.problems.Gaussian([0.3, -0.2, 0.1], [2.0, 1.0, 0.5])
    log_psi = of(matched, t, prior=prior, variance=0.4)[0]
    c, m = covariances(t, prior=prior, variance=0.4)
    alpha, sigma = map(float, SCHEDULE(t))
    x = prior.sample_marginal(40, alpha, sigma, torch.Generator().manual_seed(0))
    e = Y - prior.denoised(x, alpha, sigma) @ MATRIX.T
    u = torch.linalg.solve(m, e[..., None])
    r = (c - m) @ u
    wide = m + r @ r.mT / (r.mT @ u)
    torch.testing.assert_close(wide @ u, c @ u)
    assert float(torch.linalg.eigvalsh(c - wide).min()) > -1e-9
    quadratic = (e[:, None] @ torch.linalg.solve(wide, e[..., None])).flatten()
    right = -(quadratic + torch.logdet(wide) - torch.logdet(m)) / 2
    torch.testing.assert_close(log_psi, right)


@pytest.mark.parametrize("rest", [0.3, 0.9])
def test_no_state_is_rewarded_for_being_far_from_y(rest):
    """64 numbers, one of variance 9, at states that differ in how far that one is from y."""
    variances = torch.full((64,), rest, dtype=torch.float64)
    variances[0] = 9.0
    prior = sd.problems.Gaussian(torch.zeros(64), variances)
    alpha, sigma = map(float, SCHEDULE(0.9))
    y = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    far = torch.tensor([0.0, 1, 2, 3, 4, 6, 12], dtype=torch.float64)
    x = torch.zeros(7, 64, dtype=torch.float64)
    x[:, 0] = (y[0] - far) * (alpha**2 * 9 + sigma**2) / (alpha * 9)
    d, pull = denoise_with_pull(prior.denoiser(SCHEDULE), x, 0.9)
    level = Level(alpha, sigma, float(remaining(1.0, alpha, sigma)))
    measurement = Measurement(Matrix(torch.eye(64, dtype=torch.float64)), y, 0.5)
    found = relative(matched(measurement, d, pull, level)[0])
    assert bool((found[1:] < 0).all()), found


def test_many_readings_of_one_number_are_one_reading():
    """64 readings, of noise 8 times as large, leave the posterior; and the particles nearly so."""
    schedule = sd.VPCosine()
    prior = sd.problems.GaussianMixture([1.0], [[0.0, 0.0]], [[9.0, 0.5]])
    plan = sd.solvers.ddpm(schedule, sd.times.default(schedule, 30))
    noise = torch.randn(64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = {}
    for n in (1, 64):
        spread = 0.3 * n**0.5
        row = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        y = 2.0 + spread * (noise[:n] - noise[:n].mean())
        measurement = Measurement(Matrix(row.repeat(n, 1)), y, spread)
        run = twisted(plan, prior.denoiser(schedule), measurement, (8, 64, 2), seed=0)
        error = run.log_evidence - measurement.evidence(prior)
        found[n] = error.abs().mean(), run.ess.min(0).values.mean()
    assert float(found[1][0]) < 0.3, found
    assert float(found[64][0]) < 0.5, found
    assert float(found[64][1]) > 0.3 * float(found[1][1]), found


def plain(alpha, slope, away=1.0):
    """Projected, matched and tweedie of y = A d + away, for d = slope x, in float32."""
    x = torch.ones(2, 3)
    y = slope * (x[0] @ MATRIX.T.float()) + away
    measurement = Measurement(Matrix(MATRIX), y.double(), NOISE)
    level = Level(alpha, 1.0, 0.5)
    found = [f(measurement, slope * x, lambda v: slope * v, level) for f in ALL]
    return found, 2 * away**2


ALL = (projected, matched, tweedie)


def test_matched_is_projected_where_the_jacobian_says_nothing_or_what_no_covariance_has():
    for alpha, slope, away in ((0.0, 0.5, 1.0), (0.5, -2.0, 1.0), (0.5, 0.9, 0.0)):
        (told, found, own), squared = plain(alpha, slope, away)
        for value, right in zip(found, told, strict=True):
            assert bool(value.isfinite().all())
            torch.testing.assert_close(value, right, atol=1e-5, rtol=1e-5)
        if slope < 0:  # tweedie takes it for 0
            right = torch.full((2,), -squared / (2 * NOISE**2) - 2 * math.log(NOISE))
            torch.testing.assert_close(own[0], right)


def test_the_push_is_that_of_the_best_proposal():
    """p(x_s | x_t) N(y; A d_s, ..) on N(., v I), A A^T = I: its mean, of all steps."""
    v, noise = 0.7, 0.4
    mean = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    a = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    prior = sd.problems.Gaussian(mean, v)
    measurement = Measurement(Matrix(a), Y, noise)
    guide = TwistedGuide(prior.denoiser(SCHEDULE), measurement, "projected", v)
    for t, s in ((0.9, 0.5), (0.5, 0.45), (0.2, 0.01)):
        (alpha_t, sigma_t), (alpha, sigma) = (map(float, SCHEDULE(c)) for c in (t, s))
        ratio, c2 = alpha_t / alpha, sigma**2 * (1 - (alpha_t * sigma / alpha / sigma_t) ** 2)
        x = prior.sample_marginal(5, alpha_t, sigma_t, torch.Generator().manual_seed(0))
        seen = guide.see(x, t, 0, torch.zeros(5, dtype=torch.int64))
        given = (
            sigma**2 / sigma_t**2 * ratio * x
            + (1 - (ratio * sigma / sigma_t) ** 2) * alpha * seen.d
        )
        slope = alpha * v / (alpha**2 * v + sigma**2)
        at = slope * a  # of x_s, about E[x_s | x_t]
        e = Y - prior.denoised(given, alpha, sigma) @ a.T
        spread = (noise**2 + remaining(v, alpha, sigma)) * torch.eye(2, dtype=torch.float64)
        right = c2 * torch.linalg.solve(spread + c2 * at @ at.T, e.T).T @ at
        found = guide.drift(Move(t, s, {0: 1.0}, c2), {0: seen.push})
        torch.testing.assert_close(found, right)


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
