"""t(lambda) of many lambdas at once, searched among the floats, against one by one."""

import math

import torch
from hypothesis import strategies as st
from strategies import customs, given, plain, schedules, zero_terminal

from sde_diffusion.schedule import FEW, Schedule
from sde_diffusion.schedules import FlowMatching, VPLinear
from sde_diffusion.tabulated import ZeroTerminalSNR

DOUBLE = torch.float64


@given(
    st.one_of(customs, zero_terminal, plain, schedules),
    st.lists(st.floats(0.0, 1.0), min_size=FEW + 1, max_size=12),
)
def test_many_are_the_same_as_one_by_one(schedule, places):
    lowest, highest = (
        float(schedule.half_log_snr(schedule.t_min + part * (schedule.t_max - schedule.t_min)))
        for part in (0.999, 1e-6)
    )
    lambda_ = lowest + (highest - lowest) * torch.tensor(places, dtype=DOUBLE)
    many = Schedule._time_of(schedule, lambda_)
    one = torch.tensor([schedule._bracket(float(v)) for v in lambda_], dtype=DOUBLE)
    # Equal to rounding, of t or of lambda, whose slope may magnify that of lambda.
    back = torch.as_tensor(schedule.half_log_snr(many))
    gap = (back - torch.as_tensor(schedule.half_log_snr(one))).abs()
    rounding = 1e-13 * (1 + lambda_.abs())
    assert bool((((many - one).abs() <= 4e-15 * one.abs()) | (gap <= rounding)).all())
    order = lambda_.argsort()
    assert bool((many[order].diff() <= 0).all())


def test_many_near_the_clean_end_keep_their_digits():
    """lambda up to 60: t is below 1e-25 on the line, and its relative accuracy that of one."""
    lambda_ = torch.linspace(5.0, 60.0, 2 * FEW, dtype=DOUBLE)
    for schedule in (FlowMatching(), ZeroTerminalSNR(VPLinear())):
        many = torch.as_tensor(Schedule._time_of(schedule, lambda_))
        back = torch.as_tensor(schedule.half_log_snr(many))
        torch.testing.assert_close(back, lambda_, rtol=1e-14, atol=1e-14)
    line = torch.as_tensor(Schedule._time_of(FlowMatching(), lambda_))
    torch.testing.assert_close(line, 1 / (1 + torch.exp(lambda_)), rtol=1e-13, atol=0)


@given(zero_terminal)
def test_many_at_the_ends(schedule):
    ends = torch.tensor([math.inf, -math.inf] * FEW, dtype=DOUBLE)
    t = torch.as_tensor(schedule.time_of(ends))
    assert t.tolist() == [schedule.t_min, schedule.t_max] * FEW


@given(zero_terminal, st.floats(-3.0, 3.0))
def test_gradient_of_many_is_that_of_the_inverse_function(schedule, lowest):
    lambda_ = torch.linspace(lowest, lowest + 1, 2 * FEW, dtype=DOUBLE).requires_grad_()
    t = torch.as_tensor(schedule.time_of(lambda_))
    (slope,) = torch.autograd.grad(t.sum(), lambda_)
    u = t.detach().requires_grad_()
    (back,) = torch.autograd.grad(torch.as_tensor(schedule.half_log_snr(u)).sum(), u)
    torch.testing.assert_close(slope * back, torch.ones_like(t))
