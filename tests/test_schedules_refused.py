"""Schedules that are none are refused, with a reason and a cure."""

import math

import pytest
import torch
from hypothesis import strategies as st
from strategies import (
    betas,
    given,
)

import sde_diffusion as sd
from sde_diffusion.schedule import CustomSchedule
from sde_diffusion.schedules import EDM, VE, FlowMatching, SubVP, VPCosine, VPLinear
from sde_diffusion.tabulated import Shifted, Tabulated, ZeroTerminalSNR


@pytest.mark.parametrize(
    ("alpha", "sigma"),
    [
        (lambda t: 0.5 - t, lambda t: t),
        (lambda t: 1 - t, lambda t: t - 0.5),
        (lambda t: 1 - t, lambda t: t * float("nan")),
        (lambda t: 1 / t, lambda t: t),
        (lambda t: torch.log(t), lambda t: t),
    ],
    ids=["negative-alpha", "negative-sigma", "nan", "infinite", "log-zero"],
)
def test_scales_that_are_no_scales_are_refused(alpha, sigma):
    with pytest.raises(ValueError, match=r"finite and non-negative.*mend the function"):
        CustomSchedule(alpha, sigma)


@pytest.mark.parametrize(
    ("alpha", "sigma"),
    [
        (lambda t: t, lambda t: 1 - t),
        (lambda t: 1.0, lambda t: 1.0),
        (lambda t: 1 - t, lambda t: t * (1 - t)),
        (lambda t: 1 + 0 * t, lambda t: 0 * t),
        (lambda t: 1 + 0 * t, lambda t: 2 + torch.sin(7 * t)),
    ],
    ids=["data-at-one", "constant", "both-zero", "no-noise", "wave"],
)
def test_a_half_log_snr_that_does_not_fall_is_refused(alpha, sigma):
    with pytest.raises(ValueError, match="must decrease strictly"):
        CustomSchedule(alpha, sigma)


@pytest.mark.parametrize(
    ("ends", "match"),
    [
        ({"t_min": 1.0, "t_max": 0.0}, "must be below t_max"),
        ({"t_min": 0.5, "t_max": 0.5}, "must be below t_max"),
        ({"t_max": math.inf}, "must be finite"),
        ({"t_min": math.nan}, "must be finite"),
        ({"t_clean": 1.0}, "t_clean"),
        ({"t_clean": -0.1}, "t_clean"),
    ],
)
def test_ends_that_are_no_ends_are_refused(ends, match):
    with pytest.raises(ValueError, match=match):
        CustomSchedule(lambda t: torch.exp(-t), lambda t: t, **ends)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: VPLinear(1.0, 0.5), "need 0 <= beta_min"),
        (lambda: VPLinear(1e-4, math.inf), "need 0 <= beta_min"),
        (lambda: SubVP(-0.1, 20.0), "need 0 <= beta_min"),
        (lambda: VPLinear(math.nan, 20.0), "need 0 <= beta_min"),
        (lambda: VE(0.0, 50.0), "need 0 < sigma_min"),
        (lambda: VE(1.0, 0.5), "need 0 < sigma_min"),
        (lambda: EDM(0.1, math.inf), "need 0 < sigma_min"),
        (lambda: EDM(math.nan, 80.0), "need 0 < sigma_min"),
        (lambda: VPCosine(0.0), "offset must be positive"),
        (lambda: VPCosine(math.nan), "offset must be positive"),
        (lambda: VPCosine(t_max=1.01), "must lie in"),
        (lambda: VPCosine(t_max=0.0), "must lie in"),
        (lambda: Shifted(FlowMatching(), 0.0), "must be positive"),
        (lambda: Shifted(FlowMatching(), -1.0), "must be positive"),
        (lambda: Shifted(FlowMatching(), math.nan), "must be positive"),
        (lambda: Shifted(FlowMatching(), math.inf), "must be positive"),
        (lambda: ZeroTerminalSNR(FlowMatching()), "variance-preserving schedule"),
        (lambda: ZeroTerminalSNR(SubVP()), "variance-preserving schedule"),
        (lambda: ZeroTerminalSNR(EDM()), "variance-preserving schedule"),
        (lambda: ZeroTerminalSNR(_vp_from_noise()), "not at 0"),
    ],
)
def test_bad_parameters_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def _vp_from_noise():
    return CustomSchedule(torch.cos, torch.sin, 0.1, 1.5)


@given(betas, st.sampled_from([0.0, -0.1, 1.5, math.nan, math.inf]), st.data())
def test_bad_betas_are_refused_and_named(table, bad, data):
    place = data.draw(st.integers(0, len(table) - 1))
    with pytest.raises(ValueError, match=rf"betas\[{place}\].*every beta must lie in"):
        Tabulated.from_betas([*table[:place], bad, *table[place + 1 :]])


@pytest.mark.parametrize(
    ("bars", "place"),
    [
        ([0.9, 0.95, 0.5], 1),
        ([0.9, 0.9], 1),
        ([1.0, 0.5], 0),
        ([1.2, 0.5], 0),
        ([0.5, math.nan], 1),
        ([math.inf, 0.5], 0),
        ([0.5, -0.1], 1),
        ([0.5, 0.0, 0.0], 2),
    ],
)
def test_bad_cumulative_alphas_are_refused_and_named(bars, place):
    with pytest.raises(ValueError, match=rf"alphas_cumprod\[{place}\].*use Tabulated.from_betas"):
        Tabulated(bars)


@pytest.mark.parametrize("bars", [[], [0.5]])
def test_a_table_of_one_entry_is_refused(bars):
    with pytest.raises(ValueError, match="needs at least 2"):
        Tabulated(bars)


def test_an_infinite_lambda_is_refused_where_sigma_is_never_zero():
    for lambda_ in (math.inf, torch.tensor(math.inf, dtype=torch.float64)):
        with pytest.raises(ValueError, match="ask for a lambda inside it"):
            VE().time_of(lambda_)


def test_functions_outside_torch_are_refused():
    """Automatic differentiation would see a constant, and f = g = 0."""
    with pytest.raises(ValueError, match="in torch operations"):
        CustomSchedule(lambda t: math.cos(t.item()), lambda t: math.sin(t.item()), t_max=1.5)


def test_a_kernel_goes_from_clean_to_noisy():
    with pytest.raises(ValueError, match="from s to t"):
        VPLinear().transition(0.7, 0.2)


def test_drift_where_no_signal_is_left():
    """f = -inf at alpha = 0, and no solver that uses it starts there."""
    for schedule in (VPCosine(t_max=1.0), FlowMatching(), ZeroTerminalSNR(VPLinear())):
        assert schedule.f(schedule.t_max) == -math.inf
        with pytest.raises(ValueError, match="singular"):
            sd.SOLVERS["euler_maruyama"](schedule, [schedule.t_max, 0.5])
