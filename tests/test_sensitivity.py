"""Derivatives of a plan's states in its numbers, against autograd and difference quotients."""

import math

import pytest
import torch
from cases import each
from enumeration import SCHEDULES, every_solver, smooth_grid

import sde_diffusion as sd
from sde_diffusion.tuning.family import Family
from sde_diffusion.tuning.sensitivity import differentiate, follow, pull, rate

DIM, BATCH = 3, 4


def problem():
    generator = torch.Generator().manual_seed(5)
    means = torch.randn(4, DIM, generator=generator, dtype=torch.float64)
    return sd.problems.GaussianMixture([0.1, 0.2, 0.3, 0.4], means, [0.1, 0.2, 0.1, 0.3])


def starts(seed=1):
    return torch.randn(
        BATCH, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def moved_grid(name, options, schedule, steps):
    """All times of a solver free, the first and last too."""
    grid = smooth_grid(schedule, steps)

    def build(numbers):
        return sd.SOLVERS[name](schedule, grid + 0.01 * numbers, **options)

    return Family("times", build, torch.zeros(steps + 1, dtype=torch.float64), ())


def end_seeds(path, k):
    """Seeds on the last state alone, and what they are there."""
    generator = torch.Generator().manual_seed(k)
    seeds = torch.zeros(k, *path.states.shape, dtype=torch.float64)
    seeds[:, -1] = torch.randn(k, BATCH, DIM, generator=generator, dtype=torch.float64)
    return seeds, torch.zeros(k, len(path.times), BATCH, dtype=torch.float64)


@each(("name", "options"), every_solver())
def test_pull_equals_autograd_through_the_engine(name, options):
    """Two ways to one gradient: the adjoint of the rows, and autograd through `run`."""
    schedule = SCHEDULES["flow"]
    family = moved_grid(name, options, schedule, 5)
    denoiser, x = problem().denoiser(schedule), starts()
    table = differentiate(family, family.start)
    source = sd.noise.IndependentNoise(3)
    draw = source.stream(x, table.plan.course) if table.plan.stochastic else None
    draws = [draw(torch.empty_like(x), t, s) for t, s in table.plan.noises]
    path = follow(table.plan, denoiser, x, draws)
    seeds, times = end_seeds(path, 2)
    pulled = pull(table, denoiser, path, seeds, times)

    numbers = family.start.clone().requires_grad_()
    end = sd.run(family.build(numbers), denoiser, x, noise=source, grad=True)
    torch.testing.assert_close(path.states[-1], end.detach())
    for k in range(2):
        (expected,) = torch.autograd.grad((seeds[k, -1] * end).sum(), numbers, retain_graph=True)
        scale = float(expected.abs().max())
        torch.testing.assert_close(pulled[k].sum(0), expected, rtol=1e-7, atol=1e-9 * scale)


def test_pull_is_the_difference_quotient_of_each_sample():
    """Seeds at every grid point and at the times: each sample's own row of the Jacobian."""
    schedule = sd.VPLinear()
    family = moved_grid("dpm_solver_pp_2m", {}, schedule, 4)
    denoiser, x = problem().denoiser(schedule), starts()
    table = differentiate(family, family.start)
    path = follow(table.plan, denoiser, x)
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randn(1, *path.states.shape, generator=generator, dtype=torch.float64)
    times = torch.randn(1, len(path.times), BATCH, generator=generator, dtype=torch.float64)

    def functional(numbers):
        there = follow(family.plan(numbers), denoiser, x)
        of_times = (times[0] * there.times[:, None]).sum(0)
        return (seeds[0] * there.states).sum((0, 2)) + of_times

    pulled, step = pull(table, denoiser, path, seeds, times)[0], 1e-4
    for p, basis in enumerate(torch.eye(len(family.start), dtype=torch.float64)):
        quotient = (functional(step * basis) - functional(-step * basis)) / (2 * step)
        torch.testing.assert_close(pulled[:, p], quotient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.7, 80.0])
def test_rates_in_time(t):
    """Of a function that may be asked between 0 and 80 only."""

    def function(s):
        assert 0 <= s <= 80
        return torch.tensor([math.sin(s / 10), s], dtype=torch.float64)

    expected = torch.tensor([math.cos(t / 10) / 10, 1.0], dtype=torch.float64)
    torch.testing.assert_close(rate(function, t, 0.0, 80.0), expected, rtol=0, atol=1e-5)


def test_a_derivative_that_is_not_finite_is_refused():
    family = Family(
        "bad",
        lambda numbers: sd.SOLVERS["ddim"](sd.EDM(), [80.0, 1.0 + numbers[0].sqrt(), 0.0]),
        torch.zeros(1, dtype=torch.float64),
        ("n",),
    )
    with pytest.raises(ValueError, match="no finite derivative in the numbers of bad"):
        differentiate(family, family.start)
