"""The discrete DDPM and its continuous limit: what is equal, and how fast the rest tends to it.

A discrete process with betas beta_1 .. beta_N is x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) z.
Its posteriors are computed here from the betas alone, by conditioning Gaussians, and rates of
convergence are measured as slopes of log error against log N.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from strategies import (
    betas,
    coefficients,
    given,
    scheduled_grids,
    scheduled_times,
    slope,
    variance_preserving,
    vp_cosines,
    vp_linears,
)

from sde_diffusion.schedules import FlowMatching
from sde_diffusion.solvers import ddim, ddpm, euler_maruyama
from sde_diffusion.tabulated import Tabulated
from sde_diffusion.times import uniform
from sde_diffusion.trace import Trace

DOUBLE = torch.float64
SIZES = [64, 128, 256, 512, 1024]
means = st.lists(st.floats(-2.0, 2.0), min_size=2, max_size=2)
variances = st.lists(st.one_of(st.floats(0.05, 0.5), st.floats(2.0, 4.0)), min_size=2, max_size=2)
etas = st.floats(0.0, 1.0)


def close(value, rel=1e-9, floor=1e-12):
    return pytest.approx(value, rel=rel, abs=floor)


def integral_of_beta(schedule, s, t):
    """int_s^t beta, by Gauss-Legendre quadrature of g^2 = beta."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    places = (s + t) / 2 + (t - s) / 2 * nodes
    return (
        (t - s)
        / 2
        * math.fsum(w * schedule.g2(float(u)) for u, w in zip(places, weights, strict=True))
    )


# The forward process


@given(st.one_of(vp_linears, vp_cosines), st.floats(0.6, 0.9))
def test_betas_read_off_the_sde_tend_to_it_at_rate_one(schedule, end):
    """beta_i = beta(t_i) T/N: log alphabar_N + int_0^T beta falls like 1/N."""
    gaps, distances = [], []
    exact = integral_of_beta(schedule, 0.0, end)
    places = torch.linspace(0.0, 1.0, 41, dtype=DOUBLE)
    for n in SIZES:
        table = [schedule.g2(end * i / n) * end / n for i in range(1, n + 1)]
        gaps.append(abs(math.fsum(math.log1p(-beta) for beta in table) + exact))
        alphas = Tabulated.from_betas(table).alpha(places)
        distances.append(float((alphas - schedule.alpha(end * places)).abs().max()))
    assert slope(SIZES, gaps) == pytest.approx(-1, abs=0.1)
    assert slope(SIZES, distances) == pytest.approx(-1, abs=0.1)


@given(st.one_of(vp_linears, vp_cosines), st.integers(4, 60), st.floats(0.5, 0.9), st.data())
def test_betas_that_integrate_the_sde_are_exact(schedule, n, end, data):
    """beta_i = 1 - exp(-int beta): the chain, step by step, is the transition kernel."""
    times = [end * i / n for i in range(n + 1)]
    table = [-math.expm1(-integral_of_beta(schedule, s, t)) for s, t in pairwise(times)]
    first = data.draw(st.integers(0, n - 1))
    gain, variance = 1.0, 0.0
    for i in range(first, n):
        gain, variance = math.sqrt(1 - table[i]) * gain, (1 - table[i]) * variance + table[i]
        alpha_ts, sigma_ts = schedule.transition(times[first], times[i + 1])
        assert gain == close(alpha_ts)
        assert variance == close(sigma_ts**2)
    discrete = Tabulated.from_betas(table)
    for i in range(1, n + 1):
        assert discrete(i / n) == close(schedule(times[i]))
    alpha_ts, sigma_ts = discrete.transition(first / n, 1.0)
    assert (alpha_ts, sigma_ts**2) == close((gain, variance))


# One step backwards


@given(betas, st.data())
def test_posterior_of_the_discrete_chain(table, data):
    """The "posterior" rows are Bayes' rule for the chain, on the whole grid and on any part of it.

    With a = alphabar_i / alphabar_j for the (possibly longer) step from j to i, the joint law of
    (x_j, x_i) given x_0 is Gaussian; conditioning gives the mean and the variance of x_j given x_i.
    """
    n = len(table)
    bars = [math.prod(1 - beta for beta in table[:i]) for i in range(n + 1)]
    kept = data.draw(st.sets(st.integers(1, n), min_size=1))
    places = [*sorted(kept, reverse=True), 0]
    schedule = Tabulated.from_betas(table)
    plan = ddpm(schedule, [i / n for i in places], variance="posterior")
    for step, (i, j) in enumerate(pairwise(places)):
        ratio = math.prod(1 - beta for beta in table[j:i])
        joint = np.array(
            [
                [1 - bars[j], math.sqrt(ratio) * (1 - bars[j])],
                [math.sqrt(ratio) * (1 - bars[j]), 1 - bars[i]],
            ]
        )
        gain = joint[0, 1] / joint[1, 1]
        mean_on_x_0 = math.sqrt(bars[j]) - gain * math.sqrt(bars[i])
        variance = joint[0, 0] - gain * joint[0, 1]
        assert coefficients(plan, step) == close((gain, mean_on_x_0, variance), floor=1e-10)


