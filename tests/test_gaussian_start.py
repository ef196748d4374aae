"""The mean of the data in place of the first network call."""

import math

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.guidance import classifier_free, gaussian_start, limited_interval
from sde_diffusion.problems import Gaussian, GaussianMixture

EDM = sd.EDM()
SHAPE = (2, 3, 1)


def data(seed=0):
    """The mean of Gaussian data, and the variances of its coordinates."""
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(6, generator=g, dtype=torch.float64)
    variance = 0.1 + torch.rand(6, generator=g, dtype=torch.float64)
    return mean, variance


class Refusing(sd.Denoiser):
    """A network that must not be asked."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, x, t):
        raise AssertionError(f"asked at t = {t}")


@pytest.mark.parametrize("schedule", [EDM, sd.VPLinear(), sd.FlowMatching()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("whole", [False, True], ids=["variances", "covariance"])
def test_above_the_level_it_is_the_exact_denoiser_of_gaussian_data(schedule, dtype, whole):
    """At single times, at one a sample, and as a run binds them; the network is not asked."""
    mean, covariance = data()
    if whole:
        factor = torch.randn(6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        covariance = factor @ factor.T
    exact = Gaussian(mean, covariance).denoiser(schedule)
    given = covariance if whole else covariance.reshape(SHAPE)
    known = gaussian_start(Refusing(schedule), mean.reshape(SHAPE), given, above=1.0)
    times = [float(schedule.time_of(-math.log(rho))) for rho in (1.5, 4.0, 20.0)]
    if schedule.rho(schedule.t_max) == math.inf:
        times.append(schedule.t_max)
    x = torch.randn(len(times), 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    shaped = x.reshape(-1, *SHAPE)
    slack = (
        {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}
    )
    each = known(shaped, torch.tensor(times, dtype=torch.float64)).flatten(1)
    for i, (t, call) in enumerate(zip(times, known.bind(times, shaped), strict=True)):
        wanted = exact(x, t)
        assert known(shaped, t).dtype == dtype
        torch.testing.assert_close(known(shaped, t).flatten(1), wanted, **slack)
        torch.testing.assert_close(
            call.scale * call.function(shaped, None).flatten(1), wanted, **slack
        )
        torch.testing.assert_close(each[i], wanted[i], **slack)


def test_by_default_the_noisy_end_alone_costs_nothing():
    mean, variance = data()
    network = Gaussian(mean, variance).denoiser(EDM)
    known = gaussian_start(network, mean, variance)
    for name, steps in (("ddim", 5), ("angular", 12), ("edm_heun", 4)):
        plan = sd.SOLVERS[name](EDM, sd.times.default(EDM, steps))
        assert known.cost(plan.asked_at).calls == plan.nfe - 1
        assert gaussian_start(network, mean, above=1.0).cost(plan.asked_at).calls == sum(
            t <= 1.0 for t in plan.asked_at
        )
    assert known.jumps == ()  # the default plan is that of the network


def test_on_gaussian_data_nothing_changes_but_the_cost():
    """One array for the mean, one number for the variance: every sample of the default's."""
    mean, _ = data()
    network = Gaussian(mean, torch.tensor(0.5, dtype=torch.float64)).denoiser(EDM)
    known = gaussian_start(network, mean, 0.5)
    samples = [sd.sample(d, (4, 6), steps=6, seed=0, dtype=torch.float64) for d in (network, known)]
    torch.testing.assert_close(samples[0], samples[1], rtol=1e-10, atol=1e-12)


def test_a_step_more_for_as_many_network_calls_is_worth_it_far_from_the_origin():
    """A mixture about (2, .., 2): the default with the mean known and 6 calls in all, 5 of them of
    the network, against the default with 5."""
    g = torch.Generator().manual_seed(0)
    means = 2 + 0.7 * torch.randn(5, 8, generator=g, dtype=torch.float64)
    mixture = GaussianMixture([0.2] * 5, means, torch.full((5, 8), 0.05, dtype=torch.float64))
    network, data = mixture.denoiser(EDM), mixture.sample(4096, g)
    known = gaussian_start(network, data.mean(0), data.var(0))
    x = mixture.sample_marginal(256, *EDM(80.0), g)
    exact = mixture.endpoint(x, EDM, 80.0, 0.0)
    error = lambda d, n: float(
        ((sd.run(sd.default_plan(EDM, n), d, x) - exact).norm(dim=1) / exact.norm(dim=1)).median()
    )
    assert error(known, 6) < 0.8 * error(network, 5)
    assert error(known, 6) < 1.1 * error(network, 6)  # nothing is lost by it


