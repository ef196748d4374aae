"""Schedules against automatic differentiation, published closed forms and one another."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from strategies import (
    beta_maxs,
    beta_mins,
    betas,
    close,
    customs,
    edms,
    given,
    plain,
    scheduled_times,
    schedules,
    shapes,
    sub_vps,
    vp_cosines,
    vp_linears,
    zero_terminal,
)

from sde_diffusion.schedule import Schedule
from sde_diffusion.schedules import EDM, VE, FlowMatching, SubVP, VPCosine, VPLinear
from sde_diffusion.tabulated import Shifted, Tabulated, ZeroTerminalSNR, ddpm_linear

DOUBLE = torch.float64


def autograd(function, t):
    """d function/dt at a float t, by automatic differentiation, independent of the package."""
    u = torch.tensor(t, dtype=DOUBLE, requires_grad=True)
    value = function(u)
    if not value.requires_grad:
        return 0.0
    return float(torch.autograd.grad(value, u)[0])


# The coefficients of the SDE, from alpha and sigma alone


@given(scheduled_times())
def test_f_is_the_logarithmic_derivative_of_alpha(case):
    schedule, (t,) = case
    assert schedule.f(t) == close(autograd(lambda u: schedule.alpha(u).log(), t))


@given(scheduled_times())
def test_variance_obeys_its_differential_equation(case):
    """d(sigma^2)/dt = 2 f sigma^2 + g^2, Song et al. 2021, arXiv:2011.13456, eq. 33."""
    schedule, (t,) = case
    growth = autograd(lambda u: schedule.sigma(u) ** 2, t)
    drift = 2 * schedule.f(t) * schedule.sigma(t) ** 2
    assert growth == close(drift + schedule.g2(t), scale=drift)


@given(scheduled_times())
def test_g2_is_the_fall_of_half_log_snr(case):
    """g^2 = -2 sigma^2 dlambda/dt."""
    schedule, (t,) = case
    fall = autograd(lambda u: schedule.alpha(u).log() - schedule.sigma(u).log(), t)
    assert fall < 0
    assert schedule.g2(t) == close(-2 * schedule.sigma(t) ** 2 * fall)


@given(scheduled_times())
def test_derivatives_agree_with_automatic_differentiation(case):
    schedule, (t,) = case
    closed, general = schedule.derivatives(t), Schedule.derivatives(schedule, t)
    for i, function in enumerate((schedule.alpha, schedule.sigma)):
        assert closed[i] == close(autograd(function, t))
        assert general[i] == close(autograd(function, t))
    assert Schedule.f(schedule, t) == close(schedule.f(t))
    assert Schedule.g2(schedule, t) == close(schedule.g2(t))


@given(scheduled_times())
def test_half_log_snr_and_rho(case):
    schedule, (t,) = case
    alpha_t, sigma_t = schedule(t)
    assert schedule.half_log_snr(t) == close(math.log(alpha_t / sigma_t), scale=1)
    assert schedule.half_log_snr(t) == close(Schedule.half_log_snr(schedule, t), scale=1)
    assert schedule.rho(t) == close(sigma_t / alpha_t)


@given(scheduled_times(3))
def test_transition_kernels_compose(case):
    """alpha_{u|s} = alpha_{u|t} alpha_{t|s}, sigma_{u|s}^2 = sigma_{u|t}^2 + (..) sigma_{t|s}^2."""
    schedule, (s, t, u) = case
    for first in (s, schedule.t_min):
        (a_ts, s_ts), (a_ut, s_ut) = schedule.transition(first, t), schedule.transition(t, u)
        a_us, s_us = schedule.transition(first, u)
        assert a_us == close(a_ut * a_ts)
        assert s_us**2 == close(s_ut**2 + a_ut**2 * s_ts**2)


@given(scheduled_times(2))
def test_transition_kernel_carries_the_marginals(case):
    schedule, (s, t) = case
    for start, end in ((s, t), (s, schedule.t_max), (schedule.t_min, t)):
        (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule(start), schedule(end)
        alpha_ts, sigma_ts = schedule.transition(start, end)
        assert alpha_ts * alpha_s == close(alpha_t)
        assert sigma_ts**2 + alpha_ts**2 * sigma_s**2 == close(sigma_t**2)


def test_a_transition_over_no_time_is_the_identity():
    for schedule in (VPLinear(), FlowMatching(), EDM(), ddpm_linear()):
        assert schedule.transition(0.5, 0.5) == (1.0, 0.0)
        assert schedule.transition(0.0, 0.0) == (1.0, 0.0)


# Published closed forms, written out again


@given(st.floats(0.01, 0.99), beta_mins, beta_maxs)
def test_vp_and_sub_vp_as_published(t, beta_min, beta_max):
    """Song et al. 2021, arXiv:2011.13456, eq. 32-34."""
    vp, sub = VPLinear(beta_min, beta_max), SubVP(beta_min, beta_max)
    beta = beta_min + t * (beta_max - beta_min)
    integral = beta_min * t + (beta_max - beta_min) * t**2 / 2
    assert vp.alpha(t) == sub.alpha(t) == close(math.exp(-integral / 2))
    assert vp.sigma(t) ** 2 == close(1 - math.exp(-integral))
    assert sub.sigma(t) == close(1 - math.exp(-integral))
    assert vp.f(t) == sub.f(t) == close(-beta / 2)
    assert vp.g2(t) == close(beta)
    assert sub.g2(t) == close(beta * (1 - math.exp(-2 * integral)))
    # From (alpha, sigma) alone, the general rule gives the published g of sub-VP.
    assert Schedule.g2(sub, t) == close(beta * (1 - math.exp(-2 * integral)))


@given(st.floats(0.01, 0.99), st.floats(0.002, 0.1))
def test_cosine_as_published(t, s):
    """alphabar = f(t)/f(0), f = cos^2(...), Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17."""
    schedule = VPCosine(s)
    level = lambda u: math.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    assert schedule.alpha(t) ** 2 == close(level(t) / level(0))
    assert schedule.sigma(t) ** 2 == close(1 - level(t) / level(0), scale=1)


@given(st.floats(0.01, 0.99))
def test_flow_matching_as_published(t):
    flow = FlowMatching()
    assert flow(t) == (1 - t, t)
    assert flow.f(t) == close(-1 / (1 - t))
    assert flow.g2(t) == close(2 * t / (1 - t))
    assert Schedule.g2(flow, t) == close(2 * t / (1 - t))


@given(st.floats(0.01, 0.99), st.floats(0.002, 0.1), st.floats(4.0, 100.0))
def test_variance_exploding_as_published(t, low, high):
    ve, edm = VE(low, high), EDM(low, high)
    assert ve(t) == (1.0, close(low ** (1 - t) * high**t))
    assert ve.f(t) == edm.f(t) == 0.0
    assert ve.g2(t) == close(2 * ve.sigma(t) ** 2 * math.log(high / low))
    assert edm(t * high) == (1.0, t * high)
    assert edm.g2(t * high) == close(2 * t * high)


# The inverse of the half-log-SNR


@given(scheduled_times())
def test_time_of_inverts_half_log_snr(case):
    schedule, (t,) = case
    lambda_t = schedule.half_log_snr(t)
    assert schedule.time_of(lambda_t) == close(t, scale=schedule.t_max)
    assert Schedule._time_of(schedule, lambda_t) == close(t, scale=schedule.t_max)
    # In lambda too, the number that solvers step in.
    assert schedule.half_log_snr(schedule.time_of(lambda_t)) == close(lambda_t, scale=1)


@given(scheduled_times(3))
def test_gradient_of_time_of_is_that_of_the_inverse_function(case):
    schedule, times = case
    expected = [1 / autograd(schedule.half_log_snr, t) for t in times]
    lambdas = torch.tensor([schedule.half_log_snr(t) for t in times], dtype=DOUBLE)
    for time_of in (schedule.time_of, lambda v: Schedule._time_of(schedule, v)):
        leaf = lambdas.clone().requires_grad_()
        found = time_of(leaf)
        assert found.tolist() == close(times, scale=schedule.t_max)
        (gradient,) = torch.autograd.grad(found.sum(), leaf)
        assert gradient.tolist() == close(expected, rel=1e-7)


@given(scheduled_times())
def test_second_derivatives_flow_through_f_and_g2(case):
    """A time that carries a gradient carries it through f and g^2: central differences agree."""
    schedule, (t,) = case
    assume(not _near_a_knot(schedule, t))
    step = 1e-6 * (schedule.t_max - schedule.t_min)
    for function in (schedule.f, schedule.g2, schedule.half_log_snr, schedule.rho):
        central = (function(t + step) - function(t - step)) / (2 * step)
        found = autograd(lambda u, function=function: function(u) + 0.0 * u, t)
        size = abs(function(t)) / (schedule.t_max - schedule.t_min)
        assert found == pytest.approx(central, rel=1e-4, abs=1e-4 * size)


def _near_a_knot(schedule, t):
    """Whether a table's piecewise cubic may jump in its second derivative near t."""
    while isinstance(schedule, Shifted | ZeroTerminalSNR):
        schedule = schedule.base
    return isinstance(schedule, Tabulated) and abs((t * schedule.timesteps) % 1 - 0.5) > 0.45


