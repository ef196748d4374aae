"""Bounds against closed forms: Gaussian data, mixtures by quadrature, denoisers of known error."""

import math

import numpy as np
import pytest
import torch
from enumeration import SCHEDULES, smooth_grid
from hypothesis import given, settings
from hypothesis import strategies as st

import sde_diffusion as sd
from sde_diffusion.bounds import step_variances
from sde_diffusion.problems import DataSet, Gaussian, GaussianMixture
from sde_diffusion.reverse import kl, logarithms, normal_nll, reverse_steps

DOUBLE = torch.float64
VP = sd.VPLinear()


def expected(schedule, grid, error, variance, decoder=None):
    """Means of L_t and L_0 in one dimension, where E|x_0 - d|^2 at time t is error(t)."""
    steps = reverse_steps(schedule, [float(t) for t in grid])
    lower, _ = logarithms(steps)
    log_v = step_variances(schedule, steps, variance)
    terms = []
    for k, step in enumerate(steps):
        root = torch.tensor(error(step.t), dtype=DOUBLE).sqrt()
        if k < len(steps) - 1:
            terms.append(float(kl(root, 0 * root, step.on_d, lower[k], log_v[k])))
        else:
            last = log_v[k] if decoder is None else math.log(decoder)
            terms.append(float(normal_nll(root, 0 * root, last)))
    return terms


def gaussian_error(schedule, c):
    """E Var[x_0 | x_t] of N(mu, c)."""

    def error(t):
        alpha_t, sigma_t = (float(v) for v in schedule(t))
        return c * sigma_t**2 / (alpha_t**2 * c + sigma_t**2)

    return error


def exact_moments(schedule, times, c):
    levels = [float(t) for t in times if schedule.sigma(float(t)) > 0]
    errors = [gaussian_error(schedule, c)(t) for t in levels]
    lambdas = [float(schedule.half_log_snr(t)) for t in levels]
    noise = [1 - e * math.exp(2 * v) for e, v in zip(errors, lambdas, strict=True)]
    return sd.Moments(tuple(lambdas), tuple(errors), tuple(noise))


