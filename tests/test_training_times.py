"""Laws of the training time: quantile, distribution and density agree, and draws follow them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy import integrate, stats
from strategies import given, plain

import sde_diffusion as sd
from sde_diffusion.networks import ResidualMLP
from sde_diffusion.training import LAWS, Batch, DiffusionObjective, law_of
from sde_diffusion.training.laws import Cosine, Laplace, LogitNormal, LogNormal
from sde_diffusion.training.random import generator_at

DOUBLE = torch.float64
SCHEDULES = [sd.VPLinear(), sd.VPCosine(), sd.VE(), sd.EDM(), sd.SubVP()]
PAIRS = [(name, schedule) for name in LAWS for schedule in SCHEDULES]
ZERO = sd.ZeroTerminalSNR(sd.VPLinear())


@given(st.sampled_from(sorted(LAWS)), plain, examples=60)
def test_quantile_and_distribution_are_inverse(name, schedule):
    if name == "uniform_lambda" and schedule.alpha(schedule.t_max) == 0:
        return  # refused, see below
    times = law_of(name, schedule).on(schedule)
    u = torch.linspace(0, 1, 21, dtype=DOUBLE)
    t = times.quantile(u)
    assert schedule.t_clean <= float(t[0])
    assert float(t[-1]) <= schedule.t_max
    assert bool((t.diff() > 0).all())
    torch.testing.assert_close(times.cdf(t), u, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("name", "schedule"), PAIRS, ids=str)
def test_density_is_the_slope_of_the_distribution(name, schedule):
    times = law_of(name, schedule).on(schedule)
    u = torch.linspace(0.02, 0.98, 24, dtype=DOUBLE)
    t = times.quantile(u)
    step = 1e-5 * t
    slope = (times.cdf(t + step) - times.cdf(t - step)) / (2 * step)
    torch.testing.assert_close(times.density(t), slope, rtol=2e-5, atol=1e-9)
    lambda_dot = (
        torch.as_tensor(schedule.half_log_snr(t + step))
        - torch.as_tensor(schedule.half_log_snr(t - step))
    ) / (2 * step)
    in_lambda = times.density_in_lambda(t)
    torch.testing.assert_close(in_lambda, slope / lambda_dot.abs(), rtol=4e-5, atol=1e-9)


@pytest.mark.parametrize(("name", "schedule"), PAIRS, ids=str)
def test_density_in_lambda_integrates_to_one(name, schedule):
    times = law_of(name, schedule).on(schedule)

    def density(lambda_):
        t = torch.tensor([schedule.time_of(float(lambda_))], dtype=DOUBLE)
        return float(times.density_in_lambda(t))

    noisy, clean = (float(schedule.half_log_snr(t)) for t in (schedule.t_max, schedule.t_clean))
    kinks = [v for v in (0.0, 0.5, 1.2) if noisy < v < clean]
    total, _ = integrate.quad(density, noisy, clean, points=kinks, limit=200, epsabs=1e-9)
    assert total == pytest.approx(1, abs=1e-6)


def test_laws_are_those_of_scipy():
    schedule = sd.EDM(sigma_min=1e-8, sigma_max=1e8)  # nothing is cut off
    lambda_ = torch.linspace(-3, 3, 13, dtype=DOUBLE)
    t = torch.exp(-lambda_)
    for law, known in (
        (LogNormal(), stats.norm(1.2, 1.2)),  # EDM's own
        (Laplace(), stats.laplace(0, 0.25)),  # 0.5 in the log-SNR
        (LogNormal(0.4, 0.8), stats.norm(-0.4, 0.8)),
        (Laplace(0.5, 0.25), stats.laplace(0.5, 0.25)),
        (Cosine(0.3), stats.hypsecant(0.3)),
    ):
        found = law.on(schedule).density_in_lambda(t)
        np.testing.assert_allclose(found, known.pdf(lambda_), rtol=1e-6)
    t = torch.linspace(0.01, 0.99, 9, dtype=DOUBLE).numpy()
    found = LogitNormal(0.4, 0.7).on(sd.FlowMatching()).density(torch.tensor(t))
    known = stats.norm(0.4, 0.7).pdf(np.log(t / (1 - t))) / (t * (1 - t))
    np.testing.assert_allclose(found, known, rtol=1e-6)


def test_cosine_law_is_uniform_time_on_the_cosine_schedule():
    cosine = sd.CustomSchedule(
        lambda t: torch.cos(t * math.pi / 2), lambda t: torch.sin(t * math.pi / 2), 0.01, 0.99
    )
    u = torch.linspace(0, 1, 11, dtype=DOUBLE)
    uniform, law = (law_of(name, cosine).on(cosine).quantile(u) for name in ("uniform", "cosine"))
    torch.testing.assert_close(law, uniform)


@pytest.mark.parametrize("low_discrepancy", [True, False])
@pytest.mark.parametrize("name", sorted(LAWS))
def test_draws_follow_the_law(name, low_discrepancy):
    # Chi-squared over 20 cells of equal probability, false alarm 1e-4 a case (12 cases). Stratified
    # draws are closer to even than independent ones: their statistic is nearly 0, from one part a
    # cell in each batch.
    schedule = sd.VPLinear()
    denoiser = sd.NetworkDenoiser(ResidualMLP((1,), 4, 1), schedule)
    made = DiffusionObjective(denoiser, times=name, low_discrepancy=low_discrepancy)
    found = [made(Batch(torch.zeros(100, 1)), generator_at(0, i)).lambda_ for i in range(40)]
    t = torch.as_tensor(schedule.time_of(torch.cat(found)))
    counts = torch.histc(law_of(name, schedule).on(schedule).cdf(t), 20, 0, 1)
    statistic = float(((counts - 200) ** 2 / 200).sum())
    assert statistic < stats.chi2(19).ppf(1 - 1e-4)
    assert (statistic < 1) == low_discrepancy


def test_low_discrepancy_is_one_draw_in_each_part():
    schedule = sd.FlowMatching()
    denoiser = sd.NetworkDenoiser(ResidualMLP((1,), 4, 1), schedule, "velocity")
    made = DiffusionObjective(denoiser, times="logit_normal")
    lambdas = [made(Batch(torch.zeros(8, 1)), generator_at(0, i)).lambda_ for i in range(50)]
    u = made.times.cdf(torch.as_tensor(schedule.time_of(torch.stack(lambdas))))
    assert torch.equal((u.sort(dim=1)[0] * 8).floor(), torch.arange(8.0).double().expand(50, 8))
    assert 0.4 < float((u * 8 % 1)[:, 0].mean()) < 0.6, "the offset is uniform in its part"


def test_default_law_is_uniform_on_unit_time_and_log_normal_on_sigma():
    for schedule in (sd.VPLinear(), sd.FlowMatching(), sd.VE(), ZERO):
        assert law_of(None, schedule) == LAWS["uniform"]()
    assert law_of(None, sd.EDM()) == LogNormal()


def test_laws_on_a_schedule_that_ends_at_alpha_zero():
    u = torch.linspace(0, 1, 5, dtype=DOUBLE)
    for name in sorted(set(LAWS) - {"uniform_lambda"}):
        t = law_of(name, ZERO).on(ZERO).quantile(u)
        assert t[-1] == 1
        assert bool((t.diff() > 0).all())
    with pytest.raises(ValueError, match=r"weight inf .* -inf: .*'uniform' or 'cosine'"):
        law_of("uniform_lambda", ZERO).on(ZERO)


def test_bad_arguments_say_what_to_write():
    with pytest.raises(ValueError, match=r"did you mean 'laplace'"):
        law_of("laplac", sd.VPLinear())
    with pytest.raises(TypeError, match="scal"):
        law_of("laplace", sd.VPLinear(), scal=1.0)
    for wrong in (
        lambda: Laplace(scale=0.0),
        lambda: LogNormal(std=-1.0),
        lambda: LogitNormal(math.nan),
    ):
        with pytest.raises(ValueError, match="finite and"):
            wrong()
    with pytest.raises(ValueError, match="has weight 0"):
        Laplace(60.0, 0.01).on(sd.VPLinear())