# Floats, tensors, float32, batches

QUANTITIES = ("alpha", "sigma", "half_log_snr", "rho", "f", "g2")


@given(scheduled_times(3))
def test_float_and_tensor_answers_are_equal(case):
    schedule, times = case
    batch = torch.tensor(times, dtype=DOUBLE)
    for name in QUANTITIES:
        function = getattr(schedule, name)
        found = function(batch)
        assert found.dtype is DOUBLE
        assert found.shape == batch.shape
        assert found.tolist() == close([function(t) for t in times], rel=1e-11, scale=1e-2)
        assert all(isinstance(function(t), float) for t in times)
        assert float(function(batch[0])) == close(function(times[0]), rel=1e-11, scale=1e-2)
    for i, batched in enumerate(schedule.derivatives(batch)):
        expected = [schedule.derivatives(t)[i] for t in times]
        assert batched.tolist() == close(expected, rel=1e-11, scale=1e-2)
    lambdas = schedule.half_log_snr(batch)
    assert schedule.time_of(lambdas).tolist() == close(times, scale=schedule.t_max)
    found = torch.stack(schedule.transition(batch[:2], batch[1:])).T
    for s, t, pair in zip(times, times[1:], found.tolist(), strict=False):
        assert pair == close(list(schedule.transition(s, t)), rel=1e-10)


