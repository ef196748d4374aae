"""Methods whose variance is far from that of the data: no overshooting."""

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion import inverse

SCHEDULE = sd.VPLinear()
WIDE = 50.0


def _problem():
    """Sixteen strongly correlated numbers, of which every other one is measured."""
    ones = torch.ones(16, 16, dtype=torch.float64) / 16
    covariance = WIDE * ones + 0.05 * torch.eye(16, dtype=torch.float64)
    prior = sd.problems.GaussianMixture([1.0], torch.zeros(1, 16), covariance[None])
    seen = torch.arange(16) % 2 == 0
    x = prior.sample(1, torch.Generator().manual_seed(0))[0]
    return prior, inverse.Measurement.simulate(inverse.Mask(seen), x, noise=0.1, seed=0)


def _differences(noise):
    """A^T 1 is 0 but at the ends, and so are the row sums of A Cov A^T that TMPD goes by."""
    prior, _ = _problem()
    operator = inverse.LinearFunctionOperator(lambda x: x.diff(dim=-1), (16,))
    x = prior.sample(1, torch.Generator().manual_seed(0))[0]
    return prior, inverse.Measurement.simulate(operator, x, noise=noise, seed=0)


@pytest.mark.parametrize(
    ("method", "make"),
    [
        (inverse.dps, _problem),
        (inverse.pigdm, _problem),
        (inverse.tmpd, lambda: _differences(0.1)),
    ],
)
def test_a_call_never_leaves_the_measurement_farther_away(method, make):
    prior, measurement = make()
    denoiser = prior.denoiser(SCHEDULE)
    guided = method(denoiser, measurement)
    noise = torch.randn(64, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shortened = 0
    for t in (0.05, 0.3, 0.6, 0.9):
        x = 3 * noise
        d = denoiser(x, t)
        before, after = (measurement.residual(v).norm(dim=1) for v in (d, guided(x, t)))
        assert (after <= before * (1 + 1e-9)).all()
        shortened += int((after > before * (1 - 1e-9)).sum())
    assert shortened > 0  # where it was cut back, it is exactly as far as before


@pytest.mark.parametrize("method", [inverse.dps, inverse.pigdm])
@pytest.mark.parametrize("options", [{}, {"solver": "ddim", "eta": 1.0}])
def test_samples_of_correlated_data_agree_with_the_measurement(method, options):
    """Without the bound they are 10^2 to 10^9 away."""
    prior, measurement = _problem()
    guided = method(prior.denoiser(SCHEDULE), measurement)
    x = sd.sample(guided, (64, 16), steps=20, seed=0, dtype=torch.float64, **options)
    assert float(measurement.residual(x).square().mean().sqrt()) < 0.5
    # The unmeasured numbers follow the measured ones, as the prior says.
    exact = measurement.posterior(prior)
    assert float((x.mean(0) - exact.mean).abs().max()) < 0.3


@pytest.mark.parametrize("noise", [1e-4, 0.0])
def test_samples_by_differences_stay_where_the_data_are(noise):
    """Their row sums cancel: without the bound samples run away."""
    prior, measurement = _differences(noise)
    guided = inverse.tmpd(prior.denoiser(SCHEDULE), measurement)
    x = sd.sample(guided, (64, 16), solver="ddim", eta=1.0, steps=20, seed=0, dtype=torch.float64)
    assert float(x.abs().max()) < 5 * WIDE**0.5
    other = prior.sample(64, torch.Generator().manual_seed(1))
    near, far = (float(measurement.residual(v).square().mean().sqrt()) for v in (x, other))
    assert near < 0.4 * far
