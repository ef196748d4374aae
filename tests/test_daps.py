"""Decoupled annealing: exact on normal data of one variance, by linear maps and without them."""

import math

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.inverse import FunctionOperator, Matrix, Measurement, daps
from sde_diffusion.inverse.daps import _norm2
from sde_diffusion.inverse.posterior import Linearised

F64 = torch.float64
SCHEDULE, DIM, VARIANCE = sd.VPLinear(), 3, 0.5


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def problem(operator=None):
    prior = sd.problems.GaussianMixture([1.0], normal(1, DIM), [VARIANCE])
    return prior, Measurement(operator or Matrix(normal(2, DIM, seed=1)), normal(2, seed=2), 0.3)


def start_of(law, n, t, seed=1):
    return law.sample_marginal(n, *SCHEDULE(t), torch.Generator().manual_seed(seed))


def check_moments(x, law, n):
    """Every mean within 5 deviations of its error and every covariance within 5: with 3 + 6
    normal numbers a false alarm in 10^5."""
    mean, covariance = law.mean.flatten(), law.data_covariance()
    scale = covariance.diagonal().sqrt()
    assert ((x.mean(0) - mean) / scale * math.sqrt(n)).abs().max() < 5
    spread = (covariance**2 + torch.outer(scale, scale) ** 2).sqrt() / math.sqrt(n)
    assert ((x.T.cov() - covariance) / spread).abs().max() < 5


@pytest.mark.parametrize("times", [[0.9, 0.5, 0.2, 0.0], [0.6, 0.0]])
def test_exact_draws_keep_the_posterior(times):
    """From x_t ~ p(x_t | y) each level leads to p(x_s | y), however long the steps."""
    (prior, measurement), n = problem(), 20_000
    posterior = measurement.posterior(prior)
    x = start_of(posterior, n, times[0])
    out = daps(prior.denoiser(SCHEDULE), x, times, measurement, variance=VARIANCE, noise=3)
    assert out.nfe == len(times) - 1
    check_moments(out.x, posterior, n)
    wrong = daps(prior.denoiser(SCHEDULE), x, times, measurement, variance=4 * VARIANCE, noise=3)
    with pytest.raises(AssertionError):
        check_moments(wrong.x, posterior, n)


@pytest.mark.parametrize("hidden", [False, True])
def test_langevin_steps_keep_the_posterior_nearly(hidden):
    """Short steps, many of them; the operator says that it is linear, or does not."""
    matrix = normal(2, DIM, seed=1)
    function = FunctionOperator(lambda x: x @ matrix.T.to(x), (DIM,))
    (prior, measurement), n = problem(function if hidden else None), 2_000
    _, linear = problem()
    posterior = linear.posterior(prior)
    x = start_of(posterior, n, 0.5)
    out = daps(
        *(prior.denoiser(SCHEDULE), x, [0.5, 0.0], measurement),
        **{"variance": VARIANCE, "langevin_steps": 600, "step": 0.02, "noise": 3},
    )
    check_moments(out.x, posterior, n)


def test_langevin_steps_are_as_short_as_the_measurement_is_sharp():
    """Steps in units of r_t^2 alone would be 1,000 times too long here, and grow at each step."""
    (prior, blunt), x = problem(), normal(50, DIM)
    sharp = Measurement(blunt.operator, blunt.y, 0.005)
    denoiser = prior.denoiser(SCHEDULE)
    out = daps(denoiser, x, [0.5, 0.0], sharp, langevin_steps=2_000, step=0.5, noise=3).x
    before, after = (sharp.residual(v).norm(dim=1).mean() for v in (denoiser(x, 0.5), out))
    assert after < 0.05 * before


def test_a_sample_is_its_own_whatever_its_batch():
    prior, _ = problem()
    operator = Matrix(normal(4, DIM, seed=1))  # more measured numbers than data
    measurement = Measurement.simulate(operator, prior.sample(3), 0.3)
    x, who = normal(3, DIM), torch.tensor([1])
    denoiser = prior.denoiser(SCHEDULE)
    for options in ({}, {"langevin_steps": 3}, {"ode_steps": 2}):
        together = daps(denoiser, x, [0.9, 0.4, 0.0], measurement, noise=[4, 5, 6], **options)
        alone = daps(
            denoiser, x[who], [0.9, 0.4, 0.0], measurement.select(who), noise=[5], **options
        )
        torch.testing.assert_close(together.x[who], alone.x)
        assert together.nfe == 2 * options.get("ode_steps", 1)


