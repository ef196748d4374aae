"""Densities and weights where alpha or sigma is 0: limits, against closed forms."""

import math

import pytest
import torch
from hypothesis import strategies as st
from objectives import DOUBLE, objective
from strategies import given

import sde_diffusion as sd
from sde_diffusion.training import LAWS, WEIGHTINGS, Importance, effective_weight, law_of
from sde_diffusion.training.importance import BELOW_ONE
from sde_diffusion.training.laws import Cosine, Laplace, Law, LogNormal

FLOW = sd.FlowMatching()
ENDING = [FLOW, sd.ZeroTerminalSNR(sd.VPLinear()), sd.Shifted(FLOW, 3.0)]
ONE = torch.ones(1, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("law", "limit"),
    [
        (Cosine(), lambda x: 2 / math.pi * x),
        (Cosine(0.7), lambda x: 2 / math.pi * math.exp(-0.7) * x),
        (Laplace(), lambda x: 0.0),
        (Laplace(0.3, 1.0), lambda x: math.exp(-0.3) / 2 * x),
        (Laplace(0.0, 2.0), lambda x: math.inf),
        (LogNormal(), lambda x: 0.0),
    ],
    ids=lambda value: str(value) if isinstance(value, Law) else None,
)
@pytest.mark.parametrize("schedule", ENDING, ids=str)
def test_density_at_alpha_zero_is_its_limit(schedule, law, limit):
    """p(t) = p(lambda) |lambda'|; where alpha = 0, alpha/sigma falls at a finite rate x."""
    slopes = [float(torch.as_tensor(c)[0]) for c in schedule.derivatives(ONE)]
    rate = -slopes[0] / float(torch.as_tensor(schedule.sigma(ONE))[0])
    times = law.on(schedule)
    expected = limit(rate) / times.mass
    assert float(times.density(ONE)) == pytest.approx(expected, rel=1e-12)
    assert float(times.density_in_lambda(ONE)) == 0
    if math.isfinite(expected):
        near = float(times.density(ONE - 1e-7))
        assert near == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", ["uniform", "logit_normal"])
@pytest.mark.parametrize("schedule", ENDING, ids=str)
def test_density_in_lambda_of_laws_in_time_vanishes_at_alpha_zero(schedule, name):
    assert float(law_of(name, schedule).on(schedule).density_in_lambda(ONE)) == 0


def test_the_cosine_law_on_the_line_in_closed_form():
    """2/pi / (t^2 + (1 - t)^2), on all of [0, 1]: also where sigma = 0."""
    t = torch.tensor([0.0, 1e-300, 1e-9, 0.3, 0.9, 1 - 1e-12, 1.0], dtype=DOUBLE)
    times = Cosine().on(FLOW)
    expected = 2 / math.pi / (t**2 + (1 - t) ** 2) / times.mass
    torch.testing.assert_close(times.density(t), expected, rtol=1e-12, atol=0)


def test_likelihood_weight_at_alpha_zero():
    made = objective(FLOW, "flow", weighting="likelihood", times="cosine")
    t = torch.tensor([0.5, 1 - 1e-9, 1.0], dtype=DOUBLE)
    # |lambda'| alpha^2 / p(t) = (1 - t)/t / p(t)
    torch.testing.assert_close(made.coefficient(t), (1 - t) / t / made.times.density(t))
    assert made.coefficient(ONE) == 0


@pytest.mark.parametrize("weighting", sorted(set(WEIGHTINGS) - {"edm"}))
@pytest.mark.parametrize("times", ["uniform", "cosine", "laplace", "log_normal", "logit_normal"])
def test_effective_weights_are_numbers_everywhere(weighting, times):
    lambdas = torch.tensor([-math.inf, -300, -40, -36, 0, 5, 300, math.inf], dtype=DOUBLE)
    for schedule in ENDING:
        made = objective(schedule, "velocity", weighting=weighting, times=times)
        weight = effective_weight(made, lambdas)
        assert not bool(weight.isnan().any())
        assert bool((weight >= 0).all())


@given(st.floats(-60.0, 6.0))
def test_effective_weight_in_closed_form_beyond_the_rounding_of_t(lambda_):
    """Flow matching, uniform t: p(lambda) / alpha^2 = e^-lambda; with the cosine law
    (1 + e^-lambda)^2 / (pi cosh lambda); in nats, 1."""
    at = torch.tensor([lambda_], dtype=DOUBLE)
    made = objective(FLOW, "velocity", weighting="flow", times="uniform")
    expected = math.exp(-lambda_) / made.times.mass
    assert float(effective_weight(made, at)) == pytest.approx(expected, rel=1e-9)
    made = objective(FLOW, "velocity", weighting="flow", times="cosine")
    expected = (1 + math.exp(-lambda_)) ** 2 / (math.pi * math.cosh(lambda_)) / made.times.mass
    assert float(effective_weight(made, at)) == pytest.approx(expected, rel=1e-9)
    made = objective(FLOW, "velocity", weighting="likelihood", times="cosine")
    assert float(effective_weight(made, at)) == 1


@pytest.mark.parametrize("name", sorted(set(LAWS) - {"uniform_lambda"}))
def test_importance_never_draws_the_end_itself(name):
    """Rounding made u = 1 of v next to 1; and whatever the last u is, its weight is a number."""
    importance = Importance(cells=3, memory=10.0)
    importance.totals[0], importance.seen[0] = torch.tensor([1.0, 7.0, 0.1]), 100
    v = torch.tensor([0.0, 0.5, BELOW_ONE], dtype=DOUBLE)
    u, _ = importance.draw(v)
    assert float(u.max()) <= BELOW_ONE < 1
    made = objective(FLOW, "velocity", weighting="likelihood", times=name)
    assert bool(made.coefficient(made.times.quantile(u)).isfinite().all())


def test_weights_are_refused_for_the_ends_too():
    """1/sigma of a score is infinite at the clean end, if it is drawn."""
    clean = sd.CustomSchedule(lambda t: 1 - t, lambda t: t * 1.0, t_clean=0.0)
    with pytest.raises(ValueError, match=r"is inf at t = 0, lambda = inf: weights must be finite"):
        objective(clean, "velocity", weighting="score", times="uniform")
