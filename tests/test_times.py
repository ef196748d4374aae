"""Grids: ends, length, order, and evenness in the variable that names each."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from strategies import edms, flows, given, schedules, tabulateds, ves, vp_linears

from sde_diffusion import times
from sde_diffusion.schedule import CustomSchedule
from sde_diffusion.schedules import EDM, VE, FlowMatching, VPCosine, VPLinear
from sde_diffusion.solvers import ddim
from sde_diffusion.tabulated import Tabulated, ZeroTerminalSNR, ddpm_linear

DOUBLE = torch.float64
CONTINUOUS = {
    "uniform": times.uniform,
    "quadratic": times.quadratic,
    "uniform_lambda": times.uniform_lambda,
    "karras": times.karras,
}
INTEGER = {"leading": times.leading, "trailing": times.trailing, "linspace": times.linspace}
IN_NOISE = ("uniform_lambda", "karras")
steps_counts = st.integers(1, 12)
alpha_stays = st.one_of(vp_linears, ves, edms, st.just(VPCosine()), tabulateds)


def even(values):
    """Whether values are an arithmetic progression."""
    line = np.linspace(values[0], values[-1], len(values))
    assert np.asarray(values) == pytest.approx(line, rel=1e-8, abs=1e-9 * np.abs(line).max())


def assert_grid(grid, steps, start, end):
    assert grid.dtype is DOUBLE
    assert grid.shape == (steps + 1,)
    assert float(grid[0]) == start
    assert float(grid[-1]) == end
    assert (grid.diff() < 0).all()


@pytest.mark.parametrize("name", CONTINUOUS)
@given(schedules, steps_counts, examples=15)
def test_default_ends_length_and_order(name, schedule, steps):
    assume(name not in IN_NOISE or schedule.alpha(schedule.t_max) > 0)
    assume(not (schedule.t_clean >= schedule.t_max * 0.9))
    grid = CONTINUOUS[name](schedule, steps)
    assert_grid(grid, steps, schedule.t_max, schedule.t_min)
    assert times.check_grid(schedule, grid) == grid.tolist()


@pytest.mark.parametrize("name", CONTINUOUS)
@given(schedules, steps_counts, st.floats(0.5, 0.9), st.floats(0.05, 0.4), examples=15)
def test_given_ends_length_and_order(name, schedule, steps, high, low):
    span = schedule.t_max - schedule.t_min
    start, end = schedule.t_min + high * span, schedule.t_min + low * span
    assert_grid(CONTINUOUS[name](schedule, steps, start, end), steps, start, end)


@given(schedules, steps_counts, st.floats(0.5, 0.9), st.floats(0.05, 0.4))
def test_the_default_grid_is_even_between_the_time_of_flow_and_its_root(schedule, steps, high, low):
    span = schedule.t_max - schedule.t_min
    ends = (schedule.t_min + high * span, schedule.t_min + low * span)
    grid = times.default(schedule, steps, *ends)
    assert_grid(grid, steps, *ends)
    scales = [tuple(map(float, schedule(t))) for t in grid.tolist()]
    u = np.array([(sigma / (alpha + sigma)) ** (2 / 3) for alpha, sigma in scales])
    np.testing.assert_allclose(np.diff(u), (u[-1] - u[0]) / steps, rtol=1e-6, atol=1e-9)


@given(schedules, steps_counts)
def test_the_default_grid_asks_no_network_below_t_clean(schedule, steps):
    assume(not (schedule.t_clean >= schedule.t_max * 0.9))
    grid = times.default(schedule, steps)
    assert_grid(grid, steps, schedule.t_max, schedule.t_min)
    assert float(grid[-2]) >= schedule.t_clean


@given(schedules, steps_counts, st.floats(0.5, 0.9), st.floats(0.05, 0.4), st.floats(0.5, 20.0))
def test_evenness(schedule, steps, high, low, rho):
    """Each grid is even in its own variable: t, sqrt t, lambda, (sigma/alpha)^(1/rho)."""
    span = schedule.t_max - schedule.t_min
    ends = (schedule.t_min + high * span, schedule.t_min + low * span)
    even(times.uniform(schedule, steps, *ends).tolist())
    if schedule.t_min >= 0:
        grid = times.quadratic(schedule, steps, *ends)
        even((grid - schedule.t_min).sqrt().tolist())
    in_lambda = times.uniform_lambda(schedule, steps, *ends).tolist()
    even([schedule.half_log_snr(t) for t in in_lambda])
    in_noise = times.karras(schedule, steps, *ends, rho=rho).tolist()
    even([schedule.rho(t) ** (1 / rho) for t in in_noise])


@given(alpha_stays, st.integers(2, 30))
def test_the_jump_to_sigma_zero(schedule, steps):
    """steps - 1 even steps to t_clean, then one to t_min; all even where sigma stays positive."""
    for grid, level in (
        (times.uniform_lambda(schedule, steps), schedule.half_log_snr),
        (times.karras(schedule, steps), lambda t: schedule.rho(t) ** (1 / 7)),
    ):
        values = grid.tolist()
        assert values[-1] == schedule.t_min
        if schedule.sigma(schedule.t_min) == 0:
            assert values[-2] == schedule.t_clean
            values = values[:-1]
        even([level(t) for t in values])


@given(st.integers(2, 30), st.floats(0.002, 0.1), st.floats(4.0, 100.0), st.floats(1.0, 12.0))
def test_karras_as_published(steps, low, high, rho):
    """Karras et al. 2022, arXiv:2206.00364, eq. 5, with sigma_N = 0."""
    n = steps - 1
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    published = [(top + i / n * (bottom - top)) ** rho for i in range(steps)]
    assert times.karras(EDM(low, high), steps, rho=rho).tolist() == pytest.approx([*published, 0])


@given(st.one_of(vp_linears, ves, edms, flows), st.integers(2, 20))
def test_karras_with_a_large_exponent_is_uniform_in_lambda(schedule, steps):
    """The gap falls like 1/rho."""
    span = schedule.t_max - schedule.t_min
    ends = (schedule.t_min + 0.9 * span, schedule.t_min + 0.05 * span)
    limit = times.uniform_lambda(schedule, steps, *ends)
    gaps = [
        float((times.karras(schedule, steps, *ends, rho=rho) - limit).abs().max())
        for rho in (1e3, 1e4, 1e5)
    ]
    for large, small in pairwise(gaps):
        assert small == pytest.approx(large / 10, rel=0.05)


# Integer timesteps of a discrete process


@given(st.integers(2, 1000), st.data())
def test_leading_trailing_and_linspace(n, data):
    """Lin et al. 2023, arXiv:2305.08891, table 2, written in exact integers."""
    steps = data.draw(st.integers(1, n))
    schedule = VPLinear()
    label = lambda grid: (grid * n - 1).round().long().tolist()
    stride = n // steps
    leading = times.leading(schedule, steps, n)
    assert label(leading) == [*range((steps - 1) * stride, -1, -stride), -1]
    trailing = times.trailing(schedule, steps, n)
    assert_rounded(label(trailing), [n * (steps - i) / steps - 1 for i in range(steps)], steps)
    even_ones = times.linspace(schedule, steps, n)
    gap = (n - 1) / max(steps - 1, 1)
    assert_rounded(label(even_ones), [n - 1 - i * gap for i in range(steps)], steps)
    assert label(trailing)[0] == label(even_ones)[0] == n - 1
    assert steps == 1 or label(even_ones)[-2] == 0
    for grid in (leading, trailing, even_ones):
        assert_grid(grid, steps, float(grid[0]), 0.0)
        times.check_grid(schedule, grid)


def assert_rounded(labels, exact, steps):
    assert len(labels) == steps + 1
    assert labels[-1] == -1
    assert all(a > b for a, b in pairwise(labels))
    for label, value in zip(labels, exact, strict=False):
        assert abs(label - value) <= 0.5 + 1e-9


@given(st.integers(2, 1000), st.data())
def test_an_offset_moves_the_leading_timesteps(n, data):
    steps = data.draw(st.integers(1, n))
    offset = data.draw(st.integers(0, n // steps - 1))
    moved, plain = (times.leading(VPLinear(), steps, n, k) for k in (offset, 0))
    torch.testing.assert_close(moved[:-1] - plain[:-1], torch.full((steps,), offset / n).double())


@given(schedules, st.integers(1, 1000), st.data())
def test_from_timesteps_places_entry_k_at_k_plus_one(schedule, n, data):
    """The last timestep is t_max itself, the end t_min itself, and solvers take the grid."""
    labels = sorted(data.draw(st.sets(st.integers(0, n - 1), max_size=8)) | {n - 1}, reverse=True)
    grid = times.from_timesteps(schedule, labels, n)
    assert_grid(grid, len(labels), schedule.t_max, schedule.t_min)
    places = (grid - schedule.t_min) / (schedule.t_max - schedule.t_min) * n - 1
    assert places[:-1].tolist() == pytest.approx(labels, abs=1e-8 * n)
    times.check_grid(schedule, grid)


@given(tabulateds, st.data())
def test_timesteps_of_a_table_meet_its_entries(schedule, data):
    label = data.draw(st.integers(0, schedule.timesteps - 1))
    grid = times.from_timesteps(schedule, [label])
    level = schedule.alpha(float(grid[0])) ** 2
    assert level == pytest.approx(float(schedule.alphas_cumprod[label]), rel=1e-10, abs=1e-15)


def test_zero_terminal_snr_keeps_the_timesteps_of_its_table():
    """The pair of remedies of Lin et al. 2023: trailing timesteps on a rescaled table."""
    grid = times.trailing(ZeroTerminalSNR(ddpm_linear()), 10)
    assert grid.equal(times.trailing(ddpm_linear(), 10))


# Refusals

SCHEDULE = VPLinear()


@pytest.mark.parametrize(
    ("grid", "match"),
    [
        ([0.1, 0.5], "must decrease strictly"),
        ([0.9, 0.5, 0.5, 0.1], "must decrease strictly"),
        ([1.1, 0.5], "lies outside"),
        ([0.9, -0.1], "lies outside"),
        ([0.9, math.nan, 0.1], "lies outside"),
        ([math.inf, 0.1], "lies outside"),
        ([0.9], "need"),
        ([], "need"),
        ([[0.9, 0.1]], "need"),
        (0.5, "need"),
    ],
)
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_what_is_no_grid_is_refused(grid, match, kind):
    given_ = grid if kind is list else kind(grid)
    with pytest.raises(ValueError, match=match):
        times.check_grid(SCHEDULE, given_)
    with pytest.raises(ValueError, match=match):
        ddim(SCHEDULE, given_)


@pytest.mark.parametrize("grid", [torch.tensor([3, 2, 1]), np.array([3, 2, 1])])
def test_integer_times_are_refused(grid):
    with pytest.raises(TypeError, match=r"use times\.from_timesteps"):
        times.check_grid(EDM(), grid)


def test_times_that_carry_a_gradient_keep_it():
    leaf = torch.tensor([0.9, 0.5, 0.1], requires_grad=True)
    for grid in (leaf, list(leaf)):
        checked = times.check_grid(SCHEDULE, grid)
        assert all(t.dtype is DOUBLE and t.ndim == 0 for t in checked)
        (gradient,) = torch.autograd.grad(checked[1] ** 2, leaf)
        assert gradient.tolist() == pytest.approx([0.0, 1.0, 0.0])


@pytest.mark.parametrize("name", sorted(times.GRIDS))
def test_step_counts_that_are_none_are_refused(name):
    schedule = ddpm_linear()
    grid = times.GRIDS[name]
    for steps in (0, -1):
        with pytest.raises(ValueError, match="at least 1 is needed"):
            grid(schedule, steps)
    for steps in (2.0, "2", None, True):
        with pytest.raises(TypeError, match="must be an integer"):
            grid(schedule, steps)
    assert len(grid(schedule, np.int64(3))) == 4


@pytest.mark.parametrize("name", INTEGER)
def test_more_steps_than_timesteps_are_refused(name):
    with pytest.raises(ValueError, match="more than the 10 timesteps"):
        INTEGER[name](ddpm_linear(10), 11)
    with pytest.raises(ValueError, match="timesteps=1000"):
        INTEGER[name](VPLinear(), 11)
    assert len(INTEGER[name](ddpm_linear(10), 10)) == 11


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([5, 5], "must decrease strictly"),
        ([1, 5], "must decrease strictly"),
        ([10, 5], "must be integers from 0 to 9"),
        ([5, -1], "must be integers from 0 to 9"),
        ([5.5, 1], "must be integers from 0 to 9"),
        ([math.nan], "must be integers from 0 to 9"),
        ([], "must be integers from 0 to 9"),
    ],
)
def test_bad_timesteps_are_refused(labels, match):
    with pytest.raises(ValueError, match=match):
        times.from_timesteps(SCHEDULE, labels, 10)


@pytest.mark.parametrize("name", IN_NOISE)
def test_infinite_lambda_is_refused_at_the_ends(name):
    grid = CONTINUOUS[name]
    with pytest.raises(ValueError, match=r"alpha = 0 at t = 1.*give t_start"):
        grid(FlowMatching(), 4)
    with pytest.raises(ValueError, match=r"alpha = 0 at t = 1.*give t_start"):
        grid(Tabulated.from_betas([0.1, 0.5, 1.0]), 4)
    with pytest.raises(ValueError, match=r"sigma = 0 at t = 0.*t_end inside"):
        grid(FlowMatching(), 4, t_start=0.9, t_end=0.0)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_ends_out_of_order_or_range_are_refused(name):
    for ends in ((0.1, 0.9), (0.5, 0.5), (1.5, 0.1), (0.9, -0.5), (math.nan, 0.1)):
        with pytest.raises(ValueError, match=r"must decrease strictly|lies outside"):
            CONTINUOUS[name](SCHEDULE, 4, *ends)


@pytest.mark.parametrize("name", IN_NOISE)
@pytest.mark.parametrize("place", [0.5, 1.0])
@pytest.mark.parametrize("schedule", [VPLinear(), EDM()], ids=["vp", "edm"])
def test_a_start_cleaner_than_t_clean_gives_a_grid_or_an_error(name, place, schedule):
    """Never a grid that goes back to noisier times, repeats one, or has another length."""
    for steps in (2, 5):
        try:
            grid = CONTINUOUS[name](schedule, steps, t_start=place * schedule.t_clean)
        except ValueError as error:
            assert "t_end" in str(error)  # noqa: PT017
        else:
            assert_grid(grid, steps, place * schedule.t_clean, schedule.t_min)


@pytest.mark.parametrize("rho", [0.0, -7.0, math.nan, math.inf])
def test_exponents_that_are_none_are_refused(rho):
    with pytest.raises(ValueError, match="must be positive and finite"):
        times.karras(VE(), 4, rho=rho)


def test_quadratic_where_time_begins_below_zero():
    """sqrt t needs t >= 0: counted from t_min."""
    schedule = CustomSchedule(lambda t: (1 - t) / 2, lambda t: (1 + t) / 2, -1.0, 0.9)
    assert_grid(times.quadratic(schedule, 4), 4, 0.9, -1.0)