@given(scheduled_times(4, margin=0.05), shapes)
def test_float32_batches(case, shape):
    """float32 in, float32 out, in any shape, equal to float64 up to the rounding of t."""
    schedule, times = case
    count = math.prod(shape)
    wide = torch.tensor((times * count)[:count], dtype=torch.float32).reshape(shape)
    for name in QUANTITIES:
        function = getattr(schedule, name)
        found, exact = function(wide), function(wide.double())
        assert found.dtype is torch.float32
        assert found.shape == shape
        torch.testing.assert_close(found.double(), exact, rtol=2e-3, atol=1e-5)
    lambdas = schedule.half_log_snr(wide)
    found = schedule.time_of(lambdas)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, wide, rtol=1e-3, atol=1e-4 * schedule.t_max)


@given(schedules)
def test_zero_dimensional_numpy_and_integer_ends(schedule):
    for t in (schedule.t_min, schedule.t_max):
        expected = schedule(t)
        assert tuple(map(float, schedule(np.float64(t)))) == expected
        found = torch.stack([torch.as_tensor(c) for c in schedule(torch.tensor(t, dtype=DOUBLE))])
        assert found.tolist() == close(list(expected), rel=1e-12)


@given(customs)
def test_nothing_is_lost_in_inference_mode(schedule):
    """Derivatives are numbers, not gradients of the caller's graph: they hold in any mode."""
    shifted = Shifted(schedule, 2.0)
    t = schedule.t_min + 0.4 * (schedule.t_max - schedule.t_min)
    batch = torch.tensor([t, t], dtype=DOUBLE)
    outside = [(s.f(t), s.g2(t)) for s in (schedule, shifted)]
    with torch.inference_mode():
        inside = [(s.f(t), s.g2(t)) for s in (schedule, shifted)]
        batched = [(s.f(batch), s.g2(batch)) for s in (schedule, shifted)]
    with torch.no_grad():
        assert [(s.f(t), s.g2(t)) for s in (schedule, shifted)] == outside
    assert inside == outside
    for pair, expected in zip(batched, outside, strict=True):
        assert [float(v[1]) for v in pair] == close(list(expected))


# Exact ends

