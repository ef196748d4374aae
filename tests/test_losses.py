"""One loss up to a weight: every prediction, unit and weighting against closed forms and papers.

On Gaussian data x_0 ~ N(m, v) the best denoiser is linear in x_t, with V = alpha^2 v + sigma^2:

    E[x_0 | x_t] = m + alpha v (x_t - alpha m)/V,      mean squared error sigma^2 v/V.
"""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import strategies as st
from objectives import (
    AT_ALPHA_ZERO,
    DOUBLE,
    MEAN,
    PAIRS,
    PREDICTIONS,
    VARIANCE,
    gaussian_mean,
    objective,
)
from strategies import given, schedules
from torch import nn

import sde_diffusion as sd
from sde_diffusion.training import Batch, DiffusionObjective
from sde_diffusion.training.random import generator_at
from sde_diffusion.training.units import error, target
from sde_diffusion.training.weightings import P2, WEIGHTINGS, ByLambda, Flat, MinSNR, Sigmoid

SIGNS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)), dtype=DOUBLE)


def middle(schedule, part):
    return schedule.t_clean + part * (schedule.t_max - schedule.t_clean)


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS, ids=str)
def test_loss_of_the_best_predictor_on_gaussian_data(schedule, prediction):
    # The four sign pairs have the moments of independent normals up to the second, and the squared
    # error of a linear predictor is quadratic: the mean over them is the expectation.
    x_0, eps = MEAN + VARIANCE**0.5 * SIGNS[:, :1], SIGNS[:, 1:]
    for part in (0.05, 0.4, 0.95):
        time = middle(schedule, part)
        t = torch.full((4,), time, dtype=DOUBLE)
        found = objective(schedule, prediction, gaussian_mean).at(Batch(x_0), t, eps)
        alpha, sigma = (float(c) for c in schedule(time))
        alpha_dot, sigma_dot = (float(c) for c in schedule.derivatives(time))
        data = sigma**2 * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
        rho = sigma / alpha
        expected = {
            "data": data,
            "noise": data / rho**2,
            "velocity": data * ((alpha**2 + sigma**2) / sigma) ** 2,
            "flow": data * ((alpha * sigma_dot - sigma * alpha_dot) / sigma) ** 2,
            "score": data / (rho * sigma) ** 2,
            "edm": data * (rho**2 + 0.25) / (rho * 0.5) ** 2,  # 1/c_out^2
        }[prediction]
        assert float(found.loss.detach().mean()) == pytest.approx(expected, rel=1e-9)
        assert float(found.error.mean()) == pytest.approx(data / rho**2, rel=1e-9)
        assert float(found.lambda_[0]) == pytest.approx(-math.log(rho), rel=1e-12)


