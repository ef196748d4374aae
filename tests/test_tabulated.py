"""Schedules from tables and from other schedules."""

import math

import pytest
import torch
from hypothesis import strategies as st
from strategies import (
    betas,
    close,
    given,
    plain,
    scheduled_times,
    slope,
    vp_linears,
    zero_terminal,
)

from sde_diffusion.schedules import EDM, VE, FlowMatching, VPCosine, VPLinear
from sde_diffusion.tabulated import Shifted, Tabulated, ddpm_linear

DOUBLE = torch.float64


@given(betas)
def test_a_table_is_hit_at_its_entries(table):
    schedule = Tabulated.from_betas(table)
    times = [i / len(table) for i in range(len(table) + 1)]
    level = 1.0
    levels = [level := level * (1 - beta) for beta in table]
    assert schedule.timesteps == len(table)
    expected = [1.0, *(math.sqrt(v) for v in levels)]
    noise = [0.0, *(math.sqrt(1 - v) for v in levels)]
    assert [schedule.alpha(t) for t in times] == close(expected, rel=1e-13)
    assert [schedule.sigma(t) for t in times] == close(noise, rel=1e-11)
    alphas, sigmas = schedule(torch.tensor(times, dtype=DOUBLE))
    assert alphas.tolist() == close(expected, rel=1e-13)
    assert sigmas.tolist() == close(noise, rel=1e-11)


@given(vp_linears, st.floats(0.1, 0.9))
def test_interpolation_error_falls_as_a_table_is_refined(schedule, place):
    """Tables of alphabar from the continuous schedule tend to it, faster than the spacing."""
    sizes, errors = [16, 32, 64, 128], []
    t = torch.linspace(0.05, 0.95, 601, dtype=DOUBLE)
    for n in sizes:
        bars = schedule.alpha(torch.arange(1, n + 1, dtype=DOUBLE) / n) ** 2
        table = Tabulated(bars)
        errors.append(float((table.alpha(t) - schedule.alpha(t)).abs().max()))
        assert float((table.sigma(t) ** 2 + table.alpha(t) ** 2 - 1).abs().max()) < 1e-12
    assert slope(sizes, errors) < -1.8  # monotone cubics: order 2 at least, 4 inside
    assert errors[-1] < 1e-4


def test_ddpm_of_the_paper_and_its_continuous_limit():
    """alphabar_1000 = 4.04e-5 against exp(-10.05) = 4.32e-5: sum of log(1 - beta) + beta."""
    table, limit = ddpm_linear(), VPLinear()
    steps = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    log_level = math.fsum(math.log1p(-beta) for beta in steps)
    assert 2 * math.log(table.alpha(1.0)) == close(log_level)
    assert limit.alpha(1.0) ** 2 == close(math.exp(-math.fsum(steps)))
    assert table.alpha(1.0) ** 2 == pytest.approx(4.04e-5, rel=2e-3)
    assert limit.alpha(1.0) ** 2 == pytest.approx(4.32e-5, rel=2e-3)


# Schedules from schedules


@given(st.floats(0.2, 6.0), st.floats(0.0, 1.0))
def test_shifted_flow_matching_is_the_published_timestep_shift(factor, t):
    """t' = factor t/(1 + (factor - 1) t), Esser et al. 2024, arXiv:2403.03206, eq. 23."""
    moved = factor * t / (1 + (factor - 1) * t)
    assert Shifted(FlowMatching(), factor)(t) == close((1 - moved, moved), rel=1e-12)


@given(scheduled_times(of=plain), st.floats(0.2, 6.0))
def test_a_shift_multiplies_the_noise_to_signal_ratio_and_keeps_the_family(case, factor):
    schedule, (t,) = case
    shifted = Shifted(schedule, factor)
    alpha_t, sigma_t = shifted(t)
    assert sigma_t / alpha_t == close(factor * schedule.rho(t))
    assert shifted.rho(t) == close(factor * schedule.rho(t))
    if isinstance(schedule, VE | EDM):
        assert alpha_t == close(1.0)
    elif isinstance(schedule, FlowMatching):
        assert alpha_t + sigma_t == close(1.0)
    elif isinstance(schedule, VPLinear | VPCosine | Tabulated):
        assert alpha_t**2 + sigma_t**2 == close(1.0)


@given(scheduled_times(of=plain), st.floats(0.3, 4.0), st.floats(0.3, 4.0))
def test_two_shifts_are_one(case, first, second):
    schedule, (t,) = case
    twice = Shifted(Shifted(schedule, first), second)
    assert twice(t) == close(Shifted(schedule, first * second)(t))


@given(scheduled_times(of=zero_terminal))
def test_zero_terminal_snr_as_published(case):
    """alpha' = (alpha - alpha_T)/(1 - alpha_T), Lin et al. 2023, arXiv:2305.08891, algorithm 1."""
    schedule, (t,) = case
    last = schedule.base.alpha(schedule.t_max)
    assert schedule.alpha(t) == close((schedule.base.alpha(t) - last) / (1 - last))
    assert schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 == close(1.0)