def test_a_table_leaves_the_call_that_costs_nothing_where_it_is():
    """And the network alone is the teacher: the ends are those without the mean."""
    ring = sd.problems.ring()
    network = ring.denoiser(EDM)
    known = gaussian_start(network, torch.zeros(2), 0.5)
    few = {"nfe": 3, "shape": (2,), "validation": 64, "max_iterations": 2}
    plan = sd.tune("angular", known, 256, **few)
    assert plan.asked_at[0] == 80.0
    assert plan.origin["network calls"] == 2
    assert plan.origin["teacher"]["teacher"] == "exact"
    assert "3 calls of the denoiser a sample, all of them counted, that is 2 of a network" in (
        sd.tuning.report(plan)
    )
    assert "above sigma/alpha = 79.9999 (gaussian_start)" in sd.tuning.report(plan)
    assert "told of its data" in str(plan)
    free = sd.tune("angular", network, 256, **few)
    assert free.origin["network calls"] == 3
    spared = sd.transform.analytic_first_step(sd.SOLVERS["ddim"](EDM, sd.times.karras(EDM, 4)), EDM)
    with pytest.raises(ValueError, match="does not ask at its start"):
        sd.tune("angular", known, 256, **few, guesses=[spared])


@pytest.mark.filterwarnings("ignore:the default of sample")
def test_the_paths_of_the_network_are_its_own_and_each_law_has_its_fit(tmp_path):
    """In one folder: the network alone, then told of its mean, then of another."""
    network = sd.problems.ring().denoiser(EDM)
    few = {"nfe": 2, "shape": (2,), "validation": 16, "free": "scalars", "max_iterations": 1}
    for count, mean in enumerate((None, torch.zeros(2), torch.ones(2)), 1):
        denoiser = network if mean is None else gaussian_start(network, mean)
        sd.tune("ddim", denoiser, 32, **few, folder=tmp_path)
        assert len([*tmp_path.glob("teacher/*")]) == 1
        assert len([*tmp_path.glob("fits/*")]) == count


@pytest.mark.filterwarnings("ignore:the default of sample")
def test_a_law_that_is_not_asked_at_the_start_is_warned_of():
    known = gaussian_start(sd.problems.ring().denoiser(EDM), torch.zeros(2))
    few = {"shape": (2,), "validation": 16, "free": "scalars", "max_iterations": 1}
    spared = sd.transform.analytic_first_step(sd.SOLVERS["ddim"](EDM, sd.times.karras(EDM, 4)), EDM)
    for base, options, words in (
        ("ddim", {"nfe": 3, "t_start": 40.0}, r"gaussian_start a lower level, as above=39\.6"),
        (spared, {}, "does not ask at its start"),
    ):
        with pytest.warns(UserWarning, match=words) as said:
            sd.tune(base, known, 32, **few, **options)
        assert {one.filename for one in said} == {__file__}


def test_moments_may_be_of_any_float_and_may_have_a_gradient():
    """bfloat16 has no numpy array, nor has what requires a gradient."""
    mean, x = torch.tensor([0.5, -1.0]), torch.randn(3, 2, dtype=torch.float64)
    wanted = gaussian_start(Refusing(EDM), mean, 0.5 * torch.eye(2))(x, 80.0)
    for cast in (torch.Tensor.bfloat16, torch.Tensor.requires_grad_):
        known = gaussian_start(Refusing(EDM), cast(mean), cast(0.5 * torch.eye(2)))
        torch.testing.assert_close(known(x, 80.0), wanted, rtol=1e-12, atol=1e-12)


