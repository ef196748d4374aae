"""Reverse variances: measured moments, the plan they make, and what a network has learned."""

import json
import math

import pytest
import torch
from enumeration import SCHEDULES, smooth_grid
from hypothesis import given, settings
from hypothesis import strategies as st

import sde_diffusion as sd
from sde_diffusion.problems import Gaussian, two_gaussians
from sde_diffusion.reverse import reverse_step
from sde_diffusion.solvers import ddim, ddpm
from sde_diffusion.variances import analytic_variance

DOUBLE = torch.float64
VP = sd.VPLinear()


def moments_of(schedule, times, c):
    """The exact moments of N(mu, c) data in every coordinate."""
    levels = [float(t) for t in times if schedule.sigma(float(t)) > 0]
    lambdas = [float(schedule.half_log_snr(t)) for t in levels]
    error = [c / (math.exp(2 * v) * c + 1) for v in lambdas]
    noise = [1 - e * math.exp(2 * v) for e, v in zip(error, lambdas, strict=True)]
    return sd.Moments(tuple(lambdas), tuple(error), tuple(noise))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.integers(1, 5),
    st.floats(0.0, 1.0),
    st.floats(0.05, 4.0),
    st.sampled_from(["noise", "error"]),
    st.booleans(),
)
def test_steps_of_any_length_keep_gaussian_data(name, steps, eta, c, kind, to_zero):
    """Every marginal, by the exact law of the plan: DDPM and DDIM steps, however few."""
    schedule = SCHEDULES[name]
    grid = smooth_grid(schedule, steps).tolist()
    if to_zero and schedule.sigma(schedule.t_min) == 0:
        grid.append(schedule.t_min)
    moments = moments_of(schedule, grid, c)
    plan = sd.analytic_dpm(schedule, grid, moments, eta=eta, kind=kind, denoise=False)
    mean, variance = plan.law(schedule, 0.3, c)
    alpha, sigma = (float(v) for v in schedule(grid[-1]))
    assert float(mean) == pytest.approx(0.3 * alpha, rel=1e-9)
    assert float(variance) == pytest.approx(alpha**2 * c + sigma**2, rel=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_without_spread_it_is_ddim(name, eta):
    """A denoiser that knows the data (noise = 1) leaves DDIM's own variance."""
    schedule = SCHEDULES[name]
    grid = smooth_grid(schedule, 4)
    moments = sd.Moments((-3.0, 3.0), (1e-30, 1e-30), (1.0, 1.0))
    for kind in ("noise", "error"):
        plan = sd.analytic_dpm(schedule, grid, moments, eta=eta, kind=kind)
        assert plan.equals(ddim(schedule, grid, eta=eta), tolerance=1e-7)


def test_with_unit_variance_on_vp_it_is_ddpm_with_beta():
    """What DDPM's larger variance is for: white data of variance 1, variance-preserving."""
    grid = smooth_grid(VP, 5)
    plan = sd.analytic_dpm(VP, grid, moments_of(VP, grid, 1.0))
    assert plan.equals(ddpm(VP, grid, variance="beta"))


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_no_other_variance_has_a_smaller_bound(variance):
    """On a mixture, with the same noise: below DDPM's two, and below itself times 0.8 or 1.25."""
    problem = two_gaussians()
    grid = smooth_grid(VP, 3).tolist()
    x_0 = problem.sample(4000, torch.Generator().manual_seed(0))
    denoiser = problem.denoiser(VP)
    best = sd.measure_moments(denoiser, x_0, grid)
    least = sd.discrete_bound(denoiser, x_0, grid, variance=best).nats
    assert least < sd.discrete_bound(denoiser, x_0, grid, variance=variance).nats - 0.05
    for factor in (0.8, 1.25):
        error = tuple(factor * e for e in best.error)
        other = sd.Moments(best.lambda_, error, best.noise)
        assert least < sd.discrete_bound(denoiser, x_0, grid, variance=other).nats


@pytest.mark.parametrize("name", SCHEDULES)
def test_measured_moments_are_the_posterior_variance(name):
    """Both, on Gaussian data: within 5 standard errors (a false alarm in 1 of 10^5 seeds)."""
    schedule, c, n = SCHEDULES[name], 0.3, 3000
    problem = Gaussian([0.5] * 4, c)
    grid = [float(schedule.time_of(v)) for v in (-1.0, 0.0, 1.5)]
    x_0 = problem.sample(n, torch.Generator().manual_seed(2))
    measured = sd.measure_moments(problem.denoiser(schedule), x_0, grid, draws=2)
    exact = moments_of(schedule, grid, c)
    assert measured.lambda_ == pytest.approx(exact.lambda_)
    for mine, true in ((measured.error, exact.error), (measured.noise, exact.noise)):
        for value, mean in zip(mine, true, strict=True):  # each a mean of 2 n D squares of normals
            assert abs(value / mean - 1) < 5 * math.sqrt(2 / (n * 4))


def test_moments_between_and_beyond_their_levels():
    moments = sd.Moments((-math.inf, -1.0, 1.0), (0.8, 0.5, 0.02), (0.0, 0.6, 0.9))
    assert moments.variance(-1.0, "error") == pytest.approx(0.5)
    assert moments.variance(0.0, "error") == pytest.approx(math.sqrt(0.5 * 0.02))
    assert moments.variance(-math.inf, "error") == pytest.approx(0.8)
    assert moments.variance(-9.0, "error") == pytest.approx(0.8, rel=1e-6)
    assert moments.variance(0.0, "noise") == pytest.approx(1 - 0.75)
    assert moments.variance(1.0, bound=0.01) == 0.01
    assert sd.Moments((0.0,), (1.0,), (1.3,)).variance(0.0, "noise") == 0  # no variance is below 0
    for level, kind, message in (
        (1.1, "error", "outside"),
        (-math.inf, "noise", "tells nothing"),
        (0.0, "eror", "did you mean 'error'"),
    ):
        with pytest.raises(ValueError, match=message):
            moments.variance(level, kind)


def test_moments_in_a_file(tmp_path):
    path = tmp_path / "moments.json"
    moments = sd.Moments((-math.inf, 0.1, 1.0), (0.8, 0.5, 1 / 3), (0.0, 0.6, 0.9), 7, 2)
    moments.save(path)
    assert sd.Moments.load(path) == moments
    assert sd.Moments.from_json(json.loads(json.dumps(moments.to_json()))) == moments
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ValueError, match="is damaged"):
        sd.Moments.load(path)
    (tmp_path / "other.json").write_text('{"format": "x"}')
    with pytest.raises(ValueError, match="holds no moments"):
        sd.Moments.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    "arguments",
    [
        ((1.0, 0.0), (0.5, 0.5), (0.5, 0.5)),
        ((0.0,), (0.5, 0.5), (0.5,)),
        ((0.0, math.inf), (0.5, 0.5), (0.5, 0.5)),
        ((0.0,), (0.0,), (0.5,)),
        ((0.0,), (0.5,), (math.nan,)),
        ((), (), ()),
    ],
)
def test_moments_refuse(arguments):
    with pytest.raises(ValueError, match=r"lambda|error = |noise = "):
        sd.Moments(*arguments)


