"""Weak order 2 for the reverse SDE: equalities at the ends of tau, laws, the noise of a step."""

import math
from functools import cache

import pytest
import torch
from enumeration import SCHEDULES, smooth_grid

import sde_diffusion as sd
from sde_diffusion.solvers import (
    dpm_solver_pp_2s_ancestral,
    euler_maruyama,
    heun,
    midpoint,
    stochastic_heun,
    stochastic_midpoint,
)

BOTH = [stochastic_heun, stochastic_midpoint]


@cache
def law_error(solver, schedule, n, **options):
    data = torch.tensor([0.3, 1.0], dtype=torch.float64)
    grid = smooth_grid(schedule, n, -1.5, 1.5)
    mean, variance = solver(schedule, grid, **options).law(schedule, 0.7, data)
    alpha_s, sigma_s = schedule(float(grid[-1]))
    exact = alpha_s**2 * data + sigma_s**2
    return float((variance / exact - 1).abs().max() + (mean - alpha_s * 0.7).abs().max())


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_without_noise_they_are_the_methods_of_the_ode(schedule):
    grid = smooth_grid(schedule, 4)
    for variable in ("t", "rho"):
        for ours, theirs in ((stochastic_heun, heun), (stochastic_midpoint, midpoint)):
            plan = ours(schedule, grid, variable=variable, tau=0.0)
            assert plan.equals(theirs(schedule, grid, variable=variable))
            assert not plan.equals(ours(schedule, grid, variable=variable, tau=0.1))
    plan = stochastic_midpoint(schedule, grid, tau=0.0)
    assert plan.equals(dpm_solver_pp_2s_ancestral(schedule, grid, eta=0.0))


@pytest.mark.parametrize("schedule", [sd.VPLinear(), sd.EDM(), sd.FlowMatching()], ids=repr)
@pytest.mark.parametrize("variable", ["lambda", "rho", "t"])
@pytest.mark.parametrize("tau", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("solver", BOTH)
def test_law_is_of_order_two_at_least(solver, tau, variable, schedule):
    """And euler_maruyama, which has the law of order 1, is worse by far."""
    coarse, fine = (law_error(solver, schedule, n, variable=variable, tau=tau) for n in (50, 400))
    assert math.log2(coarse / fine) / 3 > 1.8
    assert fine < 0.1 * law_error(euler_maruyama, schedule, 400)


def test_one_draw_of_noise_a_step_or_one_each_half():
    schedule = sd.VPLinear()
    times = [0.9, 0.5, 0.2]
    assert stochastic_heun(schedule, times).noises == ((0.9, 0.5), (0.5, 0.2))
    for variable in ("lambda", "rho", "t"):
        plan = stochastic_midpoint(schedule, times, variable=variable)
        (_, u), (v, _), _, _ = plan.noises
        assert 0.5 < u < 0.9
        assert plan.noises == ((0.9, u), (u, 0.5), *plan.noises[2:])
        assert u == v == plan.asked_at[1]


@pytest.mark.parametrize("solver", BOTH)
def test_exact_noise_of_a_step_whatever_its_parts(solver):
    """In lambda and rho a step has the noise of the reverse SDE with d or eps held fixed."""
    schedule, tau = sd.VPLinear(), 0.8
    t, s = 0.9, 0.5
    h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
    exact = {
        "lambda": schedule.sigma(s) ** 2 * -math.expm1(-2 * tau**2 * h),
        "rho": (tau * schedule.sigma(s)) ** 2 * math.expm1(2 * h),
    }
    for variable, variance in exact.items():
        row = solver(schedule, [t, s], variable=variable, tau=tau).rows[-1]
        assert sum(c**2 for c in row.z.values()) == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("solver", BOTH)
def test_ends(solver):
    """To sigma = 0 the mean without noise; from alpha = 0 one step of order 1."""
    flow = sd.FlowMatching()
    plan = solver(flow, [1.0, 0.6, 0.3, 0.0])
    assert plan.nfe == 1 + 2 + 1
    assert plan.rows[-1].d == {3: 1.0}
    assert not plan.rows[-1].z
    for variable in ("rho", "t"):
        with pytest.raises(ValueError, match="alpha"):
            solver(flow, [1.0, 0.6, 0.3], variable=variable)


@pytest.mark.parametrize("solver", BOTH)
@pytest.mark.parametrize(
    ("options", "words"),
    [({"tau": -0.1}, "tau = -0.1"), ({"variable": "lamda"}, "did you mean 'lambda'")],
)
def test_bad_options_are_refused(solver, options, words):
    with pytest.raises(ValueError, match=words):
        solver(sd.VPLinear(), [0.9, 0.5], **options)
