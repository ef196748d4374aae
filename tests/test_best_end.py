"""Where a bound should end: free for an exact denoiser, at the edge of what another knows."""

import math

import pytest
import torch
from enumeration import SCHEDULES

import sde_diffusion as sd
from sde_diffusion.problems import Gaussian, two_gaussians

VP = sd.VPLinear()


def test_the_end_of_an_exact_denoiser_is_free():
    """On Gaussian data every end has the entropy for its bound, if v is the posterior variance."""
    problem = Gaussian([0.0] * 3, 0.4)
    x_0 = problem.sample(2000, torch.Generator().manual_seed(0))
    end = sd.bounds.best_end(problem.denoiser(VP), x_0, levels=60)
    entropy = 3 * math.log(2 * math.pi * math.e * 0.4) / 2
    # The least of 60 correlated values, each of a standard error near 0.04: 0.2 is far below.
    assert entropy - 0.2 < end.nats < entropy + 0.05
    low, high = VP.half_log_snr(VP.t_max), VP.half_log_snr(VP.t_clean)
    assert (end.moments.lambda_[0], end.moments.lambda_[-1]) == pytest.approx((low, high))


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_the_end_is_where_the_model_ceases_to_know(name):
    """A denoiser that is exact up to lambda = 1 and knows nothing beyond: the end lies there.

    Within 4.5 standard errors: a false alarm in 1 of 10^5 seeds.
    """
    schedule = SCHEDULES[name]
    problem = Gaussian([0.0] * 2, 0.4)
    exact = problem.denoiser(schedule)

    def function(x, t):
        knows = torch.as_tensor(schedule.half_log_snr(t)) < 1
        return torch.where(knows.reshape(-1, 1), exact(x, t), 0.0)

    denoiser = sd.FunctionDenoiser(function, schedule, per_sample=True)
    x_0 = problem.sample(3000, torch.Generator().manual_seed(0))
    end = sd.bounds.best_end(denoiser, x_0, levels=64)
    assert schedule.half_log_snr(end.t) < 1
    options = {"t_end": end.t, "decoder": end.variance}
    bound = sd.continuous_bound(denoiser, x_0, points=12, **options)
    entropy = math.log(2 * math.pi * math.e * 0.4)
    assert abs(bound.nats - entropy) < 4.5 * bound.standard_error + 0.01
    assert sd.continuous_bound(denoiser, x_0, points=12).nats > bound.nats + 1


def test_few_levels_are_refused():
    with pytest.raises(ValueError, match="levels = 1 must be an integer of at least 2"):
        sd.bounds.best_end(two_gaussians().denoiser(VP), torch.zeros(2, 1), levels=1)


def test_the_end_of_a_mixture_is_at_its_entropy():
    """Each level with its own variance: that of the noisiest would leave 0.5 nats."""
    problem = two_gaussians()
    x_0 = problem.sample(4000, torch.Generator().manual_seed(0))
    end = sd.bounds.best_end(problem.denoiser(VP), x_0, levels=60)
    entropy = -float(problem.log_prob(x_0, 1.0, 0.0).mean())
    assert abs(end.nats - entropy) < 0.1  # a standard error is near 0.02


def test_the_end_of_a_useless_denoiser_is_not_the_start():
    """One that is worse than the mean of the data at every level: the fewest steps are best."""
    x_0 = Gaussian([0.0] * 2, 0.4).sample(200, torch.Generator().manual_seed(0))
    denoiser = sd.FunctionDenoiser(lambda x, t: 5 * torch.ones_like(x), VP)
    end = sd.bounds.best_end(denoiser, x_0, levels=12)
    assert end.t < VP.t_max
    options = {"t_end": end.t, "decoder": end.variance}
    assert math.isfinite(sd.continuous_bound(denoiser, x_0, **options).nats)