def test_measuring_refuses_what_does_not_fit():
    denoiser = Gaussian([0.0], 1.0).denoiser(VP)
    x_0 = torch.zeros(3, 1, dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"t = 2 lies outside"):
        sd.measure_moments(denoiser, x_0, [2.0])
    with pytest.raises(ValueError, match="none of them has sigma > 0"):
        sd.measure_moments(denoiser, x_0, [0.0])
    with pytest.raises(TypeError, match="NetworkDenoiser"):
        sd.measure_moments(lambda x, t: x, x_0, [0.5])


def test_bounds_of_the_paper():
    """Data in [a, b] have a variance of at most ((b - a)/2)^2, and the last noise its largest."""
    grid = [0.9, 0.5, 0.1, 0.0]
    moments = moments_of(VP, grid, 4.0)
    step = reverse_step(VP, 0.9, 0.5)
    free, bound = (analytic_variance(VP, step, moments, "noise", r) for r in (None, (-1.0, 1.0)))
    assert bound == pytest.approx(step.posterior + step.on_d**2)
    assert free > bound
    plan = sd.analytic_dpm(VP, grid, moments, last_noise=0.01)
    noises = [row.z for row in plan.rows if row.z]
    assert len(noises) == 2  # none in the step to sigma = 0
    assert noises[1][1] == 0.01 < noises[0][0]
    ends_with_noise = sd.analytic_dpm(VP, grid[:-1], moments, last_noise=0.01)
    assert [row.z for row in ends_with_noise.rows if row.z][1][1] == 0.01


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"moments": None}, TypeError, "measure_moments"),
        ({"eta": 1.5}, ValueError, "eta = 1.5"),
        ({"last_noise": 0.0}, ValueError, "last_noise = 0.0 must be positive"),
        ({"data_range": (1.0, -1.0)}, ValueError, "low < high"),
        ({"kind": "errors"}, ValueError, "did you mean 'error'"),
        ({"times": [0.99, 0.5]}, ValueError, "where the moments were measured"),
    ],
)
def test_analytic_dpm_refuses(options, kind, message):
    grid = [0.9, 0.5, 0.2]
    given_ = {"times": grid, "moments": moments_of(VP, grid, 1.0), **options}
    with pytest.raises(kind, match=message):
        sd.analytic_dpm(VP, **given_)


def test_by_name_in_sample():
    problem = Gaussian([0.0] * 2, 0.5)
    denoiser, grid = problem.denoiser(VP), sd.times.uniform(VP, 4)
    options = {"moments": moments_of(VP, grid, 0.5), "eta": 0.3}
    plan = sd.analytic_dpm(VP, grid, **options)
    assert sd.sample(denoiser, (5, 2), solver=plan, seed=0).equal(
        sd.sample(denoiser, (5, 2), solver="analytic_dpm", times=grid, seed=0, **options)
    )
    with pytest.raises(TypeError, match="did you mean 'moments'"):
        sd.sample(denoiser, (5, 2), solver="analytic_dpm", moment=options["moments"])
