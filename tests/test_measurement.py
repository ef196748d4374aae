"""Measurements: residual, likelihood, and the exact posterior; what cannot be measured."""

import math

import pytest
import torch
from operators_listed import LINEAR, OPERATORS, Smoothing

from sde_diffusion.inverse import Mask, Matrix, Measurement, Operator
from sde_diffusion.problems import Gaussian, ring, spectrum_mixture

F64 = torch.float64


def _x(shape, batch=3):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, *shape, generator=generator, dtype=F64)


@pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS.keys())
def test_likelihood_is_the_normal_density(make):
    operator = make()
    x = _x(operator.event_shape)
    for measurement in (
        Measurement.simulate(operator, x[0], 0.3),
        Measurement.simulate(operator, x, 0.3),
    ):
        law = torch.distributions.Normal(operator(x), 0.3)
        expected = law.log_prob(measurement.y).flatten(1).sum(1)
        torch.testing.assert_close(measurement.log_likelihood(x), expected)
        assert torch.equal(measurement.residual(x), measurement.y - operator(x))


def test_simulated_noise_has_its_level_and_its_seed():
    operator, x = Matrix(torch.eye(50, dtype=F64)), torch.zeros(400, 50, dtype=F64)
    one, same, other = (Measurement.simulate(operator, x, 0.3, seed) for seed in (1, 1, 2))
    # 20,000 draws: the deviation is known to 0.5 %, so 2.5 % is a false alarm in 10^6.
    assert one.y.std() == pytest.approx(0.3, rel=0.025)
    assert torch.equal(one.y, same.y)
    assert not torch.equal(one.y, other.y)
    single = Measurement.simulate(operator, x.float(), 0.3, 1)
    torch.testing.assert_close(single.y, one.y.float())
    assert torch.equal(Measurement.simulate(operator, x, 0.0).y, operator(x))


def test_select_takes_the_measurements_of_some_samples():
    operator = Smoothing()
    x = _x(operator.event_shape)
    measurement, who = Measurement.simulate(operator, x, 0.1), torch.tensor([2, 0])
    assert torch.equal(measurement.select(who).residual(x[who]), measurement.residual(x)[who])
    assert len(measurement.y) == 3
    for_all = Measurement.simulate(operator, x[0], 0.1)
    assert for_all.select(who) is for_all


def test_posterior_and_evidence_of_a_measurement():
    prior = spectrum_mixture(3, 12).shaped(4, 3)
    operator = Smoothing()
    measurement = Measurement.simulate(operator, prior.sample(1)[0], 0.2)
    matrix, y = operator.matrix(), measurement.y.flatten()
    exact = prior.posterior(matrix, y, 0.2)
    assert torch.equal(measurement.posterior(prior).mean, exact.mean)
    assert exact.mean.shape == (4, 3)
    assert measurement.evidence(prior) == prior.evidence(matrix, y, 0.2)


def test_float32_states_meet_float64_measurements():
    operator = LINEAR["a wide matrix"]()
    x = _x(operator.event_shape)
    measurement = Measurement.simulate(operator, x, 0.1)
    residual = measurement.residual(x.float())
    assert residual.dtype is torch.float32
    torch.testing.assert_close(residual.double(), measurement.residual(x), rtol=1e-4, atol=1e-5)


class Square(Operator):
    event_shape = measured_shape = (2,)

    def apply(self, x):
        return x**2


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"operator": torch.eye(2)}, TypeError, "operator is Tensor, not an Operator"),
        ({"y": [0.0, 0.0]}, TypeError, "y is list"),
        ({"y": torch.zeros(2).long()}, TypeError, "y is torch.int64"),
        ({"y": torch.zeros(3)}, ValueError, r"y has shape \(3,\), but .* shape \(2,\)"),
        ({"y": torch.zeros(1, 1, 2)}, ValueError, "one for all samples"),
        ({"y": torch.tensor([math.inf, 0.0])}, ValueError, "not finite"),
        ({"noise": -0.1}, ValueError, "noise = -0.1 must be a standard deviation"),
        ({"noise": math.inf}, ValueError, "noise = inf must be a standard deviation"),
        ({"noise": "loud"}, TypeError, "noise = 'loud' is no number"),
        ({"noise": "0.1"}, TypeError, "noise = '0.1' is no number"),
        ({"noise": True}, TypeError, "noise = True is no number"),
    ],
)
def test_measurements_that_cannot_be(change, error, says):
    good = {"operator": Matrix(torch.eye(2)), "y": torch.zeros(2), "noise": 0.1}
    with pytest.raises(error, match=says):
        Measurement(**{**good, **change})


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_measurement_keeps_what_was_measured(dtype, batch):
    y = torch.ones(*batch, 2, dtype=dtype)
    measurement = Measurement(Matrix(torch.eye(2)), y, 0.1)
    y.mul_(100)
    assert torch.equal(measurement.y, torch.ones_like(y))
    for some in (measurement, measurement.select(torch.arange(3))):
        assert torch.equal(some.residual(torch.zeros(3, 2)), torch.ones(3, 2))


def test_data_and_priors_that_are_not():
    operator = Mask(torch.tensor([True, False]))
    with pytest.raises(ValueError, match="x_0 has entries that are not finite"):
        Measurement.simulate(operator, torch.tensor([0.0, math.nan]), 0.1)
    with pytest.raises(TypeError, match=r"prior is Gaussian, .* GaussianMixture\(\[1.0\]"):
        Measurement(operator, torch.zeros(1), 0.1).posterior(Gaussian([0.0, 0.0], 1.0))


def test_questions_without_an_answer():
    operator = Mask(torch.tensor([True, False]))
    with pytest.raises(ValueError, match="a measurement without noise has no likelihood"):
        Measurement(operator, torch.zeros(1), 0.0).log_likelihood(torch.zeros(3, 2))
    several = Measurement(operator, torch.zeros(4, 1), 0.1)
    with pytest.raises(ValueError, match="4 measurements, one a sample, but 3 samples"):
        several.residual(torch.zeros(3, 2))
    for method in ("posterior", "evidence"):
        with pytest.raises(ValueError, match="each with a posterior of its own"):
            getattr(several, method)(ring())
        with pytest.raises(TypeError, match="Square is not linear"):
            getattr(Measurement(Square(), torch.zeros(2), 0.1), method)(ring())
        with pytest.raises(ValueError, match=r"write prior.shaped"):
            getattr(Measurement(operator, torch.zeros(1), 0.1), method)(ring().shaped(1, 2))
