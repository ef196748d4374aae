"""Grids of other papers: their published formula, their ends, and what each is best or dense in."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from scipy.special import betainc
from strategies import edms, given, schedules, ves, vp_linears
from test_times import CONTINUOUS, INTEGER, assert_grid, even

from sde_diffusion import times
from sde_diffusion.schedules import EDM, FlowMatching, VPCosine, VPLinear
from sde_diffusion.solvers import ddim
from sde_diffusion.spacings import ALIGNED_STEPS
from sde_diffusion.tabulated import ddpm_linear, ddpm_scaled_linear

SPACINGS = {
    "polyexponential": times.polyexponential,
    "beta": times.beta,
    "linear_quadratic": times.linear_quadratic,
    "sgm_uniform": times.sgm_uniform,
    "kl_optimal": times.kl_optimal,
}
steps_counts = st.integers(1, 12)
positive = st.floats(0.3, 3.0)


def ends_of(schedule, high, low):
    span = schedule.t_max - schedule.t_min
    return schedule.t_min + high * span, schedule.t_min + low * span


def test_every_grid_is_tested_here_or_beside():
    assert set(times.GRIDS) == {*CONTINUOUS, *INTEGER, *SPACINGS, "default", "align_your_steps"}


@pytest.mark.parametrize("name", SPACINGS)
@given(schedules, steps_counts, examples=15)
def test_default_ends_length_and_order(name, schedule, steps):
    assume(name != "polyexponential" or schedule.alpha(schedule.t_max) > 0)
    assume(not (schedule.t_clean >= schedule.t_max * 0.9))
    grid = SPACINGS[name](schedule, steps)
    assert_grid(grid, steps, schedule.t_max, schedule.t_min)
    assert times.check_grid(schedule, grid) == grid.tolist()


@pytest.mark.parametrize("name", SPACINGS)
@given(schedules, steps_counts, st.floats(0.5, 0.9), st.floats(0.05, 0.4), examples=15)
def test_given_ends_length_and_order(name, schedule, steps, high, low):
    start, end = ends_of(schedule, high, low)
    assert_grid(SPACINGS[name](schedule, steps, start, end), steps, start, end)


@pytest.mark.parametrize("name", SPACINGS)
def test_ends_out_of_order_or_range_are_refused(name):
    for ends in ((0.1, 0.9), (0.5, 0.5), (1.5, 0.1), (0.9, -0.5), (math.nan, 0.1)):
        with pytest.raises(ValueError, match=r"must decrease strictly|lies outside"):
            SPACINGS[name](VPLinear(), 4, *ends)


@given(st.one_of(vp_linears, ves, edms), st.integers(2, 12), positive)
def test_polyexponential_as_published(schedule, steps, power):
    """k-diffusion: sigmas exp(ramp^rho (log max - log min) + log min), then 0."""
    grid = times.polyexponential(schedule, steps, power=power).tolist()
    sigmas = [schedule.rho(t) for t in grid]
    clean = sigmas.pop() == 0.0
    top, bottom = math.log(sigmas[0]), math.log(sigmas[-1])
    n = len(sigmas)
    assert clean == (schedule.sigma(schedule.t_min) == 0)
    ramp = [(1 - i / (n - 1)) ** power for i in range(n)] if n > 1 else [1.0]
    if clean:
        assert sigmas == pytest.approx([math.exp(bottom + u * (top - bottom)) for u in ramp])
    straight = times.polyexponential(schedule, steps)
    torch.testing.assert_close(straight, times.uniform_lambda(schedule, steps))


@given(schedules, steps_counts, st.floats(0.5, 0.9), st.floats(0.05, 0.4), positive, positive)
def test_beta_takes_quantiles_of_the_time(schedule, steps, high, low, a, b):
    """F(t) falls by 1/N a step, F the regularised incomplete beta function."""
    start, end = ends_of(schedule, high, low)
    grid = times.beta(schedule, steps, start, end, a=a, b=b)
    place = ((grid - end) / (start - end)).clamp(0, 1).numpy()
    assert betainc(a, b, place) == pytest.approx(np.linspace(1, 0, steps + 1), abs=1e-7)
    flat = times.beta(schedule, steps, start, end, a=1.0, b=1.0)
    torch.testing.assert_close(flat, times.uniform(schedule, steps, start, end))


@given(st.integers(2, 40), st.data())
def test_linear_quadratic_as_published(steps, data):
    """Mochi's coefficients: a i^2 + b i + c after L steps of threshold/L; sigma = 1 - that."""
    even_steps = data.draw(st.integers(1, steps - 1))
    p = data.draw(st.floats(0.05, 1.0)) * even_steps / steps
    grid = times.linear_quadratic(FlowMatching(), steps, threshold=p, linear_steps=even_steps)
    gap = even_steps - p * steps
    a = gap / (even_steps * (steps - even_steps) ** 2)
    b = p / even_steps - 2 * gap / (steps - even_steps) ** 2
    c = a * even_steps**2
    done = [
        i * p / even_steps if i < even_steps else a * i**2 + b * i + c for i in range(steps + 1)
    ]
    assert grid.tolist() == pytest.approx([1 - u for u in done], abs=1e-9)
    uniform = times.linear_quadratic(
        FlowMatching(), steps, threshold=even_steps / steps, linear_steps=even_steps
    )
    torch.testing.assert_close(uniform, times.uniform(FlowMatching(), steps))