def entropy_and_prior_gap(schedule, t, mu, c):
    """The entropy of N(mu, c), and KL(q(x_t) || N(0, sigma_t^2))."""
    alpha_t, sigma_t = (float(v) for v in schedule(t))
    v, p = alpha_t**2 * c + sigma_t**2, sigma_t**2
    gap = (v / p - 1 - math.log(v / p) + (alpha_t * mu) ** 2 / p) / 2
    return math.log(2 * math.pi * math.e * c) / 2, gap


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_step_terms_are_the_divergence_of_two_gaussians(name, variance):
    """By torch's own formula, for the means and variances of the plan that `ddpm` makes."""
    schedule = SCHEDULES[name]
    t, s = (schedule.time_of(v) for v in (-1.0, 0.4))
    plan = sd.solvers.ddpm(schedule, [t, s], variance=variance)
    row, posterior = plan.rows[-1], sd.solvers.ddpm(schedule, [t, s], variance="posterior").rows[-1]
    x, x_0, d = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    of_step = [
        torch.distributions.Normal(row.x[0] * x + row.d[0] * clean, scale)
        for clean, scale in ((x_0, abs(posterior.z[0])), (d, abs(row.z[0])))
    ]
    steps = reverse_steps(schedule, [t, s])
    lower, _ = logarithms(steps)
    log_v = step_variances(schedule, steps, variance)
    term = kl(x_0, d, steps[0].on_d, lower[0], log_v[0])
    torch.testing.assert_close(term, torch.distributions.kl_divergence(*of_step))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.floats(0.05, 4.0),
    st.floats(-2.0, 2.0),
    st.lists(st.floats(-1.5, 2.5), min_size=1, max_size=6, unique=True),
    st.booleans(),
)
def test_a_chain_of_any_length_is_tight_with_the_best_variances(name, c, mu, inner, to_zero):
    """Gaussian data, exact d: the bound is the entropy, but for the prior, whatever the grid."""
    schedule = SCHEDULES[name]
    inner = [v for i, v in enumerate(sorted(inner)) if not i or v - sorted(inner)[i - 1] > 1e-2]
    lambdas = [-2.0, *inner, 3.0]
    grid = [float(schedule.time_of(v)) for v in lambdas]
    if to_zero and schedule.sigma(schedule.t_min) == 0:
        grid.append(schedule.t_min)
    moments = exact_moments(schedule, grid, c)
    entropy, gap = entropy_and_prior_gap(schedule, grid[0], mu, c)
    alpha_t, sigma_t = (float(v) for v in schedule(grid[0]))
    prior = alpha_t**2 * (c + mu**2) / (2 * sigma_t**2)
    total = prior + sum(expected(schedule, grid, gaussian_error(schedule, c), moments))
    assert total == pytest.approx(entropy + gap, abs=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("variance", ["posterior", "beta", "measured"])
def test_bound_agrees_with_its_closed_form(name, variance):
    """Each term within 4.5 standard errors: false alarms in 24 x 5 x 7e-6 = 0.1 % of seeds."""
    schedule, c, mu = SCHEDULES[name], 0.4, 0.3
    grid = smooth_grid(schedule, 3)
    problem = Gaussian([mu] * 2, c)
    chosen = exact_moments(schedule, grid, c) if variance == "measured" else variance
    x_0 = problem.sample(2000, torch.Generator().manual_seed(1))
    bound = sd.discrete_bound(problem.denoiser(schedule), x_0, grid, variance=chosen, batch=999)
    alpha_t, sigma_t = (float(v) for v in schedule(float(grid[0])))
    prior = alpha_t**2 * (c + mu**2) / (2 * sigma_t**2)
    means = [prior, *expected(schedule, grid, gaussian_error(schedule, c), chosen)]
    assert [term.name for term in bound.terms] == ["L_T", "L_t", "L_t", "L_t", "L_0"]
    for term, mean in zip(bound.terms, means, strict=True):
        assert abs(term.nats - 2 * mean) < 4.5 * term.standard_error + 1e-12
    assert sum(term.nats for term in bound.terms) == pytest.approx(bound.nats)
    parts = (bound.prior, bound.diffusion, bound.reconstruction)
    assert sum(parts) == pytest.approx(bound.nats)
    assert bound.bits_per_dimension == pytest.approx(bound.nats / (2 * math.log(2)))


def mixture_error(problem, lambdas):
    """E Var[x_0 | x] of a mixture on the line, alpha = 1, sigma = e^-lambda: trapezoid rule."""
    sigma = torch.exp(-torch.as_tensor(lambdas, dtype=DOUBLE))
    reach = 10 + 9 * sigma[:, None]
    x = reach * torch.linspace(-1, 1, 1201, dtype=DOUBLE)
    levels = sigma[:, None].expand_as(x).reshape(-1)
    flat = x.reshape(-1, 1)
    density = problem.log_prob(flat, torch.ones_like(levels), levels).exp()
    spread = problem.covariance(flat, torch.ones_like(levels), levels)[:, 0, 0]
    return torch.trapezoid((density * spread).reshape(x.shape), x, dim=1)


LINE = st.tuples(
    st.floats(0.1, 0.9), st.floats(-1.5, 0.0), st.floats(0.0, 1.5), st.floats(0.05, 1.0)
)


@settings(max_examples=10, deadline=None)
@given(LINE)
def test_discrete_bound_tends_to_the_continuous_from_above(parameters):
    """At rate 1/N, for mixtures of two Gaussians (one, where means meet): twice N, half the gap."""
    weight, left, right, variance = parameters
    problem = GaussianMixture([weight, 1 - weight], [[left], [right]], [variance, variance / 2])
    low, high = -2.0, 2.5
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(80))
    levels = low + (high - low) * (nodes + 1) / 2
    error = mixture_error(problem, levels)
    continuous = float((weights * (high - low) / 2 * torch.exp(2 * levels) * error).sum())
    gaps = []
    for count in (64, 128):
        steps = torch.linspace(low, high, count + 1, dtype=DOUBLE)
        grid = sd.EDM().time_of(steps)
        known = dict(zip(grid.tolist(), mixture_error(problem, steps).tolist(), strict=True))
        gaps.append(sum(expected(sd.EDM(), grid, known.get, "posterior")[:-1]) - continuous)
    assert gaps[0] > gaps[1] > 0
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.1)