def test_what_is_wrong_is_refused_with_the_cure():
    network, mean = Refusing(EDM), torch.zeros(4)
    for wrong, error, words in (
        ((mean.long(),), TypeError, "data.mean"),
        ((mean, torch.ones(3)), ValueError, "data.var"),
        ((mean, torch.ones(4, 3)), ValueError, r"\(4, 4\)"),
        ((mean, torch.arange(16.0).reshape(4, 4)), ValueError, "symmetric"),
        ((mean, -1.0), ValueError, "positive semidefinite"),
        ((mean * math.nan,), ValueError, "finite"),
        ((mean, 1.0, 0.0), ValueError, "above = 0"),
        ((mean, 1.0, 80.0), ValueError, "leave it out for t_max alone"),
        ((mean, 1.0, math.inf), ValueError, "that of t_max, 80"),
        ((mean, mean.long()), TypeError, "real numbers"),
        ((mean, True), TypeError, "give a variance"),
    ):
        with pytest.raises(error, match=words):
            gaussian_start(network, *wrong)
    known = gaussian_start(network, mean)
    with pytest.raises(
        ValueError, match=r"\(1,\), and the mean given to gaussian_start has \(4,\)"
    ):
        known(torch.zeros(3, 1), 80.0)
    guided = classifier_free(network, Refusing(EDM), scale=2.0)
    assert repr(gaussian_start(guided, mean, above=2.0)).endswith("scale=2), above=2)")
    with pytest.raises(ValueError, match="around everything else"):
        limited_interval(gaussian_start(guided, mean), 0.1, 1.0)


def test_with_the_covariance_known_it_is_as_good_as_a_network_at_the_noisy_end():
    """The difference from the exact denoiser of a mixture falls as alpha^2/sigma^2, or with the
    mean and a variance alone as alpha/sigma (at x = sigma z, where d - m is of the latter order).
    """
    g = torch.Generator().manual_seed(0)
    means = 1 + torch.randn(5, 6, generator=g, dtype=torch.float64)
    mixture = GaussianMixture([0.5, 0.2, 0.1, 0.1, 0.1], means, torch.full((5, 6), 0.2))
    network, mean = mixture.denoiser(EDM), mixture.mean
    covariance = mixture.data_covariance()
    z = torch.randn(64, 6, generator=g, dtype=torch.float64)
    for given, slope in ((covariance, 2), (covariance.diag(), 1)):
        known = gaussian_start(network, mean, given, above=1.0)
        off = [float((known(s * z, s) - network(s * z, s)).norm()) for s in (40.0, 80.0)]
        assert math.log2(off[0] / off[1]) == pytest.approx(slope, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_covariance_of_few_samples_keeps_its_zeros(dtype):
    """Of 4 samples in 64 dimensions, computed in float32 and handed over in either dtype: the
    law's answer is that of float64, which moves in the 3 directions of the samples alone."""
    g = torch.Generator().manual_seed(0)
    few = torch.randn(4, 64, generator=g)
    x = torch.randn(8, 64, generator=g, dtype=torch.float64)
    known = gaussian_start(Refusing(EDM), few.mean(0), few.T.cov().to(dtype), above=1e-3)
    few, rho = few.double(), 0.1
    mean = few.mean(0)
    _, s, onto = torch.linalg.svd(few - mean, full_matrices=False)
    gains = s**2 / (s**2 + 3 * rho**2)
    wanted = mean + (x - mean) @ onto.T * gains @ onto
    torch.testing.assert_close(known(x, rho), wanted, rtol=0, atol=1e-3)


def test_where_there_is_no_noise_and_no_variance_the_denoiser_is_asked():
    """The law would divide 0 by 0."""
    ring = sd.problems.ring().denoiser(EDM)
    known = gaussian_start(ring, torch.zeros(2), torch.tensor([0.0, 1.0]))
    x = torch.ones(3, 2, dtype=torch.float64)
    assert torch.equal(known(x, 0.0), ring(x, 0.0))


def test_events_of_shape_none_and_moments_of_ones_own():
    """A covariance (1, 1), an array of numpy, and tensors that are written into afterwards."""
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    mean, covariance = torch.tensor(0.5, dtype=torch.float64), torch.full((1, 1), 0.3).double()
    wanted = gaussian_start(Refusing(EDM), mean.clone(), 0.3)(x, 80.0)
    for given in (covariance, covariance.numpy().copy()):
        known = gaussian_start(Refusing(EDM), mean, given)
        kept = mean.clone()
        mean.fill_(7.0)
        torch.testing.assert_close(known(x, 80.0), wanted, rtol=1e-7, atol=1e-7)
        (call,) = known.bind([80.0], x)
        torch.testing.assert_close(call.function(x, None), wanted, rtol=1e-7, atol=1e-7)
        mean.copy_(kept)
