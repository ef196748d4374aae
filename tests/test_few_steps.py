"""The default in few steps: one table for every schedule, which shifts with the data."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from enumeration import SCHEDULES

import sde_diffusion as sd
from benchmarks import few_steps
from sde_diffusion.few_steps import tables
from sde_diffusion.grid import time_of_rho

CALLS = sorted(tables())
FLOW = sd.FlowMatching()


def in_the_angle(schedule, calls):
    """The rows of the plan from sigma/alpha = 79, in y = x/hypot(alpha, sigma)."""
    plan = sd.default_plan(schedule, calls, time_of_rho(schedule, 79.0))
    assert plan.name == f"few_steps({calls})"
    r = [math.hypot(*map(float, schedule(t))) for t in (*plan.asked_at, schedule.t_min)]
    table = torch.as_tensor(plan.matrix()).double().numpy().copy()[: calls + 1, : calls + 1]
    table[:, 0] *= r[0]
    return table / np.array(r)[:, None]


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("name", ["cosine", "subvp", "edm", "flow", "shifted", "table"])
def test_one_table_for_every_schedule(name, calls):
    found, wanted = (in_the_angle(SCHEDULES[s], calls) for s in (name, "vp"))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("calls", CALLS)
def test_shifted_data_gives_shifted_samples(calls):
    """x_T + alpha_T c and D(x - alpha c) + c give the sample + c, for every c, whatever alpha_T."""
    for t_start in (1.0, 1.0 - 1e-2):  # alpha = 0, and sigma/alpha = 99
        plan = sd.default_plan(FLOW, calls, t_start)
        assert plan.name == f"few_steps({calls})"
        for row, t in zip(plan.matrix(), (*plan.asked_at, 0.0), strict=True):
            alpha = float(FLOW.alpha(t))
            moved = float(row[0]) * (1 - t_start) + float(sum(row[1 : calls + 1]))
            assert moved == pytest.approx(alpha, abs=1e-12)


@pytest.mark.parametrize("calls", CALLS)
def test_it_is_nearer_than_adams_on_data_that_no_table_was_fitted_to(calls):
    """Seed fixed; the tables have at most 0.75 of the median error on these three laws."""
    schedule = sd.EDM()
    for problem in (sd.problems.ring(), sd.problems.ring(5, 8, 1.2, 0.3), _uneven()):
        x = problem.sample_marginal(128, *schedule(80.0), torch.Generator().manual_seed(1))
        exact = problem.endpoint(x, schedule, 80.0, 0.0)
        plain = sd.SOLVERS["angular"](schedule, sd.times.default(schedule, calls, 80.0))
        errors = [
            float((sd.run(plan, problem.denoiser(schedule), x) - exact).norm(dim=1).median())
            for plan in (sd.default_plan(schedule, calls, 80.0), plain)
        ]
        assert errors[0] < 0.75 * errors[1]


def test_elsewhere_it_is_angular_on_its_grid():
    """Other numbers of steps, a start with signal, an end with noise."""
    vp = sd.VPLinear()
    for steps, ends in ((3, ()), (max(CALLS) + 1, ()), (20, ()), (5, (0.5,)), (5, (1.0, 0.01))):
        plan = sd.SOLVERS["angular"](vp, sd.times.default(vp, steps, *ends))
        assert sd.default_plan(vp, steps, *ends).equals(plan)


def test_sample_takes_it_only_where_nothing_else_is_asked_for():
    denoiser = sd.problems.ring().denoiser(sd.VPLinear())
    ask = lambda **options: sd.sample(denoiser, (4, 2), seed=0, dtype=torch.float64, **options)
    found = ask(steps=5)
    assert torch.equal(found, ask(solver=sd.default_plan(sd.VPLinear(), 5)))
    adams = ask(steps=5, solver="angular")
    assert not torch.allclose(found, adams)
    assert torch.equal(adams, ask(times=sd.times.default(sd.VPLinear(), 5)))
    assert torch.equal(ask(steps=5, order=2), ask(steps=5, solver="angular", order=2))
    spared = sd.transform.analytic_first_step(sd.default_plan(sd.VPLinear(), 5), sd.VPLinear())
    assert torch.equal(ask(steps=5, analytic_first_step=True), ask(solver=spared))


def test_the_fit_sees_the_plan_that_the_library_runs():
    """The script's states of a table are those of the plan; its steps go down."""
    problems = few_steps.family(3, problems=4)
    usual = few_steps.adams(4)
    (table,) = few_steps._kept(Path(sd.few_steps.__file__).with_name("few_steps.json"), 4)
    found = table.states(problems)
    for p, theta in enumerate(problems.theta.flatten().tolist()):
        plan = sd.default_plan(FLOW, 4, time_of_rho(FLOW, math.tan(theta)))
        r = math.hypot(*map(float, FLOW(plan.asked_at[0])))

        def denoised(x, t, p=p):
            alpha, sigma = map(float, FLOW(t))
            y = (x / math.hypot(alpha, sigma)).expand(4, *x.shape)
            angle = torch.full((4, 1, 1), math.atan2(sigma, alpha), dtype=torch.float64)
            return problems.denoised(y, angle)[p]

        torch.testing.assert_close(sd.run(plan, denoised, problems.start[p] * r), found[p])
    before, after = (few_steps.fit(problems, usual, steps)[1] for steps in (0, 3))
    assert after < 0.9 * before


def test_a_table_grows_by_a_call_whose_output_repeats_its_neighbours():
    """Halves of one weight: while the new output equals the one before it, nothing changes."""
    table = few_steps.adams(4)
    for at in (1, 2, 3):
        more = few_steps.grown(table, at)
        merged = torch.cat(
            [more.b[:, :at], more.b[:, [at, at + 1]].sum(1, True), more.b[:, at + 2 :]], 1
        )
        torch.testing.assert_close(torch.cat([merged[: at + 1], merged[at + 2 :]]), table.b)
        kept = torch.cat([more.fractions[: at + 1], more.fractions[at + 2 :]])
        torch.testing.assert_close(kept, table.fractions)
        ends = torch.cat([more.fractions, torch.zeros(1)])
        assert bool((ends.diff() < 0).all())


def test_bad_steps_and_ends_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        sd.default_plan(FLOW, 0)
    with pytest.raises(TypeError, match="integer"):
        sd.default_plan(FLOW, 4.0)
    with pytest.raises(ValueError, match="strictly"):
        sd.default_plan(FLOW, 4, 0.5, 0.6)


def _uneven():
    """5 unequal modes of unequal widths in 6 dimensions, off centre."""
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(5, 6, generator=generator, dtype=torch.float64) + 0.5
    widths = 0.02 + 0.4 * torch.rand(5, 6, generator=generator, dtype=torch.float64) ** 2
    return sd.problems.GaussianMixture([0.4, 0.25, 0.2, 0.1, 0.05], means, widths)