@settings(max_examples=10, deadline=None)
@given(LINE)
def test_integral_of_the_exact_denoiser_is_the_entropy(parameters):
    """I-MMSE: L_T + integral + L_0 = entropy + the gap at the noisy end, as the clean end -> 0."""
    weight, left, right, variance = parameters
    problem = GaussianMixture([weight, 1 - weight], [[left], [right]], [variance, variance / 2])
    low, high = -5.0, 6.0
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(120))
    levels = low + (high - low) * (nodes + 1) / 2
    error = mixture_error(problem, levels)
    integral = float((weights * (high - low) / 2 * torch.exp(2 * levels) * error).sum())
    second = float(problem.data_covariance()[0, 0] + problem.mean[0] ** 2)
    total = second * math.exp(2 * low) / 2 + integral + (1 + math.log(2 * math.pi)) / 2 - high

    x = torch.linspace(-9, 9, 6001, dtype=DOUBLE)
    log_p = problem.log_prob(x[:, None], 1.0, 0.0)
    entropy = -float(torch.trapezoid(log_p.exp() * log_p, x))
    # KL(q(x_T) || N(0, sigma_T^2)) <= second^2 e^{4 low}/4 + mean^2 e^{2 low}/2
    gap = float(problem.mean[0] ** 2) * math.exp(2 * low) / 2
    assert total == pytest.approx(entropy + gap, abs=3e-4)


@pytest.mark.parametrize("name", ["vp", "cosine", "edm", "flow"])
@pytest.mark.parametrize("how", ["stratified", "quadrature", "importance"])
def test_integral_of_a_known_error(name, how):
    """A denoiser off by g(t) in every coordinate whatever the noise: the integral is known."""
    schedule = SCHEDULES[name]
    w = lambda t: torch.nn.functional.softplus(2 * schedule.half_log_snr(t)) / 2
    x_0 = torch.full((5, 3), 0.7, dtype=DOUBLE)
    t_start, t_end = (float(schedule.time_of(v)) for v in (-1.5, 3.0))
    ends = [float(w(torch.tensor(t, dtype=DOUBLE))) for t in (t_start, t_end)]

    def off(power):  # (1 + SNR) g^2 = w^power
        def function(x, t):
            t = torch.as_tensor(t, dtype=DOUBLE)
            g = (w(t) ** power * torch.exp(-2 * w(t))).sqrt()
            return 0.7 - g.reshape(-1, *[1] * (x.ndim - 1)).expand_as(x)

        return sd.FunctionDenoiser(function, schedule, per_sample=True)

    options = {"t_start": t_start, "t_end": t_end, "points": 9}
    if how == "importance":
        times = [float(schedule.time_of(v)) for v in torch.linspace(-1.5, 3.0, 9).tolist()]
        options["importance"] = sd.measure_moments(off(0), x_0, times)
        options["points"] = 400
    else:
        options["method"] = how
    flat = sd.continuous_bound(off(0), x_0, **options)
    tolerance = {"stratified": 1e-9, "quadrature": 1e-9, "importance": 2e-3}[how]
    assert flat.diffusion == pytest.approx(3 * (ends[1] - ends[0]), rel=tolerance)
    curved = sd.continuous_bound(off(2), x_0, **options).diffusion
    tolerance = {"stratified": 1e-1, "quadrature": 1e-9, "importance": 2e-3}[how]
    assert curved == pytest.approx(ends[1] ** 3 - ends[0] ** 3, rel=tolerance)
    assert flat.reconstruction == pytest.approx(
        3 * (1 + math.log(2 * math.pi) + 2 * math.log(schedule.rho(t_end))) / 2
    )