def test_many_ode_steps_lead_to_the_end_of_the_trajectory():
    """Nothing measured and r_t = 0: the draw is the end of the probability flow itself."""
    prior, _ = problem()
    blind = Measurement(Matrix(normal(2, DIM, seed=1)), normal(2), 1e9)
    x = normal(4, DIM)
    errors = []
    for steps in (20, 40, 80):
        out = daps(
            *(prior.denoiser(SCHEDULE), x, [0.7, 0.0], blind),
            **{"variance": 1e-18, "ode_steps": steps, "noise": 1},
        )
        errors.append(float((out.x - prior.endpoint(x, SCHEDULE, 0.7, 0.0)).abs().max()))
    assert errors[-1] < 0.05
    assert errors[1] / errors[2] > 1.7  # first order


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"variance": 0.0}, "variance = 0.0 must be a number above 0"),
        ({"step": 1.5}, "step = 1.5"),
        ({"ode_steps": 0}, "ode_steps = 0"),
        ({"langevin_steps": 0}, "langevin_steps = 0"),
    ],
)
def test_settings_out_of_range_are_named(options, word):
    prior, measurement = problem()
    with pytest.raises(ValueError, match=word):
        daps(prior.denoiser(SCHEDULE), normal(2, DIM), [0.5, 0.0], measurement, **options)


def test_the_length_of_langevin_steps_is_from_the_largest_singular_value():
    """Ratios of 1 to 2.5 between the eigenvalues of A^T A: ten products find the largest."""
    matrix = torch.diag(torch.tensor([3.0, 1.9, 0.5], dtype=F64)) @ torch.linalg.qr(normal(3, 3))[0]
    around = Linearised(Measurement(Matrix(matrix), normal(3, seed=2), 0.3), normal(5, DIM))
    torch.testing.assert_close(
        _norm2(around), torch.full((5, 1), 9.0, dtype=F64), rtol=1e-3, atol=0.0
    )


def test_a_nonlinear_operator_has_a_hundred_langevin_steps():
    prior, _ = problem()
    squared = Measurement(FunctionOperator(lambda x: x**2, (DIM,)), normal(DIM).abs(), 0.3)
    run = lambda steps: daps(
        *(prior.denoiser(SCHEDULE), normal(2, DIM), [0.5, 0.0], squared),
        **{"langevin_steps": steps, "noise": 3},
    )
    assert torch.equal(run(None).x, run(100).x)


def test_an_infinite_variance_needs_a_state_that_says_something():
    prior, measurement = problem()
    denoiser, x = prior.denoiser(sd.FlowMatching()), normal(2, DIM)
    with pytest.raises(ValueError, match="variance = inf at a time where alpha = 0"):
        daps(denoiser, x, [1.0, 0.5, 0.0], measurement, variance=math.inf)
    assert daps(denoiser, x, [0.9, 0.0], measurement, variance=math.inf, noise=1).nfe == 1


def test_langevin_needs_noise_and_finite_answers():
    prior, measurement = problem()
    sharp = Measurement(measurement.operator, measurement.y, 0.0)
    x, denoiser = normal(2, DIM), prior.denoiser(SCHEDULE)
    with pytest.raises(ValueError, match="without noise"):
        daps(denoiser, x, [0.5, 0.0], sharp, langevin_steps=5)
    exact = daps(denoiser, x, [0.5, 0.0], sharp, noise=1).x
    assert sharp.residual(exact).abs().max() < 1e-9
    broken = sd.FunctionDenoiser(lambda x, t: x / 0, SCHEDULE)
    with pytest.raises(FloatingPointError, match="t = 0"):
        daps(broken, x, [0.5, 0.0], measurement)
    with pytest.raises(TypeError, match="has no schedule"):
        daps(lambda x, t: x, x, [0.5, 0.0], measurement)
