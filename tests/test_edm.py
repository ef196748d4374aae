"""EDM's stochastic sampler and the ancestral ones: what they equal, and their exact laws."""

import math

import pytest
import torch
from enumeration import SCHEDULES, smooth_grid

import sde_diffusion as sd
from sde_diffusion.solvers import (
    ddim,
    dpm_2,
    dpm_2_ancestral,
    dpm_solver_pp_2s_ancestral,
    edm_euler,
    edm_heun,
    euler_ancestral,
    heun,
)

VP, EDM = sd.VPLinear(), sd.EDM()
ANCESTRAL = (euler_ancestral, dpm_2_ancestral, dpm_solver_pp_2s_ancestral)
CHURNED = (edm_euler, edm_heun, dpm_2)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_equalities(schedule):
    grid = sd.times.karras(schedule, 6, t_start=schedule.time_of(-3.5))
    assert edm_heun(schedule, grid).equals(heun(schedule, grid, variable="rho"))
    assert edm_euler(schedule, grid).equals(ddim(schedule, grid))
    assert dpm_2(schedule, grid).equals(dpm_2_ancestral(schedule, grid, eta=0.0))
    for eta in (0.0, 0.3, 1.0):
        assert euler_ancestral(schedule, grid, eta=eta).equals(ddim(schedule, grid, eta=eta))
    churned = edm_heun(schedule, grid, s_churn=1.0)
    assert not churned.equals(edm_heun(schedule, grid))
    assert churned.nfe == edm_heun(schedule, grid).nfe


def test_ancestral_plans_are_variance_exploding_ones_in_other_units():
    """The same levels of rho on VP and EDM: rows differ by the units of x alone."""
    levels = [9.0, 4.0, 1.5, 0.4, 0.1]
    for solver in (*ANCESTRAL, *CHURNED):
        options = {"s_churn": 1.5} if solver in CHURNED else {"eta": 0.7}
        vp, edm = (
            solver(s, [s.time_of(-math.log(r)) for r in levels], **options) for s in (VP, EDM)
        )
        scales = [VP.alpha(t) for t in (*vp.asked_at, vp.times[-1])]
        matrix = edm.matrix() * torch.tensor(scales, dtype=torch.float64)[:, None]
        matrix[:, 0] /= VP.alpha(vp.rows[0].t)
        torch.testing.assert_close(vp.matrix(), matrix, rtol=1e-9, atol=1e-12)


def test_churn_step_is_algorithm_2_by_hand():
    """One step of Karras et al., alpha = 1: coefficients on x, d_hat, d_s and z."""
    t, s, gamma, noise = 2.0, 0.5, 0.25, 1.007
    plan = edm_heun(EDM, [t, s], s_churn=gamma, s_tmin=0.5, s_tmax=3.0, s_noise=noise)
    t_hat = t * (1 + gamma)
    assert plan.asked_at == pytest.approx((t_hat, s))
    assert plan.noises == ((t, s),)
    half = (s - t_hat) / 2
    # x_hat = x + c z; x_e = x_hat + 2 half (x_hat - d)/t_hat; x_s = x_hat + half (slope + slope_s)
    euler_x, euler_d = 1 + 2 * half / t_hat, -2 * half / t_hat
    on_x = 1 + half * (1 / t_hat + euler_x / s)
    on_d = half * (-1 / t_hat + euler_d / s)
    on_z = noise * math.sqrt(t_hat**2 - t**2) * on_x
    expected = torch.tensor([on_x, on_d, -half / s, on_z], dtype=torch.float64)
    torch.testing.assert_close(plan.matrix()[-1], expected)


def test_churn_keeps_to_its_range_and_its_cap():
    grid = [5.0, 3.0, 1.0, 0.2, 0.0]
    plan = edm_euler(EDM, grid, s_churn=400.0, s_tmin=0.5, s_tmax=3.0)
    capped = (5.0, 3 * math.sqrt(2), math.sqrt(2), 0.2)
    assert plan.asked_at == pytest.approx(capped)
    assert plan.noises == ((3.0, 1.0), (1.0, 0.2))


@pytest.mark.parametrize("solver", [dpm_2_ancestral, dpm_solver_pp_2s_ancestral])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_trial_point_lies_inside_the_step_and_at_its_end_for_full_noise(solver, eta):
    plan = solver(VP, [0.8, 0.5], eta=eta)
    middle = plan.asked_at[1]
    down = sigma_down(VP.rho(0.8), VP.rho(0.5), eta)
    assert VP.rho(middle) == pytest.approx(math.sqrt(VP.rho(0.8) * down))
    assert (middle == pytest.approx(0.5)) == (eta == 1.0)


