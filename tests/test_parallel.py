"""Sampling in parallel: sweeps over a plan's rows end in what a run gives, row after row."""

import pytest
import torch
from cases import each
from enumeration import every_solver_with, smooth_grid
from models import DOUBLE, PROBLEM, VP

import sde_diffusion as sd
from sde_diffusion.parallel import METHODS, run_parallel
from sde_diffusion.parallel.anderson import AndersonSweeps
from sde_diffusion.parallel.network import Network
from sde_diffusion.parallel.picard import Sweeps
from sde_diffusion.parallel.secant import SecantSweeps
from sde_diffusion.parallel.table import Table
from sde_diffusion.parallel.task import Task
from sde_diffusion.progress import Progress

SWEEPS = ("picard", "anderson", "secant")
DENOISER = PROBLEM.denoiser(VP)
_EXACTLY = "donot_use_mm_for_euclid_dist"  # products of matrices round to 1e-8
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


FULLY = ("ddim", "adams", "heun", "unipc", "sa_solver", "restart")


@each(("name", "options", "method"), every_solver_with([*METHODS], FULLY))
def test_the_limit_is_the_sequential_result_and_k_rounds_make_k_states_exact(name, options, method):
    """Every plan with one method in turn; a plan of each kind with all of them."""
    plan = sd.SOLVERS[name](VP, smooth_grid(VP, 6), **options)
    x, noise = starts(), [1, 2]
    sequential = Spy()
    right = sd.run(plan, sequential, x, noise=noise)
    spy = Spy()
    found = run_parallel(plan, spy, x, noise=noise, method=method, tolerance=NEVER)
    torch.testing.assert_close(found.x, right, rtol=1e-10, atol=1e-10)
    assert found.converged.all()
    if method == "parareal":  # has blocks of rows that are exact together
        return
    assert found.rounds <= plan.nfe
    for k, (exact, t) in enumerate(sequential.asked[: found.rounds]):
        there = torch.cat([y[u == t[0]] for y, u in spy.asked[: k + 1]])
        nearest = torch.cdist(exact, there, compute_mode=_EXACTLY).amin(1)
        assert nearest.max() < 1e-10, k


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


@pytest.mark.parametrize(("name", "options"), [("ddim", {"eta": 1.0}), ("unipc", {}), ("rk4", {})])
def test_a_linear_denoiser_takes_secants_three_rounds(name, options):
    """Two answers make the Jacobian known: of a multiple of the identity, or of one number."""
    for event, variance in (((5,), 0.3), ((1,), 2.0)):
        denoiser = sd.problems.Gaussian(torch.full(event, 0.4), variance).denoiser(VP)
        plan = sd.SOLVERS[name](VP, smooth_grid(VP, 25), **options)
        x = torch.randn(4, *event, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
        found = run_parallel(plan, denoiser, x, noise=1, method="secant", tolerance=1e-9)
        torch.testing.assert_close(found.x, sd.run(plan, denoiser, x, noise=1))
        assert found.rounds == 3


def test_a_secant_agrees_with_the_last_two_answers_and_is_symmetric():
    torch.manual_seed(0)
    sweeps = sweeps_of(SecantSweeps, 2)
    sweeps.seen[0] = True
    both = torch.arange(2)
    v, d, w, e = (torch.randn(2, 5, dtype=DOUBLE) for _ in range(4))
    sweeps.asked[0], sweeps.answers[0] = v.clone(), d.clone()
    sweeps.learn(0, both, w, e)
    torch.testing.assert_close(sweeps.answer(0, w), e)
    torch.testing.assert_close(sweeps.answer(0, v), d)
    basis = torch.eye(5, dtype=DOUBLE)
    columns = [sweeps.answer(0, w + one) - e for one in basis]
    jacobian = torch.stack(columns, -1)
    torch.testing.assert_close(jacobian, jacobian.mT)


def test_anderson_leaves_the_least_residual_in_the_rows_up_to_each(monkeypatch):
    checked = []
    inner = AndersonSweeps._least_squares

    def check(self, rows):
        found = inner(self, rows)
        for b in range(self.batch):
            for i, row in enumerate(rows):
                upto = [j for j in rows if self.front[b] <= j <= row and self.seen[j, b]]
                if row <= self.front[b] or any(len(self.differences[j]) < 2 for j in upto):
                    continue
                steps = [torch.stack([r[b] for _, r in self.differences[j]], -1) for j in upto]
                residuals = torch.cat([self.last[j][1][b] for j in upto])
                best = torch.linalg.lstsq(torch.cat(steps), residuals).solution
                left = residuals - torch.cat(steps) @ found[i, b]
                least = residuals - torch.cat(steps) @ best
                assert left.norm() <= 1.001 * least.norm() + 1e-12
                checked.append(row)
        return found

    monkeypatch.setattr(AndersonSweeps, "_least_squares", check)
    plan = sd.SOLVERS["ddim"](VP, sd.times.uniform(VP, 30))
    run_parallel(plan, DENOISER, starts(), method="anderson", tolerance=1e-4)
    assert len(checked) > 30


def test_acceleration_saves_rounds():
    schedule = sd.EDM()
    plan = sd.SOLVERS["edm_heun"](schedule, sd.times.karras(schedule, 40))
    denoiser, x = PROBLEM.denoiser(schedule), starts(16, schedule)
    rounds = {
        method: run_parallel(plan, denoiser, x, method=method, tolerance=1e-2).sample_rounds.sum()
        for method in SWEEPS
    }
    assert rounds["anderson"] < 0.8 * rounds["picard"]
    assert rounds["secant"] < 0.6 * rounds["anderson"]


def test_a_window_bounds_the_memory():
    plan = sd.SOLVERS["unipc"](VP, sd.times.uniform(VP, 60))
    for kind in (Sweeps, SecantSweeps):
        sweeps = sweeps_of(kind, 5, plan)
        most, ask = [0], sweeps._ask

        def watched(*given, sweeps=sweeps, most=most, ask=ask):
            ask(*given)
            kept = [sweeps.asked, sweeps.answers, sweeps.table.values]
            most[0] = max(most[0], sum(map(len, kept)))

        sweeps._ask = watched
        sweeps.solve()
        assert 20 < most[0] < 60


def sweeps_of(kind, window, plan=None):
    """The sweeps of a method on the ring, two samples."""
    plan = plan or sd.SOLVERS["ddim"](VP, sd.times.uniform(VP, 5))
    x = starts()
    table, network = Table(plan, x, None), Network([DENOISER], plan.asked_at, None)
    return kind(Task(plan, x, table, network, 1e-3, plan.nfe, Progress(1.0, False)), window)
