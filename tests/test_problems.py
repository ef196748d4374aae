"""Test problems against autograd, quadrature, quantile maps and independent integration."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.linalg import sqrtm
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import kstest, norm

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

torch.set_num_threads(1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def eye(dim: int) -> torch.Tensor:
    return torch.eye(dim, dtype=torch.float64)


def covariances(*shape: int, seed: int) -> torch.Tensor:
    root = normal(*shape, shape[-1], seed=seed)
    return 0.3 * root @ root.mT + 0.05 * eye(shape[-1])


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
SMOOTH = [name for name, problem in PROBLEMS.items() if problem.smooth]
SCHEDULES = [VPLinear(), VPCosine(), SubVP(), VE(), EDM(), FlowMatching()]

each_problem = pytest.mark.parametrize("name", PROBLEMS)
each_smooth = pytest.mark.parametrize("name", SMOOTH)
angles = st.floats(0.15, math.pi / 2)
radii = st.floats(0.2, 5.0)
seeds = st.integers(0, 1000)
few = settings(max_examples=12, deadline=None)


def close(a, b, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def marginal(problem: Problem, n: int, alpha: float, sigma: float, seed: int) -> torch.Tensor:
    return problem.sample_marginal(n, alpha, sigma, torch.Generator().manual_seed(seed))


# --- the law, the score and the posterior ------------------------------------------------------


def double(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


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


# --- trajectories ------------------------------------------------------------------------------


def line_cdf(x, alpha: float, sigma: float):
    parts = ((0.3, -1.0, 0.09), (0.7, 0.9, 0.04))
    return sum(w * ndtr((x - alpha * m) / math.sqrt(alpha**2 * c + sigma**2)) for w, m, c in parts)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("reverse", [True, False])
def test_trajectory_is_the_quantile_map_in_one_dimension(schedule, reverse):
    """F_s(x_s) = F_t(x_t): the ODE keeps the order of points, hence their ranks."""
    t, s = (schedule.t_max, schedule.t_min) if reverse else (schedule.t_min, schedule.t_max)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    x_t = marginal(two_gaussians(), 150, alpha_t, sigma_t, seed=5)
    x_s = two_gaussians().endpoint(x_t, schedule, t, s)
    bound = 10 * math.hypot(alpha_s, sigma_s)
    for start, end in zip(x_t[:, 0].tolist(), x_s[:, 0].tolist(), strict=True):
        rank = line_cdf(start, alpha_t, sigma_t)
        exact = brentq(
            lambda z, r=rank: line_cdf(z, alpha_s, sigma_s) - r, -bound, bound, xtol=1e-14
        )
        assert end == pytest.approx(exact, abs=1e-9)


def test_no_sample_hides_behind_its_batch():
    problem, flow = two_gaussians(), FlowMatching()
    divide = brentq(lambda z: line_cdf(z, 0.0, 1.0) - 0.3, -5, 5)
    easy = 0.1 * normal(127, 1, seed=6) + 2
    hard = torch.tensor([[divide]], dtype=torch.float64)  # ends between the modes
    exact = brentq(lambda z: line_cdf(z, 1.0, 0.0) - line_cdf(divide, 0.0, 1.0), -5, 5)
    for rtol, bound in ((1e-11, 1e-9), (1e-4, 1e-3)):  # its own error is multiplied by 500
        path = problem.trajectory(torch.cat([easy, hard]), flow, [1.0, 0.0], rtol, rtol / 10)
        assert float(path[-1, -1]) == pytest.approx(exact, abs=bound)


def integrate_in_time(problem, schedule, x, t, s):
    """x and log p(x) at s from those at t, by the textbook ODE with its exact divergence."""

    def velocity(time, flat):
        z, scales = torch.from_numpy(flat[:-1]), (schedule.alpha(time), schedule.sigma(time))
        drift = lambda y: (
            schedule.f(time) * y - schedule.g2(time) / 2 * problem.score(y[None], *scales)[0]
        )
        jacobian = torch.autograd.functional.jacobian(drift, z)
        return np.append(drift(z).numpy(), -float(jacobian.trace()))

    start = np.append(x.numpy(), float(problem.log_prob(x[None], *schedule(t))))
    end = solve_ivp(velocity, (t, s), start, method="DOP853", rtol=1e-10, atol=1e-11).y[:, -1]
    return torch.from_numpy(end[:-1]), end[-1]


@pytest.mark.parametrize("name", ["ring", "full"])
def test_schedules_share_endpoints_and_carry_the_likelihood(name):
    """Same x / alpha at the same sigma / alpha; log p moves by the integrated divergence."""
    problem, noisy, clean = PROBLEMS[name], 3.0, 0.05
    y = marginal(problem, 1, 1.0, noisy, seed=7)[0]
    reached = []
    for schedule in SCHEDULES:
        t, s = (float(schedule.time_of(-math.log(rho))) for rho in (noisy, clean))
        (alpha_t, _), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x_s = problem.endpoint(alpha_t * y[None], schedule, t, s)
        reached.append(x_s[0] / alpha_s)
        if isinstance(schedule, VPLinear | VE | FlowMatching):
            textbook, log_prob = integrate_in_time(problem, schedule, alpha_t * y, t, s)
            close(x_s[0], textbook, 1e-7)
            law = float(problem.log_prob(x_s, alpha_s, sigma_s))
            assert law == pytest.approx(log_prob, abs=1e-6)
    for other in reached[1:]:
        close(other, reached[0], 1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_gaussian_trajectory_is_the_affine_map(schedule):
    problem, t, s = PROBLEMS["gaussian"], schedule.t_max, schedule.t_min
    mu, c = problem.mean, problem.data_covariance().numpy()
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    root_t = sqrtm(alpha_t**2 * c + sigma_t**2 * np.eye(3))
    root_s = sqrtm(alpha_s**2 * c + sigma_s**2 * np.eye(3))
    move = torch.from_numpy(root_s @ np.linalg.inv(root_t))
    x = marginal(problem, 20, alpha_t, sigma_t, seed=8)
    got = problem.endpoint(x, schedule, t, s)
    close(got, alpha_s * mu + (x - alpha_t * mu) @ move.T)
    alone = GaussianMixture([1.0], mu[None], torch.from_numpy(c)[None])
    close(alone.endpoint(x, schedule, t, s), got, 1e-9)


def test_flat_gaussian_lands_on_its_support():
    normal_vector = torch.tensor([0.6, 0.8], dtype=torch.float64)
    flat = Gaussian([1.0, 1.0], eye(2) - normal_vector[:, None] * normal_vector)
    end = flat.endpoint(normal(5, 2), FlowMatching(), 1.0, 0.0)
    close((end - flat.mean) @ normal_vector, torch.zeros(5).double(), 1e-7)


def test_points_draw_trajectories_to_themselves():
    data = DataSet([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.5]])
    end = data.endpoint(normal(20, 2, seed=12), FlowMatching(), 1.0, 1e-6)
    distance = (end[:, None] - data.mean - data._points).norm(dim=2).min(1).values
    assert float(distance.max()) < 1e-5


@pytest.mark.parametrize("name", ["gaussian", "ring", "data"])
def test_trajectory_visits_its_times(name):
    problem, schedule = PROBLEMS[name], VPLinear()
    x = marginal(problem, 3, *schedule(1.0), seed=9)
    times = [1.0, 0.4, 0.4, 0.0, 1.0]
    path = problem.trajectory(x, schedule, torch.tensor(times, dtype=torch.float64))
    assert path.shape == (5, *x.shape)
    assert torch.equal(path[0], x)
    close(path[1], path[2], 1e-14)
    close(path[4], x, 1e-9)
    close(path[3], problem.endpoint(x, schedule, 1.0, 0.0), 1e-9)
    narrow = problem.trajectory(x.float(), schedule, times)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), path, rtol=1e-4, atol=1e-4)
    assert problem.endpoint(x[:0], schedule, 1.0, 0.0).shape == (0, *problem.event_shape)


def test_batches_longer_than_a_chunk_keep_their_order():
    x = normal(300, 1, seed=10)
    end = two_gaussians().endpoint(x, FlowMatching(), 1.0, 0.0)
    assert torch.equal(end[:, 0].argsort(), x[:, 0].argsort())


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


# --- the door ----------------------------------------------------------------------------------

EYE = eye(2)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: Gaussian([[0.0]], 1.0), ValueError, "do not agree"),
        (lambda: Gaussian([0.0, 0.0], [1.0, 1.0, 1.0]), ValueError, "do not agree"),
        (lambda: Gaussian([0.0, math.nan], 1.0), ValueError, "not finite"),
        (lambda: Gaussian([0.0], -1.0), ValueError, "positive semidefinite"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), ValueError, "symmetric"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), ValueError, "semidefinite"),
        (lambda: Gaussian(torch.tensor([0, 1]), 1.0), TypeError, "double"),
        (lambda: GaussianMixture([1.0], [0.0], [1.0]), ValueError, "do not agree"),
        (lambda: GaussianMixture([1.0], EYE, [1.0, 1.0]), ValueError, "do not agree"),
        (lambda: GaussianMixture([0.5, 0.5], EYE, [1.0]), ValueError, "do not agree"),
        (lambda: GaussianMixture([0.5, 0.4], EYE, [1.0, 1.0]), ValueError, "sum to 1"),
        (lambda: GaussianMixture([1.5, -0.5], EYE, [1.0, 1.0]), ValueError, "non-negative"),
        (lambda: GaussianMixture([0.5, 0.5], EYE, [1.0, -1.0]), ValueError, "semidefinite"),
        (lambda: GaussianMixture([0.5, 0.5], EYE, [1.0, math.inf]), ValueError, "not finite"),
        (lambda: GaussianMixture([0.5, 0.5], EYE.int(), [1.0, 1.0]), TypeError, "double"),
        (lambda: DataSet(torch.zeros(0, 3)), ValueError, "no data"),
        (lambda: DataSet(torch.tensor([[math.inf]])), ValueError, "not finite"),
        (lambda: DataSet(EYE.int()), TypeError, "double"),
        (lambda: DataSet(EYE, -0.1), ValueError, "smoothing"),
        (lambda: DataSet(EYE, math.nan), ValueError, "smoothing"),
        (lambda: ring(0), ValueError, "modes"),
        (lambda: ring(8, 1), ValueError, "dimension"),
        (lambda: spectrum_mixture(0), ValueError, "components"),
    ],
)
def test_bad_problem_is_refused(build, error, words):
    with pytest.raises(error, match=words):
        build()


@pytest.mark.parametrize(
    ("x", "alpha", "sigma", "error", "words"),
    [
        (EYE.int(), 1.0, 1.0, TypeError, "float32 or float64"),
        (EYE.half(), 1.0, 1.0, TypeError, "float32 or float64"),
        ([[0.0, 0.0]], 1.0, 1.0, TypeError, "list"),
        (EYE[0], 1.0, 1.0, ValueError, "event shape"),
        (EYE[:, :1], 1.0, 1.0, ValueError, "event shape"),
        (EYE, -1.0, 1.0, ValueError, "non-negative"),
        (EYE, 1.0, math.nan, ValueError, "finite"),
        (EYE, 1.0, math.inf, ValueError, "finite"),
        (EYE, 0.0, 0.0, ValueError, "nothing of x"),
        (EYE, 1.0, torch.ones(3), ValueError, "batch 2"),
        (EYE, 1.0, torch.ones(2, 1), ValueError, "batch 2"),
        (EYE, "1", 1.0, TypeError, "alpha"),
        (EYE, 1.0, torch.tensor([1.0, -1.0]), ValueError, "non-negative"),
    ],
)
@pytest.mark.parametrize("method", ["denoised", "score", "noise", "log_prob", "covariance"])
def test_bad_state_or_scale_is_refused(method, x, alpha, sigma, error, words):
    for problem in (PROBLEMS["gaussian-number"], ring(), DataSet(EYE, 0.1)):
        with pytest.raises(error, match=words):
            getattr(problem, method)(x, alpha, sigma)


@pytest.mark.parametrize("method", ["denoised", "score", "noise", "log_prob", "covariance"])
def test_no_score_where_there_is_no_density(method):
    flat = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    mixed = GaussianMixture([0.5, 0.5], EYE, [1.0, 0.0])
    for problem in (DataSet(EYE), Gaussian([0.0, 0.0], flat), mixed):
        with pytest.raises(ValueError, match="no density"):
            getattr(problem, method)(EYE, 1.0, 0.0)
        with pytest.raises(ValueError, match="no density"):
            getattr(problem, method)(EYE, 1.0, torch.tensor([0.5, 0.0]))
        assert torch.isfinite(getattr(problem, method)(EYE, 1.0, 0.1)).all()
    with pytest.raises(ValueError, match="no density"):
        DataSet(EYE).endpoint(EYE, FlowMatching(), 1.0, 0.0)
    with pytest.raises(ValueError, match="no density"):
        Gaussian([0.0, 0.0], flat).endpoint(EYE, FlowMatching(), 0.0, 1.0)


def test_a_component_of_weight_zero_is_no_part_of_the_law():
    with_none = GaussianMixture([1.0, 0.0], EYE, [0.5, 0.0])
    close(with_none.score(EYE, 1.0, 0.0), Gaussian(EYE[0], 0.5).score(EYE, 1.0, 0.0), 1e-14)


@pytest.mark.parametrize(
    ("x", "times", "options", "words"),
    [
        (EYE, [], {}, "empty"),
        (EYE, [1.0, -0.1], {}, "outside"),
        (EYE, [1.5, 0.0], {}, "outside"),
        (EYE, [1.0, math.nan], {}, "outside"),
        (EYE, [1.0, 0.5], {"rtol": 0.0}, "positive"),
        (EYE, [1.0, 0.5], {"atol": math.inf}, "positive"),
        (EYE * math.nan, [1.0, 0.5], {}, "not finite"),
        (EYE[:, :1], [1.0, 0.5], {}, "event shape"),
    ],
)
def test_bad_trajectory_is_refused(x, times, options, words):
    with pytest.raises(ValueError, match=words):
        ring().trajectory(x, FlowMatching(), times, **options)


def test_at_least_one_sample_is_drawn():
    with pytest.raises(ValueError, match="at least one"):
        ring().sample(0)