def sigma_down(rho_t, rho_s, eta):
    """k-diffusion's sigma_down, by its own formula."""
    up = eta * math.sqrt(rho_s**2 * (rho_t**2 - rho_s**2) / rho_t**2)
    return math.sqrt(rho_s**2 - up**2)


@pytest.mark.parametrize("schedule", [VP, EDM, sd.FlowMatching()], ids=repr)
@pytest.mark.parametrize(
    ("solver", "options", "order"),
    [
        (edm_heun, {"s_churn": 2.0}, 2),
        (edm_heun, {"s_churn": 2.0, "s_tmin": 0.3, "s_tmax": 3.0}, 2),
        (edm_heun, {"s_churn": 2.0, "s_noise": 1.05}, 0),
        (edm_euler, {"s_churn": 2.0}, 1),
        (dpm_2_ancestral, {}, 2),
        (dpm_2_ancestral, {"s_noise": 1.05}, 0),
        (dpm_solver_pp_2s_ancestral, {"eta": 0.5}, 2),
        (euler_ancestral, {}, 1),
    ],
)
def test_laws_are_of_the_order_of_the_ode_step(solver, options, order, schedule):
    """Exact law on Gaussian data; with noise that is too large it goes to a wrong one."""
    data = torch.tensor([0.3, 1.0], dtype=torch.float64)
    errors = []
    for n in (80, 160):
        grid = smooth_grid(schedule, n)
        mean, variance = solver(schedule, grid, **options).law(schedule, 0.7, data)
        alpha_s, sigma_s = schedule(float(grid[-1]))
        exact = alpha_s**2 * data + sigma_s**2
        gap = (variance / exact - 1).abs().max() + (mean - alpha_s * 0.7).abs().max()
        errors.append(float(gap))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_steps_from_pure_noise_and_to_clean_data_are_euler_steps():
    schedule = sd.FlowMatching()
    grid = sd.times.uniform(schedule, 5)
    assert euler_ancestral(schedule, grid).equals(ddim(schedule, grid, eta=1.0))
    for solver in (dpm_2_ancestral, dpm_solver_pp_2s_ancestral, edm_heun):
        options = {"s_churn": 2.0} if solver is edm_heun else {"eta": 0.5}
        plan = solver(schedule, grid, **options)
        assert plan.nfe == 5 + 3
        assert plan.rows[0].t == 1.0
        assert plan.rows[-1].d == {7: 1.0}
        assert not plan.rows[-1].z


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: edm_heun(EDM, [80.0, 1.0], s_churn=1.0), "s_tmax <= 56.5685"),
        (lambda: edm_heun(EDM, [8.0, 1.0], s_churn=-1.0), "s_churn = -1.0"),
        (lambda: dpm_2(EDM, [8.0, 1.0], s_tmin=2.0, s_tmax=1.0), "s_tmin <= s_tmax"),
        (lambda: edm_euler(EDM, [8.0, 1.0], s_noise=-1.0), "s_noise = -1.0"),
        (lambda: euler_ancestral(EDM, [8.0, 1.0], eta=1.1), r"\[0, 1\]"),
        (lambda: euler_ancestral(EDM, [8.0, 1.0], s_noise=-0.1), "negative"),
    ],
)
def test_bad_options_are_refused_with_a_cure(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_front_door_starts_a_churned_plan_at_the_level_of_its_grid():
    """The draw has sigma(t), not the raised one that the network is asked at first."""
    plan = edm_heun(EDM, [8.0, 1.0], s_churn=1.0)
    seen = []
    denoiser = sd.FunctionDenoiser(lambda x, t: seen.append((x.clone(), t)) or x * 0, EDM)
    sd.sample(denoiser, (20_000, 1), solver=plan, seed=0)
    x_hat, t_hat = seen[0]
    assert float(t_hat) == pytest.approx(8 * math.sqrt(2))
    # 4.5 standard deviations: false alarms below 1e-5
    assert float(x_hat.std()) == pytest.approx(8 * math.sqrt(2), rel=4.5 / math.sqrt(40_000))


@pytest.mark.parametrize("name", ["dpm_2_ancestral", "dpm_solver_pp_2s_ancestral"])
def test_one_ancestral_step_over_a_whole_schedule(name):
    """With eta = 1 the trial point lies at s, which rounding must not move off the schedule."""
    for schedule in (sd.VE(), sd.VE(1e-4, 700.0)):
        plan = sd.SOLVERS[name](schedule, [schedule.t_max, schedule.t_min])
        assert plan.asked_at[1] == pytest.approx(schedule.t_min, rel=1e-9)