def test_half_of_fifty_steps_are_the_first_of_a_thousand():
    """Movie Gen's setting: 25 of 50 steps are those of a uniform grid of 1,000."""
    grid = times.linear_quadratic(FlowMatching(), 50)
    torch.testing.assert_close(grid[:26], times.uniform(FlowMatching(), 1000)[:26])


def test_sgm_uniform_on_a_table_is_even_in_timesteps():
    """linspace(999, 0, N + 1) without its last, then sigma = 0; timestep k is the time (k+1)/N."""
    labels = times.sgm_uniform(ddpm_linear(), 10) * 1000 - 1
    assert labels.tolist() == pytest.approx([*np.linspace(999, 0, 11)[:-1], -1], abs=1e-9)
    assert times.sgm_uniform(VPLinear(), 5, t_end=0.1).equal(
        times.uniform(VPLinear(), 5, t_end=0.1)
    )
    with pytest.raises(ValueError, match=r"not above t_clean.*give t_end"):
        times.sgm_uniform(VPLinear(), 5, t_start=1e-4)


@given(schedules, steps_counts, st.floats(0.5, 0.9), st.floats(0.05, 0.4), positive)
def test_kl_optimal_is_even_in_the_angle(schedule, steps, high, low, c):
    grid = times.kl_optimal(schedule, steps, *ends_of(schedule, high, low), c=c).tolist()
    even([math.atan(schedule.rho(t) / c) for t in grid])


@pytest.mark.parametrize("schedule", [EDM(sigma_max=20.0), VPLinear(), FlowMatching()], ids=repr)
def test_kl_optimal_leaves_ddim_the_least_error_of_variance(schedule):
    """Theorem 3.1: any inner time moved takes the law of DDIM further from N(0, c^2 I)."""
    c = 0.7
    t_end = schedule.time_of(3.0)
    grid = times.kl_optimal(schedule, 5, t_end=t_end, c=c)
    exact = schedule.alpha(t_end) ** 2 * c**2 + schedule.sigma(t_end) ** 2

    def divergence(grid):
        _, variance = ddim(schedule, grid).law(schedule, 0.0, c**2)
        ratio = float(variance) / exact
        return (ratio - 1 - math.log(ratio)) / 2

    best = divergence(grid)
    for i in range(1, 5):
        for shift in (-0.05, 0.05):
            moved = grid.clone()
            moved[i] += shift * float(
                moved[i] - moved[i + 1] if shift < 0 else moved[i - 1] - moved[i]
            )
            assert divergence(moved) > best


@pytest.mark.parametrize("model", ALIGNED_STEPS)
def test_align_your_steps_meets_its_table_and_lies_between(model):
    top = ALIGNED_STEPS[model][0]
    schedule = EDM(sigma_max=top)
    rho = lambda steps: times.align_your_steps(schedule, steps, model=model).tolist()
    assert rho(10) == pytest.approx([*ALIGNED_STEPS[model][:-1], 0.0])
    assert rho(20)[::2] == pytest.approx(rho(10))
    for i in range(9):
        assert rho(20)[2 * i + 1] == pytest.approx(math.sqrt(rho(10)[i] * rho(10)[i + 1]))
    assert rho(1) == [top, 0.0]


