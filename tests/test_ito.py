"""Ito's density estimate against exact densities."""

import math

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.likelihood import REVERSE_SDE, sample_with_density
from sde_diffusion.problems import Gaussian, GaussianMixture

VP = sd.VPLinear()
MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.09, 0.25])


def run(problem, steps, solver="ddim", count=256, schedule=VP, t_start=0.9, t_end=0.05):
    """(error, samples); the start is exact, and so is its density."""
    generator = torch.Generator().manual_seed(0)
    start = problem.sample_marginal(count, *schedule(t_start), generator)
    grid = sd.times.uniform_lambda(schedule, steps, t_start, t_end)
    found = sample_with_density(
        problem.denoiser(schedule),
        start.shape,
        solver=solver,
        times=grid,
        start=start,
        seed=1,
        dtype=torch.float64,
    )
    prior = problem.log_prob(start, *schedule(t_start))
    estimate = found.log_prob - found.log_prior + prior
    return estimate - problem.log_prob(found.x, *schedule(t_end)), found


def rms(x):
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("problem", [Gaussian([0.5, -1.0], [0.3, 1.5]), MIXTURE])
def test_strong_order_one_half(problem):
    """Errors of 256 samples at 16 times the steps fall by 4 (statistical error about 8 %)."""
    coarse, fine = (rms(run(problem, steps)[0]) for steps in (40, 640))
    assert math.log(coarse / fine, 16) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("name", REVERSE_SDE)
def test_every_solver_of_the_reverse_sde_converges_to_the_exact_density(name):
    """And without bias: the mean error of 256 samples is within 4.5 of its standard errors."""
    error, found = run(MIXTURE, 600, name)
    assert rms(error) < 0.35
    assert abs(float(error.mean())) < 4.5 * float(error.std()) / 16 + 0.05
    assert rms(error) < found.log_prob.std() / 3  # what is to be told is larger


def test_data_in_one_point_have_their_density_without_error():
    problem = Gaussian([0.7, -0.3], 0.0)
    error, _ = run(problem, 3)
    assert error.abs().max() < 1e-10


def test_the_estimate_is_the_sum_of_the_paper_on_fine_steps():
    """d log p = <dy, s> - |s|^2/2 (-d rho^2), in y = x/alpha, summed along the same path."""
    schedule, steps = sd.EDM(), 2000
    grid = sd.times.uniform_lambda(schedule, steps, 5.0, 0.3)
    denoiser = MIXTURE.denoiser(schedule)
    start = MIXTURE.sample_marginal(16, 1.0, 5.0, torch.Generator().manual_seed(0))
    found = sample_with_density(
        denoiser, start.shape, times=grid, start=start, seed=2, dtype=torch.float64
    )
    path = sd.record(sd.SOLVERS["ddim"](schedule, grid, eta=1.0), denoiser, start, noise=2)
    total = torch.zeros(16, dtype=torch.float64)
    for i in range(steps):
        rho_t, rho_s = float(grid[i]), float(grid[i + 1])
        y, score = path.states[i], (path.denoised[i] - path.states[i]) / rho_t**2
        total += (score * (path.states[i + 1] - y)).sum(1)
        total -= score.square().sum(1) / 2 * (rho_t**2 - rho_s**2)
    assert torch.equal(found.x, path.states[-1])
    assert rms(found.log_prob - found.log_prior - total) < 0.15  # both are of order 1/2
    assert total.std() > 1.0


def test_the_sample_is_that_of_the_sampler():
    denoiser = MIXTURE.denoiser(VP)
    grid = sd.times.uniform(VP, 8, t_end=0.1)
    found = sample_with_density(denoiser, (4, 2), times=grid, seed=3)
    same = sd.sample(denoiser, (4, 2), solver="ddim", times=grid, seed=3, eta=1.0)
    assert torch.equal(found.x, same)
    assert (found.t, found.nfe, found.x.dtype) == (0.1, 8, torch.float32)
