"""A learned schedule against closed forms: on Gaussian data the best one is known.

There the error in the noise is normal with variance e = v e^(2 lambda)/(1 + v e^(2 lambda)). One
loss is L = -lambda' times its square, so that

    E[L] = int e d lambda,      E[L^2] = 3 int (lambda' e)^2 dt >= 3 (int e d lambda)^2,

with equality where -lambda' e is the same at all times.
"""

import copy
import math

import pytest
import torch
from objectives import DOUBLE, MEAN, VARIANCE
from torch import nn

import sde_diffusion as sd
from sde_diffusion.reverse import Bins
from sde_diffusion.schedule_names import description_of, schedule_of
from sde_diffusion.training import (
    Batch,
    DiffusionObjective,
    LearnedScheduleObjective,
    LearnedUncertainty,
)
from sde_diffusion.training.random import generator_at


class Best(nn.Module):
    """The best noise prediction on N(MEAN, VARIANCE), told the log-SNR."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=DOUBLE))

    def forward(self, x, log_snr):
        alpha, sigma = (torch.sigmoid(v).sqrt()[:, None] for v in (log_snr.to(x), -log_snr.to(x)))
        centred = x - alpha * MEAN
        return self.scale * sigma * centred / (alpha**2 * VARIANCE + sigma**2)


def learning(schedule, network=None, prediction="noise", bins=None, **options):
    options = {"weighting": "likelihood"} | options
    network = Best() if network is None else network
    denoiser = sd.NetworkDenoiser(network, schedule, prediction, label="log_snr")
    return LearnedScheduleObjective(DiffusionObjective(denoiser, **options), bins)


def data(n, generator):
    return MEAN + VARIANCE**0.5 * torch.randn((n, 1), generator=generator, dtype=DOUBLE)


def moments(schedule, points=4000):
    """(E[L], E[L^2], the least E[L^2] that a schedule with these ends can have)."""
    t = (torch.arange(points, dtype=DOUBLE) + 0.5) / points
    with torch.no_grad():
        lambda_, slope = schedule.curve(t)
    odds = VARIANCE * torch.exp(2 * lambda_)
    mean = -slope * odds / (1 + odds)
    return float(mean.mean()), float(3 * (mean**2).mean()), float(3 * mean.mean() ** 2)


def shaken(schedule, seed=0):
    """The same schedule with other weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (schedule.a, schedule.c, schedule.w, schedule.m):
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=DOUBLE))
    return schedule