@given(schedules, st.integers(0, 100), examples=10)
def test_all_predictions_have_one_loss_in_one_unit(schedule, seed):
    # Whatever is predicted and in whatever unit it is weighed: the same number for each sample.
    predictions = AT_ALPHA_ZERO if schedule.alpha(schedule.t_max) == 0 else PREDICTIONS
    units = ["noise", "data", "velocity", "flow", "edm", "min_snr", "p2", "sigmoid", "likelihood"]
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.randn((3, 1), generator=generator, dtype=DOUBLE)
    for unit in units:
        found = [
            objective(schedule, prediction, weighting=unit)(Batch(x_0), generator_at(seed))
            for prediction in predictions
        ]
        for other in found[1:]:
            torch.testing.assert_close(other.loss, found[0].loss, rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(other.error, found[0].error, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS, ids=str)
def test_target_is_what_the_denoiser_reads(schedule, prediction):
    # d = a x + b F* must give x_0 back, whatever x_0 and eps are.
    t = torch.linspace(schedule.t_clean, schedule.t_max, 9, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn((2, 9, 3), generator=generator, dtype=DOUBLE)
    p, q = (c[:, None] for c in target(prediction, schedule, t))
    alpha, sigma = (torch.as_tensor(c)[:, None] for c in schedule(t))
    network = lambda x, label: p * x_0 + q * eps
    denoiser = sd.NetworkDenoiser(network, schedule, prediction, dtype=DOUBLE)
    torch.testing.assert_close(denoiser(alpha * x_0 + sigma * eps, t), x_0, rtol=0, atol=1e-7)


# The weights, against their papers


@pytest.mark.parametrize("schedule", [sd.VPLinear(), sd.VPCosine()], ids=repr)
def test_weightings_are_their_papers_own(schedule):
    t = torch.linspace(0.01, 0.99, 40, dtype=DOUBLE)
    bar = torch.as_tensor(schedule.alpha(t)) ** 2  # alphabar of the variance-preserving process
    snr = bar / (1 - bar)
    beta = torch.as_tensor(schedule.g2(t))
    coefficient = lambda prediction, name: objective(
        schedule, prediction, weighting=name
    ).coefficient(t)
    cases = {
        # Salimans & Ho 2022, on the data error: SNR, max(SNR, 1), SNR + 1
        ("data", "snr"): snr,
        ("data", "truncated_snr"): snr.clamp(min=1),
        ("data", "velocity"): snr + 1,
        # Hang et al. 2023: the data, the noise and the velocity
        ("data", "min_snr"): snr.clamp(max=5),
        ("noise", "min_snr"): snr.clamp(max=5) / snr,
        ("velocity", "min_snr"): snr.clamp(max=5) / (snr + 1),
        # Choi et al. 2022
        ("noise", "p2"): 1 / (1 + snr),
        # Song et al. 2021: g^2/2 on the score error, times uniform on a range of length span; all
        # of it twice, as "nats" counts |error|^2 d lambda, twice the bound
        ("score", "likelihood"): beta * (schedule.t_max - schedule.t_clean),
        # Kingma & Gao 2023: sigmoid(b - log SNR) (-d log SNR/dt)/2 on the noise error
        ("noise", "sigmoid"): torch.sigmoid(2 - snr.log())
        * (beta / (1 - bar))
        / 2
        * (schedule.t_max - schedule.t_clean),
    }
    for (prediction, name), expected in cases.items():
        found = coefficient(prediction, name)
        if (prediction, name) == ("score", "likelihood"):
            found = 2 * found
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_edm_weight_is_one_over_c_out_squared():
    sigma, data = torch.logspace(-2.5, 1.8, 30, dtype=DOUBLE), 0.5
    found = objective(sd.EDM(), "data", weighting="edm").coefficient(sigma)
    torch.testing.assert_close(found, (sigma**2 + data**2) / (sigma * data) ** 2)
    own = objective(sd.EDM(), "edm").coefficient(sigma)
    assert torch.equal(own, torch.ones_like(sigma))


def test_parameters_of_the_weightings_count():
    snr = torch.logspace(-3, 3, 13, dtype=DOUBLE)
    lambda_ = snr.log() / 2
    torch.testing.assert_close(MinSNR(2.0)(lambda_), snr.clamp(max=2))
    torch.testing.assert_close(P2(0.5, 2.0)(lambda_), 1 / (0.5 + snr) ** 2)
    torch.testing.assert_close(Sigmoid(-1.0)(lambda_), 1 / (1 + snr * math.e))
    assert torch.equal(ByLambda(lambda v: v**2, "data")(lambda_), lambda_**2)


# The ends


ENDS = [
    sd.ZeroTerminalSNR(sd.ddpm_linear()),
    sd.Shifted(sd.ZeroTerminalSNR(sd.VPLinear()), 3.0),
    sd.FlowMatching(),
    sd.Shifted(sd.FlowMatching(), 2.0),
]


@pytest.mark.parametrize("name", sorted(set(WEIGHTINGS) - {"score"}))
@pytest.mark.parametrize("schedule", ENDS, ids=repr)
@pytest.mark.parametrize("prediction", AT_ALPHA_ZERO)
def test_loss_at_alpha_zero_is_finite_and_its_limit(schedule, prediction, name):
    made = objective(schedule, prediction, weighting=name)
    times = torch.tensor([schedule.t_max, schedule.t_max - 1e-7], dtype=DOUBLE)
    at, near = made.coefficient(times)
    assert schedule.alpha(schedule.t_max) == 0
    assert bool(at.isfinite())
    assert float(at) == pytest.approx(float(near), rel=1e-4, abs=1e-5)


def test_loss_at_alpha_zero_is_right():
    # At alpha = 0 the velocity is -sigma x_0: who answers the mean is wrong by the variance.
    schedule = sd.ZeroTerminalSNR(sd.ddpm_linear())
    x_0, eps = MEAN + VARIANCE**0.5 * SIGNS[:, :1], SIGNS[:, 1:]
    made = objective(schedule, "velocity", gaussian_mean)
    found = made.at(Batch(x_0), torch.ones(4, dtype=DOUBLE), eps)
    assert float(found.loss.detach().mean()) == pytest.approx(VARIANCE, rel=1e-12)
    assert float(found.error.abs().max()) == 0, "the noise is known there"
    assert bool((found.lambda_ == -math.inf).all())


@pytest.mark.parametrize("prediction", ["noise", "score", "edm"])
@pytest.mark.parametrize("schedule", ENDS, ids=repr)
def test_predictions_without_data_at_the_end_are_refused(schedule, prediction):
    with pytest.raises(ValueError, match=r"alpha = 0, at t_max = 1 .* velocity or the data"):
        objective(schedule, prediction)


# Bad input


def test_bad_arguments_say_what_to_write():
    with pytest.raises(ValueError, match="unknown weighting 'minsnr'; did you mean 'min_snr'"):
        objective(sd.VPLinear(), "noise", weighting="minsnr")
    with pytest.raises(ValueError, match="unknown law of times 'lognormal'; did you mean 'log_n"):
        objective(sd.VPLinear(), "noise", times="lognormal")
    with pytest.raises(ValueError, match=r"drop = 1\.5"):
        objective(sd.VPLinear(), "noise", drop=1.5)
    with pytest.raises(ValueError, match="did you mean 'velocity'"):
        Flat("velocty")
    with pytest.raises(ValueError, match=r"gamma = 0\.0"):
        MinSNR(0.0)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        DiffusionObjective(sd.NetworkDenoiser(lambda x, t: x, sd.VPLinear()))
    with pytest.raises(ValueError, match=r"is inf at t = .*state it in another unit"):
        objective(sd.VPLinear(), "noise", weighting=ByLambda(lambda v: v * math.inf, "data"))
    with pytest.raises(ValueError, match="not negative"):
        objective(sd.VPLinear(), "noise", weighting=ByLambda(lambda v: v, "noise"))
    made = objective(sd.VPLinear(), "noise")
    with pytest.raises(ValueError, match="one time for each sample"):
        made.at(Batch(torch.zeros(4, 1)), torch.ones(3, dtype=DOUBLE), torch.zeros(4, 1))
    with pytest.raises(TypeError, match=r"torch\.uint8.*\.float\(\)"):
        made(Batch(torch.zeros((4, 1), dtype=torch.uint8)), generator_at(0))
    with pytest.raises(ValueError, match="one sample or more"):
        made(Batch(torch.zeros(0, 1)), generator_at(0))
    network = copy.copy(made.network)
    network.forward = lambda x, t: torch.cat([x, x], 1)
    wide = DiffusionObjective(sd.NetworkDenoiser(network, sd.VPLinear()))
    with pytest.raises(ValueError, match="must return one number for each"):
        wide(Batch(torch.zeros(4, 1)), generator_at(0))


def test_scales_are_taken_in_float64():
    # Half precision has 11 bits: 1 - 1e-4 rounds to 1, and sigma would be 0 if computed there.
    seen = []

    class Recorder(nn.Module):
        def forward(self, x, t):
            seen.append((x, t))
            return torch.zeros_like(x)

    t = torch.tensor([1e-4, 1 / 3], dtype=DOUBLE)
    made = DiffusionObjective(sd.NetworkDenoiser(Recorder(), sd.VPLinear()))
    x_0, eps = torch.zeros((2, 1), dtype=torch.float16), torch.ones((2, 1), dtype=torch.float16)
    loss = made.at(Batch(x_0), t, eps).loss
    ((x_t, label),) = seen
    assert torch.equal(x_t[:, 0], sd.VPLinear().sigma(t).half())
    assert (x_t.dtype, label.dtype, loss.dtype) == (torch.float16, torch.float32, torch.float32)
    assert torch.equal(label, t.float())


def test_unit_errors_are_positive_numbers():
    t = torch.linspace(0.01, 0.99, 9, dtype=DOUBLE)
    for unit in [*PREDICTIONS, "nats"]:
        assert bool((error(unit, sd.FlowMatching(), t) > 0).all())