@given(betas)
def test_posterior_as_published(table):
    """Ho et al. 2020, arXiv:2006.11239, eq. 6-7, and both variances of section 3.2."""
    n = len(table)
    bars = [math.prod(1 - beta for beta in table[:i]) for i in range(n + 1)]
    schedule = Tabulated.from_betas(table)
    times = [i / n for i in range(n, -1, -1)]
    plans = {v: ddpm(schedule, times, variance=v) for v in ("posterior", "beta")}
    for step, i in enumerate(range(n, 0, -1)):
        beta, bar, previous = table[i - 1], bars[i], bars[i - 1]
        on_d = math.sqrt(previous) * beta / (1 - bar)
        on_x = math.sqrt(1 - beta) * (1 - previous) / (1 - bar)
        tilde = (1 - previous) / (1 - bar) * beta
        assert coefficients(plans["posterior"], step) == close((on_x, on_d, tilde))
        assert coefficients(plans["beta"], step) == close((on_x, on_d, beta if i > 1 else 0.0))
        # On the true x_0 the mean of the chain is kept.
        assert on_d + on_x * math.sqrt(bar) == close(math.sqrt(previous))


@given(scheduled_grids(noisy_end=False))
def test_posterior_of_any_process_by_bayes_rule(case):
    """Product of two Gaussians in x_s: N(alpha_s x_0, sigma_s^2) times the likelihood of x_t."""
    schedule, times = case
    plan = ddpm(schedule, times, variance="posterior")
    for step, (t, s) in enumerate(pairwise(times)):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        on_x, on_d, variance = coefficients(plan, step)
        assert on_d + on_x * alpha_t == close(alpha_s)  # the mean on the true x_0 is kept
        if sigma_s == 0:
            assert (on_x, variance) == (0.0, 0.0)
            continue
        pull = alpha_t / alpha_s
        noise = sigma_t**2 - pull**2 * sigma_s**2
        precision = 1 / sigma_s**2 + pull**2 / noise
        assert variance == close(1 / precision, rel=1e-7)
        assert on_x == close(pull / noise / precision, rel=1e-7)
        assert on_d == close(alpha_s / sigma_s**2 / precision, rel=1e-7)


@given(scheduled_grids(of=variance_preserving))
def test_the_posterior_variance_is_the_smaller_one(case):
    """betatilde <= beta = 1 - alphabar_t/alphabar_s, and none in a step to sigma = 0."""
    schedule, times = case
    small, large = (ddpm(schedule, times, variance=v) for v in ("posterior", "beta"))
    for step, (t, s) in enumerate(pairwise(times)):
        tilde, beta = coefficients(small, step)[2], coefficients(large, step)[2]
        assert 0 <= tilde <= beta
        if s > schedule.t_min:
            assert tilde < beta == close(1 - (schedule.alpha(t) / schedule.alpha(s)) ** 2)
        elif schedule.sigma(s) == 0:
            assert tilde == beta == 0


@given(scheduled_times(margin=0.15))
def test_ancestral_step_and_euler_maruyama_step_part_at_order_two(case):
    """The gap of one step of length h, in each coefficient and in the variance, is O(h^2)."""
    schedule, (t,) = case
    assume(not isinstance(getattr(schedule, "base", schedule), Tabulated))
    span = schedule.t_max - schedule.t_min
    sizes, gaps = [span * 2.0**-k for k in range(8, 13)], []
    for h in sizes:
        ancestral = coefficients(ddpm(schedule, [t, t - h], variance="beta"), 0)
        maruyama = coefficients(euler_maruyama(schedule, [t, t - h]), 0)
        gaps.append(math.dist(ancestral, maruyama))
    assert slope(sizes, gaps) == pytest.approx(2, abs=0.15)


# Laws


def law_error(plan, schedule, mean, variance):
    """Distance of the plan's law on Gaussian data from the exact law at its last time."""
    mean, variance = torch.tensor(mean, dtype=DOUBLE), torch.tensor(variance, dtype=DOUBLE)
    alpha_s, sigma_s = schedule(plan.times[-1])
    found_mean, found_variance = plan.law(schedule, mean, variance)
    off = torch.stack([found_mean - alpha_s * mean, found_variance.sqrt()])
    off[1] -= (alpha_s**2 * variance + sigma_s**2).sqrt()
    return float(off.norm())