@pytest.mark.parametrize("seed", range(5))
def test_every_learned_schedule_is_monotone_between_its_ends(seed):
    schedule = shaken(sd.LearnedSchedule(5.0, -3.0), seed)
    schedule.check(points=200)
    assert schedule.half_log_snr(0.0) == pytest.approx(5.0, abs=1e-12)
    assert schedule.half_log_snr(1.0) == pytest.approx(-3.0, abs=1e-12)
    t = torch.linspace(0, 1, 9, dtype=DOUBLE)
    alpha, sigma = schedule(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
    lambda_ = schedule.half_log_snr(t)
    torch.testing.assert_close(schedule.time_of(lambda_.detach()), t)
    for i, u in enumerate(t.tolist()):
        assert schedule.alpha(u) == pytest.approx(alpha[i].item(), rel=1e-12)


def test_derivatives_are_the_slopes():
    schedule = shaken(sd.LearnedSchedule())
    t, step = torch.linspace(0.05, 0.95, 10, dtype=DOUBLE), 1e-6
    for scale, slope in zip((schedule.alpha, schedule.sigma), schedule.derivatives(t), strict=True):
        quotient = (scale(t + step) - scale(t - step)) / (2 * step)
        torch.testing.assert_close(slope, quotient, rtol=1e-6, atol=1e-8)
    single = schedule.derivatives(0.3)
    assert all(isinstance(v, float) for v in single)


def test_new_schedule_is_even_in_lambda():
    t = torch.linspace(0, 1, 21, dtype=DOUBLE)
    lambda_ = sd.LearnedSchedule(4.0, -4.0).half_log_snr(t)
    torch.testing.assert_close(lambda_.detach(), 4 - 8 * t, rtol=0, atol=0.02)


def test_gradient_is_that_of_the_squared_losses_for_the_curve_and_of_the_mean_for_the_rest():
    schedule = shaken(sd.LearnedSchedule(4.0, -4.0, width=4))
    made = learning(schedule)
    batch = Batch(data(16, torch.Generator().manual_seed(0)))
    made(batch, generator_at(0)).loss.mean().backward()
    found = [p.grad.clone() for p in (schedule.a, schedule.c, schedule.w, schedule.m)]
    for_network = made.network.scale.grad.clone()

    made.zero_grad()
    plain = made.objective(batch, generator_at(0)).loss  # without the hooks: the graph as it is
    (plain**2).mean().backward(retain_graph=True)
    for gradient, parameter in zip(
        found, (schedule.a, schedule.c, schedule.w, schedule.m), strict=True
    ):
        torch.testing.assert_close(gradient, parameter.grad)
    made.zero_grad()
    plain.mean().backward()
    torch.testing.assert_close(for_network, made.network.scale.grad)


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_learning_lowers_the_variance_to_its_least_and_leaves_the_mean(prediction):
    class Velocity(Best):
        def forward(self, x, log_snr):
            alpha, sigma = (torch.sigmoid(v).sqrt()[:, None] for v in (log_snr, -log_snr))
            eps = super().forward(x, log_snr)
            return (eps - sigma * x) / alpha  # alpha eps - sigma x_0

    network = Best() if prediction == "noise" else Velocity()
    schedule = sd.LearnedSchedule(4.0, -4.0, width=8)
    made = learning(schedule, network, prediction)
    mean, before, best = moments(schedule)
    assert before > 1.9 * best
    optimizer = torch.optim.Adam(schedule.parameters())
    generator, steps = torch.Generator().manual_seed(1), 150
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.06 * (1 - step / steps)
        optimizer.zero_grad()
        made(Batch(data(128, generator)), generator_at(0, step)).loss.mean().backward()
        optimizer.step()
    after_mean, after, _ = moments(schedule)
    assert after_mean == pytest.approx(mean, rel=1e-5)
    assert after < 1.2 * best

    # And so it is measured: the spread of single losses, 20000 of them.
    measured = []
    for tried in (sd.LearnedSchedule(4.0, -4.0, width=8), schedule):
        losses = learning(tried, network, prediction)(
            Batch(data(20_000, generator)), generator_at(1)
        ).loss
        measured.append(float(losses.detach().var()))
    assert measured[1] < 0.65 * measured[0]


def test_learned_ends_follow_the_bound_of_binned_data():
    # Data of two values: from ends that are too near each other the range grows, and the whole
    # bound falls to the entropy of a fair coin. (From a clean end below 0.5 it would not: there the
    # bound has another minimum, where the decoder does all the work.)
    bins = Bins(width=2.0)
    schedule = sd.LearnedSchedule(0.9, 0.4, width=4, learn_ends=True)

    class TwoPoints(Best):
        def forward(self, x, log_snr):
            alpha, sigma = (torch.sigmoid(v).sqrt()[:, None] for v in (log_snr, -log_snr))
            return (x - alpha * torch.tanh(alpha * x / sigma**2)) / sigma

    made = learning(schedule, TwoPoints(), bins=bins)
    generator = torch.Generator().manual_seed(0)
    fair = lambda n: Batch(torch.randint(0, 2, (n, 1), generator=generator).double() * 2 - 1)
    bounds = [made(fair(20_000), generator_at(1)).loss.detach()]
    optimizer = torch.optim.Adam([schedule.both], lr=0.05)
    for step in range(60):
        optimizer.zero_grad()
        made(fair(256), generator_at(0, step)).loss.mean().backward()
        optimizer.step()
    bounds.append(made(fair(20_000), generator_at(1)).loss.detach())
    clean, noisy = schedule.both.tolist()
    assert clean > 1.3
    assert noisy < 0.1
    before, after = (float(b.mean()) - math.log(2) for b in bounds)
    error = float(bounds[1].std()) / 20_000**0.5
    assert before > 0.04
    assert -5 * error < after < 0.01 + 5 * error, "5 standard errors: false alarm 6e-7"


def test_terms_of_the_ends_are_those_of_the_bound():
    bins = Bins(width=2 / 3)  # -1, -1/3, 1/3, 1
    schedule = sd.LearnedSchedule(0.8, -0.7, width=4, learn_ends=True)
    made = learning(schedule, bins=bins)
    x_0 = torch.tensor([[-1.0], [-1 / 3], [1 / 3], [1.0]], dtype=DOUBLE).repeat(5, 1)
    generator = generator_at(0)
    diffusion = made.objective(Batch(x_0), generator).loss
    eps = torch.randn(x_0.shape, generator=generator).double()
    alpha, sigma = schedule(1.0)
    law, standard = (
        torch.distributions.Normal(mean, scale)
        for mean, scale in ((alpha * x_0, sigma), (0.0, 1.0))
    )
    prior = torch.distributions.kl_divergence(law, standard)
    rho = schedule.rho(0.0)
    below = torch.where(x_0 > -0.9, x_0 - 1 / 3, -math.inf)
    above = torch.where(x_0 < 0.9, x_0 + 1 / 3, math.inf)
    guess = torch.distributions.Normal(x_0 + rho * eps, rho)
    reconstruction = -torch.log(guess.cdf(above) - guess.cdf(below))
    expected = diffusion + (prior + reconstruction)[:, 0]
    torch.testing.assert_close(made(Batch(x_0), generator_at(0)).loss, expected)


def test_frozen_schedule_is_the_same_and_ordinary():
    schedule = shaken(sd.LearnedSchedule())
    frozen = schedule.frozen()
    t = torch.linspace(0, 1, 7, dtype=DOUBLE)
    assert torch.equal(frozen.half_log_snr(t), schedule.half_log_snr(t).detach())
    assert repr(frozen) == repr(copy.deepcopy(schedule).frozen())
    shaken(schedule, 1)
    assert repr(frozen) != repr(schedule.frozen())
    assert schedule_of(description_of(frozen)) == frozen
    problem = sd.problems.Gaussian([MEAN], VARIANCE)
    samples = sd.sample(problem.denoiser(frozen), (4000, 1), steps=30, seed=0)
    # false alarm 1e-6 each: 5 standard errors of the mean, and of the variance
    assert abs(float(samples.mean()) - MEAN) < 5 * (VARIANCE / 4000) ** 0.5 + 0.01
    assert abs(float(samples.var()) - VARIANCE) < 5 * VARIANCE * (2 / 4000) ** 0.5 + 0.01


def test_bad_arguments_say_what_to_write():
    with pytest.raises(ValueError, match="the clean one above the noisy one"):
        sd.LearnedSchedule(-3.0, 4.0)
    with pytest.raises(TypeError, match="build a LearnedSchedule"):
        learning(sd.VPLinear())
    for options in ({"weighting": "own"}, {"times": "laplace"}, {"importance": "loss"}):
        with pytest.raises(ValueError, match="depends on the schedule between its ends"):
            learning(sd.LearnedSchedule(), **options)
    with pytest.raises(ValueError, match="give bins"):
        learning(sd.LearnedSchedule(learn_ends=True))
    with pytest.raises(ValueError, match="one of each"):
        sd.FrozenSchedule(4.0, -4.0, 1.0, (1.0,), (1.0, 2.0), (0.5,))
    with pytest.raises(ValueError, match="decrease"):
        sd.FrozenSchedule(4.0, -4.0, 0.1, (-5.0,), (20.0,), (0.5,))
    with pytest.raises(ValueError, match="learned schedule"):
        LearnedUncertainty(learning(sd.LearnedSchedule()))
