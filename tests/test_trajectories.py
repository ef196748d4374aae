"""Trajectories against quantile maps, affine maps and independent integration."""

import math

import numpy as np
import pytest
import torch
from laws import PROBLEMS, SCHEDULES, close, eye, line_cdf, marginal, normal
from scipy.integrate import solve_ivp
from scipy.linalg import sqrtm
from scipy.optimize import brentq

from sde_diffusion.problems import DataSet, Gaussian, GaussianMixture, two_gaussians
from sde_diffusion.schedules import VE, FlowMatching, VPLinear


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
