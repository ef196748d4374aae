"""The family in which a deterministic sampler's whole table is free."""

import math

import pytest
import torch
from cases import each
from enumeration import SCHEDULES, every_solver, smooth_grid

import sde_diffusion as sd
from sde_diffusion.tuning.sensitivity import differentiate
from sde_diffusion.tuning.table import table


@each(("name", "options"), every_solver())
def test_the_start_is_the_sampler_it_began_with(name, options):
    """Every deterministic solver is in its own family; a stochastic one is refused."""
    schedule = SCHEDULES["vp"]
    plan = sd.SOLVERS[name](schedule, smooth_grid(schedule, 8), **options)
    if plan.stochastic:
        with pytest.raises(ValueError, match="draws noise"):
            table(plan, schedule)
        return
    for choice in ({}, {"times": False}, {"first_call": False}):
        family = table(plan, schedule, **choice)
        assert family.plan().equals(plan)
        assert family.plan().nfe == plan.nfe
    n = plan.nfe
    assert len(table(plan, schedule).start) == (n + 1) + n * (n + 1) // 2 + n


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_numbers_know_nothing_of_the_schedule(schedule):
    """The numbers of one sampler are the same on every schedule, where it is the same map."""

    def numbers(of):
        plan = sd.SOLVERS["angular"](of, smooth_grid(of, 4), order=2)
        return table(plan, of)

    here, there = numbers(schedule), numbers(sd.EDM())
    torch.testing.assert_close(here.start, there.start, rtol=1e-6, atol=1e-8)
    assert here.plan(there.start).equals(here.plan(), 1e-6)


def test_what_is_free_is_named():
    schedule = sd.EDM()
    spared = sd.transform.analytic_first_step(
        sd.SOLVERS["angular"](schedule, sd.times.default(schedule, 3)), schedule
    )
    assert table(spared, schedule).names == ("a0", "l0", "a1", "b1,0", "l1", "a2", "b2,0", "b2,1")
    assert table(spared, schedule, times=False).names == ("a0", "a1", "b1,0", "a2", "b2,0", "b2,1")
    ddim = sd.SOLVERS["ddim"](schedule, [80.0, 1.0, 0.0])
    held = table(ddim, schedule, first_call=False)
    assert held.names == ("a1", "b1,0", "l1", "a2", "b2,0", "b2,1")
    assert held.plan(held.start + 0.1).asked_at[0] == 80.0
    assert table(ddim, schedule).names[:2] == ("a0", "l0")
    plan = table(ddim, schedule).plan()
    assert plan.name == f"table({ddim.name})"
    assert table(plan, schedule).plan().name == plan.name


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_derivatives_of_the_table(schedule):
    """Of every entry in every number, against a difference quotient."""
    plan = sd.SOLVERS["angular"](schedule, smooth_grid(schedule, 3))
    family = table(plan, schedule)
    found = differentiate(family, family.start)
    entries = lambda plan: torch.tensor(
        [
            plan.rows[i].t if symbol == ("t", 0) else getattr(plan.rows[i], symbol[0])[symbol[1]]
            for i, symbol in found.entries
        ],
        dtype=torch.float64,
    )
    assert len(found.entries) == len(family.start)
    for p, basis in enumerate(torch.eye(len(family.start), dtype=torch.float64)):
        step = 1e-5 * basis
        ahead, behind = (entries(family.plan(family.start + s)) for s in (step, -step))
        torch.testing.assert_close(found.rates[:, p], (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-5)


def test_calls_stay_between_the_ends_of_the_range():
    schedule = sd.EDM()
    family = table(sd.SOLVERS["ddim"](schedule, [80.0, 1.0, 0.0]), schedule)
    numbers = family.start.clone()
    numbers[family.names.index("l0")], numbers[family.names.index("l1")] = 20.0, -20.0
    asked = family.plan(numbers).asked_at
    assert asked == pytest.approx((schedule.t_max, schedule.t_clean), rel=1e-12)


def test_a_fitted_plan_is_a_plan(tmp_path):
    """It saves, loads, runs by the front door and is refused for another schedule."""
    schedule = sd.VPLinear()
    spared = sd.transform.analytic_first_step(
        sd.SOLVERS["angular"](schedule, sd.times.default(schedule, 4)), schedule
    )
    family = table(spared, schedule)
    plan = family.plan(family.start + 0.01)
    plan.save(tmp_path / "plan.json")
    assert sd.Plan.load(tmp_path / "plan.json") == plan
    denoiser = sd.problems.ring().denoiser(schedule)
    x = sd.sample(denoiser, (4, 2), solver=plan, seed=0)
    assert x.shape == (4, 2)
    assert sd.run(plan, denoiser, torch.randn(4, 2)).dtype == torch.float32
    with pytest.raises(ValueError, match="was made for VPLinear"):
        plan.check_schedule(sd.EDM())
    assert len(sd.record(plan, denoiser, x).states) == 5


def test_bad_input_is_refused():
    flow = sd.FlowMatching()
    plan = sd.SOLVERS["ddim"](flow, [1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="asks at t = 1, where sigma/alpha is inf"):
        table(plan, flow)
    assert math.isfinite(table(plan, flow, first_call=False).start.sum())
    with pytest.raises(ValueError, match="was made for FlowMatching"):
        table(plan, sd.EDM())
