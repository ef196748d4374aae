"""Sampling in parallel: sweeps over a plan's rows end in what a run gives, row after row."""

import pytest
import torch
from enumeration import every_solver, smooth_grid
from models import DOUBLE, PROBLEM, VP

import sde_diffusion as sd
from sde_diffusion.parallel import METHODS, run_parallel

SWEEPS = ("picard", "anderson", "secant")
DENOISER = PROBLEM.denoiser(VP)
NEVER = 1e-300  # a tolerance that only a state which does not move at all meets


def starts(n=2, schedule=VP, seed=0):
    x = torch.randn(
        n, *PROBLEM.event_shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE
    )
    return x * float(schedule.sigma(schedule.t_max))


def errors(found, right):
    """Of each sample: RMS of the difference over RMS of what is right."""
    norm = lambda y: torch.linalg.vector_norm(y.flatten(1), dim=1)
    return norm(found - right) / norm(right)


class Spy(sd.Denoiser):
    """A denoiser that keeps what it was asked, call by call."""

    def __init__(self, inner=DENOISER):
        self.inner, self.schedule, self.asked = inner, inner.schedule, []

    def __call__(self, x, t):
        self.asked.append((x.clone(), torch.as_tensor(t, dtype=DOUBLE).expand(len(x)).clone()))
        return self.inner(x, t)


@pytest.mark.parametrize(("name", "options"), every_solver())
def test_the_limit_is_the_sequential_result_and_k_rounds_make_k_states_exact(name, options):
    plan = sd.SOLVERS[name](VP, smooth_grid(VP, 6), **options)
    x, noise = starts(), [1, 2]
    sequential = Spy()
    right = sd.run(plan, sequential, x, noise=noise)
    for method in METHODS:
        spy = Spy()
        found = run_parallel(plan, spy, x, noise=noise, method=method, tolerance=NEVER)
        torch.testing.assert_close(found.x, right, rtol=1e-10, atol=1e-10)
        assert found.converged.all()
        if method == "parareal":  # has blocks of rows that are exact together
            continue
        assert found.rounds <= plan.nfe
        for k, (exact, t) in enumerate(sequential.asked[: found.rounds]):
            there = torch.cat([y[u == t[0]] for y, u in spy.asked[: k + 1]])
            assert torch.cdist(exact, there).amin(1).max() < 1e-10, (method, k)


@pytest.mark.parametrize("schedule", [VP, sd.EDM(), sd.FlowMatching()], ids=repr)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddim", {}),
        ("ddim", {"eta": 1.0}),
        ("dpm_solver_pp_2m", {}),
        ("edm_heun", {}),
        ("sa_solver", {}),
        ("restart", {}),
    ],
)
def test_samples_are_within_the_tolerance_of_the_sequential_result(schedule, name, options):
    """The tolerance is for the last change, an estimate: held by secant, to 3 times by others."""
    grid = (sd.times.karras if isinstance(schedule, sd.EDM) else sd.times.uniform)(schedule, 30)
    plan = sd.SOLVERS[name](schedule, grid, **options)
    denoiser, x = PROBLEM.denoiser(schedule), starts(32, schedule)
    right = sd.run(plan, denoiser, x, noise=1)
    for tolerance in (1e-2, 1e-4):
        for method, factor in (("picard", 3), ("anderson", 3), ("secant", 1)):
            found = run_parallel(plan, denoiser, x, noise=1, method=method, tolerance=tolerance)
            assert errors(found.x, right).max() <= factor * tolerance, (method, tolerance)
            assert found.rounds < plan.nfe / 1.5
            assert len(found.residuals) == found.rounds


@pytest.mark.parametrize("method", SWEEPS)
@pytest.mark.parametrize("window", [None, 7])
def test_a_sample_does_not_depend_on_its_batch(method, window):
    plan = sd.SOLVERS["ddim"](VP, sd.times.uniform(VP, 30), eta=1.0)
    x = starts(6)
    options = {"method": method, "tolerance": 1e-2, "window": window}
    together = run_parallel(plan, DENOISER, x, noise=[*range(6)], **options)
    alone = [run_parallel(plan, DENOISER, x[i : i + 1], noise=[i], **options) for i in range(6)]
    torch.testing.assert_close(together.x, torch.cat([a.x for a in alone]), rtol=1e-9, atol=1e-9)
    assert together.sample_rounds.tolist() == [a.rounds for a in alone]
    assert together.evaluations == sum(a.evaluations for a in alone)
    assert together.rounds == max(a.rounds for a in alone)
    assert len(set(together.sample_rounds.tolist())) > 1  # or the test would not see a difference