SAMPLERS = {
    "posterior": lambda schedule, times: ddpm(schedule, times, variance="posterior"),
    "beta": lambda schedule, times: ddpm(schedule, times, variance="beta"),
    "euler-maruyama": euler_maruyama,
    "ddim": ddim,
}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@given(st.one_of(vp_linears, vp_cosines, st.just(FlowMatching())), means, variances, examples=6)
def test_the_law_of_ancestral_sampling_tends_to_the_exact_one_at_rate_one(
    sampler, schedule, mean, variance
):
    sizes, start = [64, 128, 256, 512], 0.8 * schedule.t_max
    errors = []
    for n in sizes:
        plan = sampler(schedule, uniform(schedule, n, start, 0.25 * start))
        errors.append(law_error(plan, schedule, mean, variance))
    assert errors[-1] < 0.02
    assert slope(sizes, errors) == pytest.approx(-1, abs=0.15)


@given(vp_linears, means, variances, examples=8)
def test_the_discrete_process_sampled_from_white_noise_tends_to_the_reverse_sde(
    schedule, mean, variance
):
    """DDPM as published, betas beta(i/N)/N from N(0, I), against the reverse SDE from N(0, I).

    Run backwards, the SDE has the joint law of (x_s, x_1) that the forward process has, so its
    law at s from any start follows from the regression of x_s on x_1.
    """
    mean, variance = torch.tensor(mean, dtype=DOUBLE), torch.tensor(variance, dtype=DOUBLE)
    white = (torch.zeros_like(mean), torch.ones_like(variance))
    s = 0.25
    (alpha_s, sigma_s), (alpha_1, sigma_1) = schedule(s), schedule(1.0)
    spread_s, spread_1 = alpha_s**2 * variance + sigma_s**2, alpha_1**2 * variance + sigma_1**2
    pull = schedule.transition(s, 1.0)[0] * spread_s / spread_1
    exact = (mean * (alpha_s - pull * alpha_1), spread_s + pull**2 * (white[1] - spread_1))
    sizes, gaps = [64, 128, 256, 512], []
    for n in sizes:
        discrete = Tabulated.from_betas([schedule.beta(i / n) / n for i in range(1, n + 1)])
        plan = ddpm(discrete, [i / n for i in range(n, n // 4 - 1, -1)])
        chain = plan.law(discrete, mean, variance, white)
        gaps.append(float(torch.stack([a - b for a, b in zip(chain, exact, strict=True)]).norm()))
    assert slope(sizes, gaps) == pytest.approx(-1, abs=0.15)


@given(scheduled_grids(steps=st.just(3)), st.floats(-2.0, 2.0), st.floats(0.05, 4.0))
def test_the_right_reverse_variance_keeps_gaussian_laws_exactly(case, mean, variance):
    """Variance betatilde + c_d^2 Var[x_0 | x_t]: three steps, however long, are exact."""
    schedule, times = case
    plan = ddpm(schedule, times, variance="posterior")
    trace = Trace(times[0])
    x = trace.x
    for step, (t, s) in enumerate(pairwise(times)):
        on_x, on_d, tilde = coefficients(plan, step)
        alpha_t, sigma_t = schedule(t)
        unknown = variance * sigma_t**2 / (alpha_t**2 * variance + sigma_t**2)
        x, d = trace.denoise(x, t)
        x = on_x * x + on_d * d + math.sqrt(tilde + on_d**2 * unknown) * trace.noise(t, s)
    found = trace.end(x, times[-1]).law(schedule, mean, variance)
    alpha_s, sigma_s = schedule(times[-1])
    assert float(found[0]) == close(alpha_s * mean, floor=1e-10)
    assert float(found[1]) == close(alpha_s**2 * variance + sigma_s**2)


@given(
    scheduled_grids(clean_end=False, noisy_end=False, steps=st.just(1)),
    st.floats(0.05, 4.0),
    etas,
    etas,
)
def test_noise_in_one_step_rises_with_eta_and_the_law_narrows(case, variance, eta, other):
    """About one x_t the spread grows; from the exact law of x_t the total shrinks.

    With tau = eta^2 (1 - e^{-2h}) the total changes with tau as sigma_s alpha_t
    - alpha_s sigma_t / sqrt(1 - tau), which is negative: d and the predicted noise are correlated.
    """
    schedule, times = case
    low, high = sorted((eta, other))
    assume(high - low > 1e-3)
    plans = [ddim(schedule, times, eta=e) for e in (0.0, low, high)]
    about = [float(p.law(schedule, 0.3, variance, (0.0, 0.0))[1]) for p in plans]
    total = [float(p.law(schedule, 0.3, variance)[1]) for p in plans]
    assert about[0] == 0
    assert about[1] < about[2]
    assert total[1] > total[2]