CLEAN_AT_ZERO = st.one_of(
    vp_linears,
    sub_vps,
    vp_cosines,
    edms,
    st.just(FlowMatching()),
    st.builds(Tabulated.from_betas, betas),
    zero_terminal,
)


@given(CLEAN_AT_ZERO, st.sampled_from([DOUBLE, torch.float32]), st.floats(0.2, 6.0))
def test_the_clean_end_is_exact(schedule, dtype, factor):
    for each in (schedule, Shifted(schedule, factor)):
        for t in (0.0, torch.tensor(0.0, dtype=dtype), torch.zeros(3, dtype=dtype)):
            alpha_t, sigma_t = (torch.as_tensor(c) for c in each(t))
            assert (sigma_t == 0).all()
            torch.testing.assert_close(alpha_t, torch.ones_like(alpha_t), rtol=1e-6, atol=0)
            assert (torch.as_tensor(each.half_log_snr(t)) == math.inf).all()
            assert (torch.as_tensor(each.rho(t)) == 0).all()
            found = torch.as_tensor(each.time_of(each.half_log_snr(t)))
            assert ((found >= 0) & (found < 1e-5)).all()


NOISE_AT_THE_END = st.one_of(
    st.just(FlowMatching()),
    zero_terminal,
    st.builds(VPCosine, st.floats(0.002, 0.1), st.just(1.0)),
    betas.map(lambda table: Tabulated.from_betas([*table, 1.0])),
)


@given(NOISE_AT_THE_END, st.sampled_from([DOUBLE, torch.float32]), st.floats(0.2, 6.0))
def test_the_noisy_end_is_exact(schedule, dtype, factor):
    for each in (schedule, Shifted(schedule, factor)):
        end = each.t_max
        for t in (end, torch.tensor(end, dtype=dtype), torch.full((9,), end, dtype=dtype)):
            alpha_t, sigma_t = (torch.as_tensor(c) for c in each(t))
            if isinstance(t, torch.Tensor) and t.dtype is torch.float32 and t.max() != end:
                continue  # the end is no float32 number
            assert (alpha_t == 0).all()
            torch.testing.assert_close(sigma_t, torch.ones_like(sigma_t), rtol=1e-6, atol=0)
            assert (torch.as_tensor(each.half_log_snr(t)) == -math.inf).all()
            assert (torch.as_tensor(each.rho(t)) == math.inf).all()
            found = torch.as_tensor(each.time_of(each.half_log_snr(t)))
            torch.testing.assert_close(found, torch.full_like(found, end), rtol=1e-7, atol=0)


@given(st.one_of(schedules, st.builds(VPLinear, st.just(0.0), beta_maxs)))
def test_time_of_the_ends(schedule):
    """The ends' own lambdas give back the ends, without leaving [t_min, t_max]."""
    for t in (schedule.t_min, schedule.t_max):
        for lambda_t in (schedule.half_log_snr(t), Schedule.half_log_snr(schedule, t)):
            found = schedule.time_of(lambda_t)
            assert schedule.t_min <= found <= schedule.t_max
            assert found == close(t, rel=1e-7, scale=schedule.t_max)


@given(st.one_of(customs, zero_terminal, plain), st.sampled_from([DOUBLE, torch.float32]))
def test_tensors_round_trip_at_the_ends(schedule, dtype):
    times = torch.linspace(schedule.t_min, schedule.t_max, 5, dtype=dtype)
    assume(times.double().min() >= schedule.t_min and times.double().max() <= schedule.t_max)
    found = schedule.time_of(schedule.half_log_snr(times))
    torch.testing.assert_close(found, times, rtol=1e-3, atol=1e-4 * schedule.t_max)


@given(schedules, st.floats(0.1, 3.0))
def test_a_lambda_out_of_range_is_refused(schedule, excess):
    lowest, highest = (schedule.half_log_snr(t) for t in (schedule.t_max, schedule.t_min))
    for lambda_ in (lowest - excess, highest + excess, math.nan):
        if math.isinf(lambda_):
            continue
        with pytest.raises(ValueError, match="ask for a lambda inside"):
            schedule.time_of(lambda_)
        with pytest.raises(ValueError, match="ask for a lambda inside"):
            schedule.time_of(torch.tensor([lambda_], dtype=DOUBLE))
