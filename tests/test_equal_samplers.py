"""Samplers that are one another, and what no table of theirs may depend on."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import strategies as st
from strategies import (
    coefficients,
    given,
    grids,
    plain,
    scheduled_grids,
    schedules,
    variance_preserving,
)

from sde_diffusion.schedule import CustomSchedule
from sde_diffusion.schedules import FlowMatching, VPCosine, VPLinear
from sde_diffusion.solvers import ddim, ddpm, dpm_solver_1, dpm_solver_pp_2m, euler

DOUBLE = torch.float64
etas = st.floats(0.0, 1.0)


def close(value, rel=1e-9, floor=1e-12):
    return pytest.approx(value, rel=rel, abs=floor)


@given(scheduled_grids(noisy_end=False))
def test_ddim_dpm_solver_1_and_euler_in_rho_are_one_sampler(case):
    schedule, times = case
    plan = ddim(schedule, times)
    assert not plan.stochastic
    assert plan.equals(dpm_solver_1(schedule, times))
    assert plan.equals(euler(schedule, times, variable="rho"))


@given(scheduled_grids())
def test_ddim_with_all_its_noise_is_ancestral_sampling(case):
    schedule, times = case
    plan = ddim(schedule, times, eta=1.0)
    assert plan.equals(ddpm(schedule, times, variance="posterior"))
    if len(times) > 2:
        assert not plan.equals(ddim(schedule, times, eta=0.5))


@given(grids(FlowMatching(), noisy_end=True))
def test_euler_on_the_flow_matching_ode_is_ddim(times):
    """From alpha = 0 at t = 1, and to sigma = 0 where the grid ends there."""
    assert euler(FlowMatching(), times, variable="t").equals(ddim(FlowMatching(), times))


@given(scheduled_grids(of=variance_preserving))
def test_variance_preserving_ddim_is_a_rotation(case):
    """x_s = cos(delta) x_t - sin(delta) v, with v = alpha eps - sigma x_0."""
    schedule, times = case
    plan = ddim(schedule, times)
    for step, (t, s) in enumerate(pairwise(times)):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        delta = math.atan2(sigma_t, alpha_t) - math.atan2(sigma_s, alpha_s)
        on_x, on_d, _ = coefficients(plan, step)
        # d = alpha x - sigma v
        assert on_x + on_d * alpha_t == close(math.cos(delta))
        assert -on_d * sigma_t == close(-math.sin(delta))


IN_LAMBDA = {
    "ddim": ddim,
    "ddim-half": lambda schedule, times: ddim(schedule, times, eta=0.5),
    "ddpm": lambda schedule, times: ddpm(schedule, times, variance="posterior"),
    "dpm-solver-1": dpm_solver_1,
    "dpm-solver++2m": dpm_solver_pp_2m,
    "euler-rho": lambda schedule, times: euler(schedule, times, variable="rho"),
}


def assert_same_tables(found, expected):
    for line, other in zip(found, expected, strict=True):
        torch.testing.assert_close(line, other, rtol=1e-8, atol=1e-9 * float(other.abs().max()))


@pytest.mark.parametrize("sampler", IN_LAMBDA.values(), ids=IN_LAMBDA)
@given(
    st.one_of(st.builds(VPLinear), st.builds(VPCosine), st.just(FlowMatching())),
    st.data(),
    st.floats(0.3, 3.0),
    examples=12,
)
def test_tables_do_not_know_the_clock(sampler, schedule, data, power):
    """t = t_max u^power: the same noise levels, another clock, the same table."""
    times = data.draw(grids(schedule, noisy_end=False))
    end = schedule.t_max
    warped = CustomSchedule(
        lambda u: schedule.alpha(end * u**power), lambda u: schedule.sigma(end * u**power)
    )
    plan = sampler(warped, [(t / end) ** (1 / power) for t in times])
    assert_same_tables(plan.matrix(), sampler(schedule, times).matrix())


@pytest.mark.parametrize("sampler", IN_LAMBDA.values(), ids=IN_LAMBDA)
@given(
    st.one_of(st.builds(VPLinear), st.builds(VPCosine), st.just(FlowMatching())),
    st.data(),
    st.floats(-2.0, 2.0),
    examples=12,
)
def test_tables_only_scale_with_the_state(sampler, schedule, data, growth):
    """x' = e^(growth t) x: row i is multiplied by the scale at its time, x_T by its inverse."""
    times = data.draw(grids(schedule, noisy_end=False))
    scaled = CustomSchedule(
        lambda t: torch.exp(growth * t) * schedule.alpha(t),
        lambda t: torch.exp(growth * t) * schedule.sigma(t),
        t_max=schedule.t_max,
    )
    scale = torch.exp(growth * torch.tensor(times, dtype=DOUBLE))
    expected = scale[:, None] * sampler(schedule, times).matrix()
    expected[:, 0] /= scale[0]
    assert_same_tables(sampler(scaled, times).matrix(), expected)


@given(scheduled_grids(of=schedules), etas)
def test_a_point_of_data_keeps_its_marginals(case, eta):
    """On x_0 = c, mean alpha_t c and variance sigma_t^2 at the end of every DDIM(eta)."""
    schedule, times = case
    alpha_s, sigma_s = schedule(times[-1])
    mean, variance = ddim(schedule, times, eta=eta).law(schedule, 1.5, 0.0)
    assert float(mean) == close(1.5 * alpha_s, floor=1e-10)
    assert float(variance) == close(sigma_s**2)


@given(scheduled_grids(of=plain, noisy_end=False, clean_end=False))
def test_gradients_reach_the_times(case):
    """A plan traced over tensors has the same table; its gradient is the quotient."""
    schedule, times = case
    leaf = torch.tensor(times, dtype=DOUBLE, requires_grad=True)
    value = ddim(schedule, leaf).matrix()[-1, 0]
    assert float(value.detach()) == close(float(ddim(schedule, times).matrix()[-1, 0]))
    (gradient,) = torch.autograd.grad(value, leaf)
    step = 1e-6 * (times[0] - times[-1])
    moved = [
        float(ddim(schedule, [*times[:-1], times[-1] + e]).matrix()[-1, 0]) for e in (step, -step)
    ]
    quotient = (moved[0] - moved[1]) / (2 * step)
    assert float(gradient[-1]) == pytest.approx(quotient, rel=1e-4, abs=1e-6)
