"""Transformations of plans, and the solvers made of them: Restart and Richardson extrapolation."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from cases import each
from enumeration import SCHEDULES, every_solver, smooth_grid

import sde_diffusion as sd
from sde_diffusion.brownian import BrownianPath
from sde_diffusion.problems import Gaussian
from sde_diffusion.solvers import SOLVERS, ddim, heun, restart, richardson
from sde_diffusion.transform import analytic_first_step, denoise_at_end, on_schedule, replay

VP = sd.VPLinear()


@pytest.mark.parametrize("name", sd.SOLVERS)
def test_a_replayed_plan_is_the_plan(name):
    plan = sd.SOLVERS[name](VP, smooth_grid(VP, 5))
    trace = sd.Trace(plan.rows[0].t)
    x, outputs = replay(trace, trace.x, plan)
    again = trace.end(x, plan.rows[-1].t)
    assert again.rows == plan.rows
    assert again.noises == plan.noises
    assert len(outputs) == plan.nfe


@pytest.mark.parametrize("schedule", [VP, sd.EDM(), sd.FlowMatching()], ids=repr)
@each("name", sd.SOLVERS)
def test_analytic_first_step_changes_nothing_on_the_data_it_is_for(name, schedule):
    """On data N(0, v) the network would have said the same: the same result, one call less."""
    plan = sd.SOLVERS[name](schedule, smooth_grid(schedule, 5))
    spared = analytic_first_step(plan, schedule, variance=0.6)
    assert spared.nfe == plan.nfe - 1
    assert spared.times == plan.times
    denoiser = Gaussian([0.0], 0.6).denoiser(schedule)
    x = torch.randn(64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for other, agree in ((spared, True), (analytic_first_step(plan, schedule, 3.0), False)):
        a, b = (sd.run(p, denoiser, x, noise=1) for p in (plan, other))
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11) == agree


def test_analytic_first_step_runs_with_callbacks_gradients_and_the_front_door():
    plan = analytic_first_step(ddim(VP, [1.0, 0.6, 0.3, 0.0]), VP)
    seen = []
    denoiser = Gaussian([0.5], 0.2).denoiser(VP)
    x = torch.ones(2, 1, dtype=torch.float64)
    y = sd.run(plan, denoiser, x, callback=lambda point: seen.append((point.index, point.t)))
    assert seen == [(0, 1.0), (1, 0.6), (2, 0.3), (3, 0.0)]
    torch.testing.assert_close(sd.run(plan, denoiser, x, grad=True), y)
    assert sd.sample(denoiser, (2, 1), solver=plan, seed=0).shape == (2, 1)
    assert sd.record(plan, denoiser, x).states.shape == (4, 2, 1)


def test_a_state_that_equals_the_start_is_asked_for_at_its_own_time():
    """On a VP schedule N(0, 1) data stand still: the first step keeps x, and goes on in time."""
    schedule = sd.VPLinear()
    plan = sd.SOLVERS["angular"](schedule, sd.times.default(schedule, 3))
    spared = sd.transform.analytic_first_step(plan, schedule)
    assert spared.asked_at == plan.asked_at[1:]
    assert spared.nfe == plan.nfe - 1


def test_denoising_at_the_end_is_a_last_step_of_ddim():
    for schedule in (VP, sd.FlowMatching()):
        grid = [schedule.time_of(v) for v in (-2.0, 0.0, 1.0)]
        whole = ddim(schedule, [*grid, schedule.t_min])
        assert denoise_at_end(ddim(schedule, grid), schedule).equals(whole)
    noisy = sd.SOLVERS["euler_maruyama"](VP, [1.0, 0.5, 0.1])
    plan = denoise_at_end(noisy, VP)
    assert (plan.nfe, plan.times[-1]) == (noisy.nfe + 1, 0.0)
    denoiser = Gaussian([0.0], 1.0).denoiser(VP)
    assert torch.isfinite(sd.run(plan, denoiser, torch.ones(1, 1), noise=BrownianPath([0]))).all()


def test_the_front_door_takes_an_analytic_first_step():
    denoiser = Gaussian([0.0, 0.0], 0.6).denoiser(VP)
    draw = lambda **options: sd.sample(denoiser, (3, 2), steps=5, seed=1, **options)
    torch.testing.assert_close(draw(analytic_first_step=0.6), draw(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(draw(analytic_first_step=50.0), draw(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="chooses its own steps"):
        sd.sample(denoiser, (3, 2), solver="scipy", analytic_first_step=True, seed=1)


@each(("name", "options"), every_solver())
def test_a_plan_on_another_schedule_is_the_same_sampler(name, options):
    """Its exact law on Gaussian data, but for the scale of the states; and back again."""
    vp, flow = sd.VPLinear(), sd.FlowMatching()
    plan = sd.SOLVERS[name](vp, smooth_grid(vp, 7), **options)
    carried = on_schedule(plan, vp, flow)
    law, other = (p.law(s, 0.7, 0.3) for p, s in ((plan, vp), (carried, flow)))
    ratio = math.hypot(*flow(carried.times[-1])) / math.hypot(*vp(plan.times[-1]))
    torch.testing.assert_close(other[0], ratio * law[0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(other[1], ratio**2 * law[1], rtol=1e-8, atol=1e-8)
    assert on_schedule(carried, flow, vp).equals(plan, 1e-7)


def test_exact_ends_are_carried_to_exact_ends():
    flow, shifted = sd.FlowMatching(), SCHEDULES["shifted"]
    plan = dataclasses.replace(ddim(flow, sd.times.uniform(flow, 4)), origin={"label": "mine"})
    carried = on_schedule(plan, flow, shifted)
    assert (carried.times[0], carried.times[-1]) == (shifted.t_max, shifted.t_min)
    assert carried.equals(ddim(shifted, carried.times))
    assert carried.origin == {"label": "mine", "carried from": repr(flow)}
    carried.check_schedule(shifted)
    with pytest.raises(ValueError, match=r"sigma/alpha = inf .* cannot be had there"):
        on_schedule(plan, flow, sd.EDM())


@pytest.mark.parametrize("base", ["heun", "ddim", "res_3s", "dpm_solver_pp_2m"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_no_restarts_are_the_base(schedule, base):
    grid = smooth_grid(schedule, 5)
    plan = restart(schedule, grid, base, intervals=((0.3, 1.0, 0, 3),))
    assert plan.equals(sd.SOLVERS[base](schedule, grid))
    assert not restart(schedule, grid, base).equals(plan)


def test_restart_is_the_base_in_pieces_and_the_forward_process_between():
    """Law on a point: exact at every state. Calls: K more times those between the levels."""
    schedule = sd.EDM()
    grid = [schedule.time_of(v) for v in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    plan = restart(schedule, grid, "ddim", intervals=((0.2, 0.9, 3, 4), (0.15, 0.3, 1, None)))
    assert plan.nfe == 4 + 2 + 3 * 4 + 1
    assert list(plan.times) == grid
    assert plan.noises == ((0.2, 0.9),) * 3 + ((0.15, 0.3),)
    mean, variance = plan.law(schedule, 0.7, 0.0)
    assert float(mean) == pytest.approx(0.7, rel=1e-12)
    assert float(variance) == pytest.approx(float(grid[-1]) ** 2, rel=1e-9)
    x = torch.ones(2, 1, dtype=torch.float64)
    denoiser = Gaussian([0.0], 1.0).denoiser(schedule)
    assert torch.isfinite(sd.run(plan, denoiser, x, noise=BrownianPath([1, 2]))).all()


def test_restart_contracts_errors_that_came_before_it():
    """A start that is off by 10 ends nearer the law of the data, the more restarts the nearer."""
    schedule, far = sd.EDM(), (10.0, 1.0)
    misses = []
    for count in (0, 1, 4):
        plan = restart(schedule, smooth_grid(schedule, 40), intervals=((0.3, 5.0, count, 20),))
        mean, _ = plan.law(schedule, 0.0, 1.0, start=far)
        misses.append(abs(float(mean)))
    assert misses[0] > 2 * misses[1] > 4 * misses[2]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_richardson_on_even_steps_in_rho_is_two_fine_less_one_coarse(schedule):
    """ratio = 2 for order 1: 2 x_fine - x_coarse, and no more calls than DDIM."""
    grid = [schedule.time_of(-torch.tensor(rho).log().item()) for rho in (2.0, 1.6, 1.2)]
    plan = richardson(schedule, grid)
    assert plan.nfe == ddim(schedule, grid).nfe
    trace = sd.Trace(grid[0])
    fine, outputs = replay(trace, trace.x, ddim(schedule, grid))
    coarse, _ = replay(trace, trace.x, ddim(schedule, grid[::2]), given=outputs[:1])
    assert plan.equals(trace.end(2 * fine - coarse, grid[-1]), 1e-6)
    assert not plan.equals(ddim(schedule, grid), 1e-3)


def test_richardson_ends_at_zero_noise_and_leaves_an_odd_step_alone():
    schedule = sd.FlowMatching()
    odd = richardson(schedule, [0.9, 0.6, 0.3, 0.0])
    assert odd.nfe == 3
    assert list(odd.rows[-1].d.values()) == [1.0]
    assert richardson(schedule, [1.0, 0.0]).equals(ddim(schedule, [1.0, 0.0]))
    assert richardson(schedule, [1.0, 0.5, 0.0]).equals(ddim(schedule, [1.0, 0.5, 0.0]))


@pytest.mark.parametrize(
    ("base", "order"),
    [
        *(("dpm_solver_pp_2m", 2), ("deis", 3), ("adams", 3)),
        (partial(SOLVERS["adams"], order=2, prediction="velocity", variable="phi"), 2),
    ],
)
def test_richardson_raises_the_order_of_a_multistep_base_at_no_call(base, order):
    """On a smooth grid, from its own first steps: errors fall as h^(p + 1) at least."""
    problem = sd.problems.GaussianMixture([0.4, 0.6], [[-1.0, 0.3], [1.2, -0.5]], [0.3, 0.2])
    x = problem.sample_marginal(16, *VP(1.0), torch.Generator().manual_seed(0))
    end = problem.endpoint(x, VP, 1.0, 0.05)
    errors = []
    for steps in (80, 160):
        grid = sd.times.quadratic(VP, steps, t_end=0.05)
        plan = richardson(VP, grid, base=base, variable="lambda", order=order)
        assert plan.nfe == steps
        errors.append(float((sd.run(plan, problem.denoiser(VP), x) - end).norm()))
    assert math.log2(errors[0] / errors[1]) > order + 0.65


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g: restart(VP, g, intervals=((1.0, 0.3, 2, 3),)), "low < high"),
        (lambda g: restart(VP, g, intervals=((1e-3, 0.3, 2, 3),)), "yet to go"),
        (lambda g: restart(VP, g, intervals=((0.3, 1.0, -1, 3),)), "at least 0"),
        (lambda g: restart(VP, g, base="ddpm"), "draws noise"),
        (lambda g: restart(VP, g, base=partial(ddim, eta=1.0)), "draws noise"),
        (lambda g: restart(VP, g, base="huen"), "did you mean 'heun'"),
        (lambda g: richardson(VP, g, base="adams"), "on every second time, adams: order = 3 needs"),
        (lambda g: richardson(VP, g, base="unipc"), "has a corrector or more than one call"),
        (lambda g: richardson(VP, g, base=SOLVERS["heun"]), "order .of the base. = 0 must be"),
        (lambda g: richardson(VP, g, base="ddpm"), "draws noise"),
        (lambda g: analytic_first_step(heun(VP, g), VP, -1.0), "variance"),
        (lambda g: analytic_first_step(ddim(VP, g[:2]), VP), "leaves at least one"),
        (lambda g: analytic_first_step(ddim(VP, g), sd.EDM()), "was made for"),
        (lambda g: denoise_at_end(ddim(VP, [1.0, 0.0]), VP), "noise left"),
    ],
)
def test_bad_input_is_refused_with_a_cure(call, words):
    with pytest.raises(ValueError, match=words):
        call(smooth_grid(VP, 4).tolist())
