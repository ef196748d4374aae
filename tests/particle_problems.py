"""A Gaussian whose law under a plan is exact, and a measurement of it: what particles must find."""

import math

import torch
from torch import Tensor

import sde_diffusion as sd
from sde_diffusion.inverse import Matrix, Measurement

SCHEDULE = sd.VPLinear()
MEAN = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
VARIANCE = torch.tensor([1.0, 0.3, 0.05], dtype=torch.float64)
MATRIX = torch.tensor([[1.0, 0.5, 0.2], [0.0, 1.0, -1.0]], dtype=torch.float64)
Y = torch.tensor([1.2, -0.4], dtype=torch.float64)
NOISE = 0.6
MEASUREMENT = Measurement(Matrix(MATRIX), Y, NOISE)
DENOISER = sd.problems.Gaussian(MEAN, VARIANCE).denoiser(SCHEDULE)


def grid(steps: int) -> Tensor:
    return sd.times.uniform_lambda(SCHEDULE, steps, 1.0, 1e-3)


def plan_of(name: str, steps: int = 12, **options) -> sd.Plan:
    return sd.SOLVERS[name](SCHEDULE, grid(steps), **options)


def exact(plan: sd.Plan, matrix: Tensor, y: Tensor, noise: float):
    """log p(y), and the mean and covariance of x_0 given y, of the plan's own law of x_0."""
    start = (0.0, float(SCHEDULE.sigma(plan.times[0])) ** 2)
    mean, variance = plan.law(SCHEDULE, MEAN, VARIANCE, start=start)
    prior = torch.diag(variance)
    cross = prior @ matrix.T
    s = matrix @ cross + noise**2 * torch.eye(len(matrix), dtype=torch.float64)
    e = y - matrix @ mean
    log_p = -0.5 * (e @ torch.linalg.solve(s, e) + torch.logdet(2 * math.pi * s))
    gain = cross @ torch.linalg.inv(s)
    return float(log_p), mean + gain @ e, prior - gain @ cross.T


def assert_mean(values: Tensor, expected: Tensor | float, deviations: float = 4.5) -> None:
    """The mean of independent rows is as expected; false alarms: 7e-6 a number (4.5 deviations)."""
    error = (values.mean(0) - expected).abs()
    deviation = values.std(0) / math.sqrt(len(values))
    assert bool((error <= deviations * deviation).all()), (error / deviation, values.mean(0))


RING = sd.problems.ring(modes=5, std=0.25)
ON_RING = Measurement(
    Matrix(torch.tensor([[1.0, 0.4]], dtype=torch.float64)),
    torch.tensor([0.9], dtype=torch.float64),
    0.4,
)


def errors_on_ring(solve):
    """RMS errors of the posterior mean and of log p(y), and their slopes, (3, 2).

    By 200 populations of 8 particles and 100 of 128, whose slopes have a standard error of 0.03;
    the truth is the mixture's own posterior, of which the plan, multistep and of weak order 2 on 24
    steps, misses three times less than 128 particles do.

    Args:
        solve: (plan, denoiser, shape) -> Population.
    """
    posterior, log_p = ON_RING.posterior(RING), float(ON_RING.evidence(RING))
    plan, errors = plan_of("sde_dpm_solver_pp_2m", 24), []
    for populations, k in ((200, 8), (100, 128)):
        found = solve(plan, RING.denoiser(SCHEDULE), (populations, k, 2))
        of_mean = (found.expect() - posterior.mean).square().sum(1).mean().sqrt()
        of_log_p = (found.log_evidence - log_p).square().mean().sqrt()
        errors.append(torch.stack([of_mean, of_log_p]))
    return torch.stack([*errors, (errors[1] / errors[0]).log() / math.log(128 / 8)])
