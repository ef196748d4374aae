"""Fitting by BFGS: the least of a quadratic, laws nearer than by descent, going on to the bit."""

import math
from dataclasses import replace

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.tuning.family import Family
from sde_diffusion.tuning.gradient import gradient
from sde_diffusion.tuning.kept import keep, kept
from sde_diffusion.tuning.laws import frechet
from sde_diffusion.tuning.loss import Loss
from sde_diffusion.tuning.pairs import Pairs
from sde_diffusion.tuning.quasi_newton import quasi_newton
from sde_diffusion.tuning.table import table

SCHEDULE = sd.VPLinear()
DATA = sd.problems.Gaussian([0.5, -1.0], [0.3, 0.1])


def pairs(n, seed):
    """Starts, and samples of the data that belong to none of them."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return Pairs(starts, DATA.sample(n, generator), 1.0, 0.0)


def base(nfe):
    return sd.SOLVERS["ddim"](SCHEDULE, sd.times.default(SCHEDULE, nfe))


def gap(states, times, some):
    return states[-1] - some.ends


def test_the_least_of_a_quadratic():
    """x = A x_T + B d is linear in the numbers: normal equations know the best ones."""
    denoiser, some = DATA.denoiser(SCHEDULE), pairs(64, 1)
    family = table(base(1), SCHEDULE, times=False, first_call=False)
    fit = quasi_newton(family, denoiser, Loss("gap", gap), some, some, ftol=1e-12)
    columns = torch.stack([some.starts.flatten(), denoiser(some.starts, 1.0).flatten()], 1)
    best = torch.linalg.lstsq(columns, some.ends.flatten()[:, None])
    least = (columns @ best.solution - some.ends.flatten()[:, None]).square().sum() / len(some)
    assert fit.train == pytest.approx(float(least), rel=1e-6)
    assert fit.stopped == "converged"
    assert fit.iterations < 20


def test_a_law_is_nearer_than_by_descent_with_as_many_gradients():
    task = (table(base(2), SCHEDULE), DATA.denoiser(SCHEDULE), frechet())
    some = pairs(1024, 1), pairs(1024, 2)
    asked = []

    def counting(states, times, part):
        if states.requires_grad:
            asked.append(1)
        return task[2].residual(states, times, part)

    loss = Loss("counted", counting)
    own = quasi_newton(*task[:2], loss, *some, max_iterations=25)
    count = len(asked)
    assert count < 40  # hardly more than one an iteration
    other = gradient(*task, *some, max_iterations=count, batch=1024)
    assert own.train < 0.5 * other.train


def test_a_fit_that_was_stopped_goes_on_to_the_bit(tmp_path):
    task = (table(base(2), SCHEDULE), DATA.denoiser(SCHEDULE), frechet())
    task += (pairs(64, 1), pairs(32, 2))
    seen = []
    whole = quasi_newton(*task, max_iterations=8, watch=seen.append)
    keep(tmp_path / "state.npz", seen[3].state)
    rest = quasi_newton(*task, max_iterations=8, state=kept(tmp_path / "state.npz"))
    assert rest.numbers.equal(whole.numbers)
    assert (rest.train, rest.validation) == (whole.train, whole.validation)
    assert [one.train for one in seen] == sorted((one.train for one in seen), reverse=True)


def test_steps_that_leave_the_finite_numbers_are_not_taken():
    """There is no plan beyond u = 1.02, and the loss falls towards it."""
    plan, some = base(2), pairs(16, 1)

    def build(u):
        factor, end = u[0] if u[0] < 1.02 else u[0] * math.inf, plan.rows[-1]
        terms = [{k: c * factor for k, c in group.items()} for group in (end.x, end.d, end.z)]
        return replace(plan, rows=(*plan.rows[:-1], type(end)(end.kind, end.t, *terms)))

    towards = Loss("towards", lambda states, times, part: 10 - states[-1].abs())
    family = Family("factor", build, torch.ones(1).double(), ("factor",))
    some = replace(some, starts=some.starts.abs() + 1)
    fit = quasi_newton(family, DATA.denoiser(SCHEDULE), towards, some, some)
    assert 1.005 < float(fit.numbers) < 1.02


def test_a_loss_that_is_never_finite_is_said():
    never = Loss("never", lambda states, times, part: states[-1] * math.inf)
    family, some = table(base(1), SCHEDULE), pairs(16, 1)
    fit = quasi_newton(family, DATA.denoiser(SCHEDULE), never, some, some)
    assert fit.stopped == "not finite"
    assert fit.iterations == 0
    assert fit.numbers.equal(family.start)