def test_places_of_the_levels_are_uniform():
    """One level a sample, anywhere: no bias, within 4.5 standard errors (1 of 10^5 seeds)."""
    w = lambda t: torch.nn.functional.softplus(2 * VP.half_log_snr(t)) / 2

    def function(x, t):  # (1 + SNR) |x_0 - d|^2 = w^2
        t = torch.as_tensor(t, dtype=DOUBLE)
        return (w(t) * torch.exp(-w(t))).reshape(-1, 1).expand_as(x)

    denoiser = sd.FunctionDenoiser(function, VP, per_sample=True)
    ends = [float(w(torch.tensor(t, dtype=DOUBLE))) for t in (1.0, 0.01)]
    x_0 = torch.zeros(5000, 1, dtype=DOUBLE)
    bound = sd.continuous_bound(denoiser, x_0, points=1, t_end=0.01, batch=5000)
    truth = (ends[1] ** 3 - ends[0] ** 3) / 3
    assert abs(bound.diffusion - truth) < 4.5 * bound.standard_error


def test_the_last_variance_is_that_of_the_step_before():
    """DDPM's tables: betatilde_1 = 0 is replaced by betatilde_2 = beta_2 (1 - ab_1)/(1 - ab_2)."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=DOUBLE)
    bar = (1 - beta).cumprod(0)
    second = float(beta[1] * (1 - bar[0]) / (1 - bar[1]))
    schedule = sd.ddpm_linear()
    lower, upper = logarithms(reverse_steps(schedule, [0.003, 0.002, 0.001, 0.0]))
    assert lower[-2:] == pytest.approx([math.log(second)] * 2, rel=1e-6)
    assert upper == pytest.approx(beta[:3].log().flip(0).tolist(), rel=1e-6)


def test_bins_of_discrete_data_have_the_entropy_of_the_data():
    """A pixel of five grey levels: the continuous bound is the entropy of its probabilities.

    Within 4.5 standard errors and 0.01 for the ends: a false alarm in 1 of 10^5 seeds.
    """
    values, p = torch.linspace(-1, 1, 5, dtype=DOUBLE)[:, None], [0.1, 0.4, 0.2, 0.2, 0.1]
    problem = GaussianMixture(p, values, [1e-10] * 5)
    draw = torch.multinomial(
        torch.tensor(p), 3000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    bins = sd.Bins(0.5)
    entropy = -sum(v * math.log(v) for v in p)
    sharp = problem.denoiser(VP)
    bound = sd.continuous_bound(sharp, values[draw], bins=bins, points=64, batch=4096)
    assert bound.discrete
    assert abs(bound.nats - entropy) < 4.5 * bound.standard_error + 0.01
    few = sd.discrete_bound(sharp, values[draw], sd.times.uniform(VP, 20), bins=bins, batch=4096)
    assert few.nats > entropy + 0.05  # of few steps, from above


def test_bound_of_a_data_set_is_that_of_its_points():
    """Points as far apart as the noise is small: -log p = log of their number, up to the ends."""
    points = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=DOUBLE)
    bins = sd.Bins(2.0)
    bound = sd.continuous_bound(
        DataSet(points).denoiser(sd.FlowMatching()), points.repeat(300, 1), bins=bins, points=64
    )
    assert abs(bound.nats - math.log(4)) < 4.5 * bound.standard_error + 1e-3


def test_standard_error_covers():
    """The true mean within two standard errors in 95 % of repetitions (binomial, 200 of them).

    The count is outside 180 .. 199 in about 1 of 500 seeds.
    """
    schedule, c = VP, 0.5
    grid = smooth_grid(schedule, 2)
    problem = Gaussian([0.0], c)
    means = expected(schedule, grid, gaussian_error(schedule, c), "posterior")
    alpha_t, sigma_t = (float(v) for v in schedule(float(grid[0])))
    truth = alpha_t**2 * c / (2 * sigma_t**2) + sum(means)
    inside = 0
    for seed in range(200):
        x_0 = problem.sample(60, torch.Generator().manual_seed(seed))
        bound = sd.discrete_bound(problem.denoiser(schedule), x_0, grid, seed=seed)
        inside += abs(bound.nats - truth) < 2 * bound.standard_error
    assert 180 <= inside <= 199
