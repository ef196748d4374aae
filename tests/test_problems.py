"""Test problems against autograd, quadrature and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import LAWS, PROBLEMS, SCHEDULES, close, double, eye, line_cdf, marginal, normal
from scipy.stats import kstest, norm

from sde_diffusion import problems
from sde_diffusion.problems import (
    DataSet,
    GaussianMixture,
    ring,
    spectrum_mixture,
    two_gaussians,
)

SMOOTH = [name for name, problem in PROBLEMS.items() if problem.smooth]

each_problem = pytest.mark.parametrize("name", PROBLEMS)
each_smooth = pytest.mark.parametrize("name", SMOOTH)
angles = st.floats(0.15, math.pi / 2)
radii = st.floats(0.2, 5.0)
seeds = st.integers(0, 1000)
few = settings(max_examples=12, deadline=None)

# --- the law, the score and the posterior ------------------------------------------------------


@pytest.mark.parametrize("name", LAWS)
@given(angle=angles, radius=radii, seed=seeds)
@few
def test_log_prob_is_that_of_the_noised_mixture(name, angle, radius, seed):
    problem, alpha, sigma = PROBLEMS[name], radius * math.cos(angle), radius * math.sin(angle)
    weights, means, full = LAWS[name]
    x = marginal(problem, 5, alpha, sigma, seed)
    noised = torch.distributions.MultivariateNormal(
        alpha * means, alpha**2 * full + sigma**2 * eye(means.shape[1])
    )
    law = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), noised)
    close(problem.log_prob(x, alpha, sigma), law.log_prob(x.flatten(1)))


@each_problem
@given(angle=angles, radius=radii, seed=seeds)
@few
def test_score_noise_and_denoiser_obey_tweedie(name, angle, radius, seed):
    problem, alpha, sigma = PROBLEMS[name], radius * math.cos(angle), radius * math.sin(angle)
    x = marginal(problem, 4, alpha, sigma, seed).requires_grad_()
    (slope,) = torch.autograd.grad(problem.log_prob(x, alpha, sigma).sum(), x)
    close(problem.score(x, alpha, sigma), slope, 1e-9)
    close(problem.noise(x, alpha, sigma), -sigma * slope, 1e-9)
    close(alpha * problem.denoised(x, alpha, sigma), x + sigma**2 * slope, 1e-9)


@each_problem
@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_denoisers_of_a_loop_are_the_denoiser(name, kept, monkeypatch):
    """Whether a mixture keeps its components at all scales or works them out at each call."""
    monkeypatch.setattr(problems, "_KEPT", kept)
    problem, scales = PROBLEMS[name], [(1.0, 1e-3), (0.8, 0.6), (0.1, 2.0), (0.0, 1.0), (1.0, 80.0)]
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-3)):
        x = marginal(problem, 5, 0.8, 0.6, 0).to(dtype)
        for function, (alpha, sigma) in zip(problem.denoisers(x, scales), scales, strict=True):
            d = function(x)
            assert d.dtype == dtype
            close(d, problem.denoised(x, alpha, sigma), tolerance)
    with pytest.raises(ValueError, match="alpha = sigma = 0"):
        problem.denoisers(x, [(1.0, 1.0), (0.0, 0.0)])
    with pytest.raises(ValueError, match="event shape"):
        problem.denoisers(x[:, None], scales)


@each_problem
@given(angle=st.floats(0.15, 1.4), radius=radii, seed=seeds)
@few
def test_posterior_covariance_is_the_curvature_of_log_prob(name, angle, radius, seed):
    problem, alpha, sigma = PROBLEMS[name], radius * math.cos(angle), radius * math.sin(angle)
    x = marginal(problem, 2, alpha, sigma, seed)
    dim = x[0].numel()
    posterior = problem.covariance(x, alpha, sigma)
    for one, cov in zip(x, posterior, strict=True):
        hessian = torch.autograd.functional.hessian(
            lambda z: problem.log_prob(z[None], alpha, sigma)[0], one
        ).reshape(dim, dim)
        close(cov, (sigma / alpha) ** 2 * (eye(dim) + sigma**2 * hessian), 1e-8)
        assert float(torch.linalg.eigvalsh(cov).min()) > -1e-12


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.0), (0.8, 0.6), (0.1, 2.0), (0.0, 1.0)])
@pytest.mark.parametrize("name", ["line", "ring", "diagonal"])
def test_density_has_mass_one_and_stein_moments(name, alpha, sigma):
    # The trapezoidal rule converges geometrically on an analytic, decaying integrand.
    problem = PROBLEMS[name]
    dim = problem.event_shape[0]
    axis = torch.linspace(-1, 1, 4001 if dim == 1 else 321, dtype=torch.float64)
    axis = axis * (6.0 * alpha + 9.0 * sigma)
    x = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    p = problem.log_prob(x, alpha, sigma).exp() * (axis[1] - axis[0]) ** dim
    score = problem.score(x, alpha, sigma)
    close(p.sum(), torch.tensor(1.0).double(), 1e-9)
    close(p @ score, torch.zeros(dim).double(), 1e-9)
    close((p[:, None] * x).T @ score, -eye(dim), 1e-9)
    close(p @ x, alpha * problem.mean, 1e-9)
    centred = x - alpha * problem.mean
    spread = alpha**2 * problem.data_covariance() + sigma**2 * eye(dim)
    close((p[:, None] * centred).T @ centred, spread, 1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("name", ["line", "full", "data"])
@given(u=st.floats(0.1, 0.9), seed=seeds)
@settings(max_examples=5, deadline=None)
def test_continuity_equation(name, schedule, u, seed):
    """d log p/dt + div v + v . grad log p = 0 for v = f x - g^2/2 grad log p."""
    problem = PROBLEMS[name]
    t = torch.tensor(schedule.t_min + u * (schedule.t_max - schedule.t_min), dtype=torch.float64)
    alpha_t, sigma_t = schedule(t)
    x = marginal(problem, 1, alpha_t, sigma_t, seed)
    velocity = lambda z: schedule.f(t) * z - schedule.g2(t) / 2 * problem.score(z, *schedule(t))
    jacobian = torch.autograd.functional.jacobian(velocity, x).reshape(x.numel(), x.numel())
    clock = t.clone().requires_grad_()
    (rate,) = torch.autograd.grad(problem.log_prob(x, *schedule(clock)).sum(), clock)
    flux = jacobian.trace() + (velocity(x) * problem.score(x, alpha_t, sigma_t)).sum()
    scale = 1 + float(jacobian.abs().sum())
    assert float(rate + flux) == pytest.approx(0, abs=1e-10 * scale)


# --- samples: each fails by chance less than once in 10^6 seeds -----------------------------------


@each_problem
def test_samples_have_the_stated_moments(name):
    problem, n = PROBLEMS[name], 20_000
    x = problem.sample(n, torch.Generator().manual_seed(0))
    assert x.shape == (n, *problem.event_shape)
    centred = (x - problem.mean).flatten(1)
    products = centred[:, :, None] * centred[:, None, :]
    for draws, expected in ((centred, 0.0), (products, problem.data_covariance())):
        z_score = (draws.mean(0) - expected) / (draws.std(0) / math.sqrt(n))
        assert float(z_score.abs().max()) < 6


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.0), (0.7, 0.5)])
def test_marginal_samples_follow_the_law(alpha, sigma):
    x = marginal(two_gaussians(), 5000, alpha, sigma, seed=1)
    assert kstest(x[:, 0].numpy(), lambda z: line_cdf(z, alpha, sigma)).pvalue > 1e-6


def test_a_seed_means_one_sample_in_every_dtype():
    for problem in PROBLEMS.values():
        generators = [torch.Generator().manual_seed(3) for _ in range(2)]
        wide = problem.sample(7, generators[0])
        narrow = problem.sample(7, generators[1], dtype=torch.float32)
        assert torch.equal(wide.float(), narrow)


# --- the two ends ------------------------------------------------------------------------------


@each_smooth
def test_clean_end(name):
    problem = PROBLEMS[name]
    x = marginal(problem, 6, 0.7, 0.0, seed=2)
    close(problem.denoised(x, 0.7, 0.0), x / 0.7, 1e-12)
    assert not problem.noise(x, 0.7, 0.0).any()
    assert float(problem.covariance(x, 0.7, 0.0).abs().max()) < 1e-28
    close(problem.score(x, 0.7, 0.0), problem.score(x, 0.7, 1e-9), 1e-7)
    close(problem.log_prob(x, 0.7, 0.0), problem.log_prob(x, 0.7, 1e-9), 1e-7)


@each_problem
def test_noisy_end(name):
    problem = PROBLEMS[name]
    x = 2 * normal(6, *problem.event_shape, seed=3)
    close(problem.denoised(x, 0.0, 2.0), problem.mean.expand_as(x), 1e-12)
    close(problem.score(x, 0.0, 2.0), -x / 4, 1e-12)
    close(problem.covariance(x, 0.0, 2.0), problem.data_covariance().expand(6, -1, -1), 1e-12)
    law = torch.from_numpy(norm.logpdf(x.numpy(), scale=2.0)).flatten(1).sum(1)
    close(problem.log_prob(x, 0.0, 2.0), law, 1e-12)


@each_problem
def test_scales_may_differ_within_a_batch(name):
    problem = PROBLEMS[name]
    alpha, sigma = torch.tensor([[0.9, 0.2, 0.0], [0.3, 2.0, 1.0]], dtype=torch.float64)
    x = normal(3, *problem.event_shape, seed=4)
    for method in ("denoised", "score", "noise", "log_prob", "covariance"):
        ask = getattr(problem, method)
        alone = [ask(x[i : i + 1], float(alpha[i]), float(sigma[i])) for i in range(3)]
        close(ask(x, alpha, sigma), torch.cat(alone), 1e-12)
        close(ask(x, alpha[1], sigma[1]), ask(x, 0.2, 2.0), 1e-12)
        assert ask(x.float(), 0.5, 1.0).dtype == torch.float32
        torch.testing.assert_close(
            ask(x.float(), 0.5, 1.0).double(), ask(x, 0.5, 1.0), rtol=1e-4, atol=1e-4
        )


# --- finite data sets --------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_data_set_is_the_mixture_of_its_points(smoothing):
    points = normal(40, 3, 2, seed=7) + 5
    data = DataSet(points, smoothing)
    mixture = GaussianMixture(
        torch.full((40,), 1 / 40).double(), points.flatten(1), [smoothing**2] * 40
    )
    close(data.data_covariance(), mixture.data_covariance(), 1e-12)
    for alpha, sigma in ((1.0, 1e-4), (0.9, 0.3), (0.1, 3.0)):
        x = marginal(data, 20, alpha, sigma, seed=8)
        for method in ("denoised", "score", "noise", "log_prob", "covariance"):
            got, expected = (
                getattr(problem, method)(z, alpha, sigma).flatten()
                for problem, z in ((data, x), (mixture, x.flatten(1)))
            )
            # The score carries the rounding of x, amplified by 1 / sigma^2.
            close(got, expected, 1e-10 * max(1.0, 1e-4 / sigma**2))


def test_data_set_without_smoothing_returns_its_points():
    points = normal(30, 4, seed=9)
    denoised = DataSet(points).denoised(0.8 * points + 1e-3 * normal(30, 4), 0.8, 1e-3)
    close(denoised, points, 1e-12)


def test_log_density_keeps_its_digits_far_from_the_origin():
    points = normal(50, 16, seed=10)
    near, far = DataSet(points), DataSet(points + 1024)
    x = points + 2.0**-20 * normal(50, 16, seed=11).round()
    expected = near.log_prob(x, 1.0, 2.0**-20)
    close(far.log_prob(x + 1024, 1.0, 2.0**-20), expected, 1e-6)
    single = norm.logpdf((x - points).numpy(), scale=2.0**-20).sum(1)
    close(expected, torch.from_numpy(single) - math.log(50), 1e-12)


# --- ready-made problems -----------------------------------------------------------------------


@pytest.mark.parametrize("problem", [ring(), ring(5, 3), spectrum_mixture(), two_gaussians()])
def test_ready_made_problems_have_unit_scale(problem):
    variance = problem.data_covariance().diagonal()
    assert 0.6 < float(variance.mean()) < 1.1
    if problem.event_shape == (64,):
        assert float(variance.mean()) == pytest.approx(1, abs=1e-12)


def test_ring_has_its_radius_and_width():
    problem = ring(5, 3, radius=1.3, std=0.1)
    close(problem.data_covariance(), torch.diag(double([0.855, 0.855, 0.01])), 1e-14)
    close(problem.mean, torch.zeros(3).double(), 1e-14)
    close(problem.denoised(double([[1.3, 0, 0]]), 1.0, 0.1), double([[1.3, 0, 0]]), 1e-9)


def test_spectrum_is_one_over_f_and_seeded():
    first, again, other = (spectrum_mixture(3, 8, seed) for seed in (0, 0, 1))
    x = normal(2, 8)
    assert torch.equal(first.score(x, 0.7, 0.7), again.score(x, 0.7, 0.7))
    assert not torch.allclose(first.score(x, 0.7, 0.7), other.score(x, 0.7, 0.7))
    one = spectrum_mixture(1, 8).data_covariance()
    spectrum = torch.linalg.eigvalsh(one).flip(0)
    close(spectrum * torch.arange(1, 9), spectrum[:1].expand(8), 1e-12)