def test_align_your_steps_on_the_schedule_of_stable_diffusion():
    """The timesteps that the authors give beside the noise levels, which have three decimals."""
    schedule = ddpm_scaled_linear()
    published = {
        "sd15": [999, 850, 736, 645, 545, 455, 343, 233, 124, 24, -1],
        "sdxl": [999, 845, 730, 587, 443, 310, 193, 116, 53, 13, -1],
    }
    for model, timesteps in published.items():
        grid = times.align_your_steps(schedule, 10, model=model)
        assert (float(grid[0]), float(grid[-1])) == (schedule.t_max, schedule.t_min)
        assert (grid * 1000 - 1).tolist() == pytest.approx(timesteps, abs=0.6)
    with pytest.raises(ValueError, match=r"sigmas\[0\] = 700 lies outside"):
        times.align_your_steps(schedule, 10, model="svd")
    with pytest.raises(ValueError, match="did you mean 'sdxl'"):
        times.align_your_steps(schedule, 10, model="sdx")


@given(schedules, st.lists(st.floats(0.03, 0.97), min_size=2, max_size=8, unique=True))
def test_from_sigmas_returns_the_times_of_given_levels(schedule, places):
    span = schedule.t_max - schedule.t_min
    points = sorted((schedule.t_min + p * span for p in places), reverse=True)
    sigmas = [float(schedule.rho(t)) for t in points]
    assume(all(b < a * (1 - 1e-4) for a, b in pairwise(sigmas)))
    grid = times.from_sigmas(schedule, sigmas)
    assert [schedule.rho(t) for t in grid.tolist()] == pytest.approx(sigmas, rel=1e-6)


def test_from_sigmas_keeps_every_digit_of_a_list_of_floats():
    sigmas = [10.1, 1.0 / 3.0, 0.07]
    assert times.from_sigmas(EDM(), sigmas).tolist() == pytest.approx(sigmas, rel=1e-14)


def test_from_sigmas_has_the_ends_to_the_last_bit():
    for schedule in (EDM(), VPLinear(), VPCosine()):
        highest = schedule.rho(schedule.t_max)
        single = torch.tensor([highest, 1.0, 0.0], dtype=torch.float32)
        for sigmas in ([highest, 1.0, 0.0], single, single.numpy()):
            grid = times.from_sigmas(schedule, sigmas).tolist()
            assert (grid[0], grid[-1]) == (schedule.t_max, schedule.t_min)
    assert times.from_sigmas(FlowMatching(), [math.inf, 1.0, 0.0]).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("sigmas", "match"),
    [
        ([10.0, 1.0, 1.0, 0.0], r"sigmas\[2\] = 1 follows 1: .* leave out the repeated"),
        ([1.0, 2.0], r"sigmas\[1\] = 2 follows 1: .* from noisy to clean"),
        ([10.0, 0.0, 1.0], r"sigmas\[2\] = 1 follows 0"),
        ([100.0, 1.0], r"sigmas\[0\] = 100 lies outside \[0, 80\]"),
        ([10.0, -1.0], r"sigmas\[1\] = -1 lies outside"),
        ([math.nan, 1.0], r"sigmas\[0\] = nan lies outside"),
        ([10.0, math.nan], r"sigmas\[1\] = nan follows 10"),
        ([1.0], "at least 2|need"),
        ([[1.0, 0.5]], "need"),
        ([], "need"),
    ],
)
def test_lists_that_are_no_noise_levels_are_refused(sigmas, match):
    with pytest.raises(ValueError, match=match):
        times.from_sigmas(EDM(), sigmas)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: times.beta(VPLinear(), 4, a=0.0),
        lambda: times.beta(VPLinear(), 4, b=math.inf),
        lambda: times.polyexponential(VPLinear(), 4, power=-1.0),
        lambda: times.kl_optimal(VPLinear(), 4, c=math.nan),
        lambda: times.linear_quadratic(VPLinear(), 4, linear_steps=4),
        lambda: times.linear_quadratic(VPLinear(), 4, linear_steps=0),
        lambda: times.linear_quadratic(VPLinear(), 4, linear_steps=2.0),
        lambda: times.linear_quadratic(VPLinear(), 4, threshold=0.6),
        lambda: times.linear_quadratic(VPLinear(), 4, threshold=0.0),
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(
        ValueError, match=r"must be positive and finite|must be a whole|must lie in"
    ):
        wrong()
