"""Classifier-free guidance on data whose guided score, and in part whose law, is known."""

import math
from itertools import count

import numpy as np
import pytest
import torch
from enumeration import SCHEDULES, every_solver, representatives, smooth_grid
from models import DOUBLE, VP
from networks_listed import CONTEXTS, asked, perturbed, small
from scipy.integrate import quad

import sde_diffusion as sd
from sde_diffusion.guidance import (
    Cost,
    adaptive_projected,
    autoguidance,
    cfg_plus_plus,
    cfg_zero_star,
    classifier_free,
    composed,
)
from sde_diffusion.problems import GaussianMixture

MIXTURE = GaussianMixture(
    [0.2, 0.5, 0.3], [[-1.0, 0.5], [0.8, -0.2], [0.0, 1.0]], [0.09, 0.25, 0.04]
)
SOME = MIXTURE.given([0, 2])
STANDARD = GaussianMixture([1.0], [[0.0, 0.0]], [1.0])
SHIFTED = GaussianMixture([1.0], [[0.7, -0.3]], [1.0])


def states(n=6, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("w", [-0.5, 0.0, 0.3, 1.0, 4.0])
def test_the_guided_score_is_the_line_through_both(schedule, w):
    x, t = states(), 0.4 * schedule.t_max + 0.6 * schedule.t_min
    both = [problem.denoiser(schedule) for problem in (SOME, MIXTURE)]
    guided = classifier_free(*both, scale=w)
    each = torch.full((6,), t, dtype=DOUBLE)
    for read in ("score", "noise", "velocity"):
        c, u = (getattr(d, read)(x, t) for d in both)
        torch.testing.assert_close(getattr(guided, read)(x, t), (1 - w) * u + w * c)
        torch.testing.assert_close(getattr(guided, read)(x, each), (1 - w) * u + w * c)
    late = classifier_free(*both, scale=lambda u: w if u > 0.5 * schedule.t_max else 2.0)
    torch.testing.assert_close(late.score(x, t), 2 * both[0].score(x, t) - both[1].score(x, t))
    mixed = torch.tensor([t, t, schedule.t_max * 0.6] * 2, dtype=DOUBLE)
    right = torch.where(
        (mixed > 0.5 * schedule.t_max)[:, None],
        guided.score(x, mixed),
        2 * both[0].score(x, mixed) - both[1].score(x, mixed),
    )
    torch.testing.assert_close(late.score(x, mixed), right)


@pytest.mark.parametrize(("name", "options"), representatives())
def test_with_a_scale_of_one_and_of_nothing(name, options):
    """To the bit: the other branch is not asked."""
    plan = sd.SOLVERS[name](VP, smooth_grid(VP, 5), **options)
    conditional, unconditional = SOME.denoiser(VP), MIXTURE.denoiser(VP)
    for w, alone in ((1, conditional), (0, unconditional)):
        guided = classifier_free(conditional, unconditional, scale=w)
        right = sd.run(plan, alone, states(), noise=3)
        assert torch.equal(sd.run(plan, guided, states(), noise=3), right)
        assert guided.cost(plan.asked_at) == Cost(plan.nfe, plan.nfe)


def test_every_solver_between_gaussians_of_one_covariance():
    """There guidance is exact: d is that of N(mu_u + w (mu_c - mu_u), C), the tilted law."""
    grid, w = smooth_grid(VP, 5), 3.0
    tilted = GaussianMixture([1.0], w * SHIFTED.mean[None], [1.0]).denoiser(VP)
    guided = classifier_free(SHIFTED.denoiser(VP), STANDARD.denoiser(VP), scale=w)
    for claimed in every_solver():
        name, options = claimed.values
        plan = sd.SOLVERS[name](VP, grid, **options)
        found, right = (sd.run(plan, d, states(), noise=3) for d in (guided, tilted))
        assert torch.allclose(found, right, rtol=1e-9, atol=1e-9), claimed.id


@pytest.mark.parametrize("solver", [s for s in sd.adaptive.ADAPTIVE if s != "gotta_go_fast"])
def test_adaptive_solvers_between_gaussians_of_one_covariance(solver):
    tilted = GaussianMixture([1.0], 3.0 * SHIFTED.mean[None], [1.0]).denoiser(VP)
    guided = classifier_free(SHIFTED.denoiser(VP), STANDARD.denoiser(VP), scale=3.0)
    options = {"start": states(), "times": [0.9, 0.1], "rtol": 1e-4, "atol": 1e-4}
    found, right = (sd.sample(d, (6, 2), solver=solver, **options) for d in (guided, tilted))
    torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-6)


def laws(s, m, w):
    """(mean, variance) by the ODE, and variance by the SDE, of guidance of N(0, 1) to N(m, s^2).

    With u = sigma^2 (alpha = 1) the guided ODE is linear,

        dx/du = (1 - w) x / (2 (1 + u)) + w (x - m) / (2 (s^2 + u)),

    its factor from u to 0 phi(0)/phi(u), phi = (1 + u)^((1 - w)/2) (s^2 + u)^(w/2). From N(0, u),
    u -> inf, it ends in N(mean, s^(2w)), whereas the tilted law has 1/variance = 1 - w + w/s^2. The
    reverse SDE has phi^2 for phi, and gathers the noise du from each u.
    """
    phi = lambda u: (1 + u) ** ((1 - w) / 2) * (s * s + u) ** (w / 2)
    pull = lambda u: phi(0) / phi(u) * w * m / (2 * (s * s + u))
    mean = quad(pull, 0, math.inf, epsabs=1e-12)[0]
    noise = quad(lambda u: (phi(0) / phi(u)) ** 4, 0, math.inf, epsabs=1e-12)[0]
    return mean, s ** (2 * w), noise


class OneEach(sd.IndependentNoise):
    """Of sample k the k-th draw is 1, and all others are 0."""

    def stream(self, like, course):
        number = count()

        def draw(out, t, s):
            return out.zero_().index_fill_(0, torch.tensor(next(number)), 1.0)

        return draw


@pytest.mark.parametrize(("s", "m", "w"), [(0.5, 1.0, 2.0), (0.5, 1.0, 3.0), (2.0, -1.0, 1.2)])
def test_the_law_that_guidance_samples_from(s, m, w):
    """Of the ODE and of the SDE, both linear: by what becomes of a start of 1 and of each draw."""
    mean, variance, by_sde = laws(s, m, w)
    schedule = sd.EDM(1e-3, 2e3)
    broad, narrow = (GaussianMixture([1.0], [[a]], [v]) for a, v in ((0.0, 1.0), (m, s * s)))
    guided = classifier_free(narrow.denoiser(schedule), broad.denoiser(schedule), scale=w)
    times = sd.times.uniform_lambda(schedule, 400)
    x = torch.tensor([[0.0], [schedule.t_max]], dtype=DOUBLE)
    ends = sd.run(sd.SOLVERS["heun"](schedule, times), guided, x)[:, 0]
    assert abs(ends[0] - mean) < 2e-3 * (1 + abs(mean))
    assert abs((ends[1] - ends[0]) ** 2 / variance - 1) < 2e-3
    tilted = 1 / (1 - w + w / s**2)
    assert abs(variance / tilted - 1) > 0.2
    plan = sd.SOLVERS["ddim"](schedule, sd.times.uniform_lambda(schedule, 600), eta=1.0)
    draws = len(plan.noises)
    start = torch.zeros(draws + 2, 1, dtype=DOUBLE)  # the last but one has neither start nor draws
    start[-1] = schedule.t_max
    x = sd.run(plan, guided, start, noise=OneEach())[:, 0]
    found = (x - x[draws]).square().sum()
    assert abs(found / by_sde - 1) < 0.04  # the error of 600 steps
    assert abs(by_sde / variance - 1) > 0.05


def test_the_density_that_guidance_samples_from():
    """Of the guided flow, where its law is known: the tilted one at the time where it ends."""
    tilted = GaussianMixture([1.0], 3.0 * SHIFTED.mean[None], [1.0])
    guided = classifier_free(SHIFTED.denoiser(VP), STANDARD.denoiser(VP), scale=3.0)
    x, prior = states(), lambda x: tilted.log_prob(x, *VP(1.0))
    found = sd.log_likelihood(guided, x, t_end=0.01, trace="exact", prior=prior)
    torch.testing.assert_close(found.log_prob, tilted.log_prob(x, *VP(0.01)), rtol=1e-5, atol=1e-5)


def test_a_network_of_this_library_is_its_own_unconditional(x):
    network = perturbed(small("mlp", "classes"))
    base, labels = sd.NetworkDenoiser(network, VP, "data"), CONTEXTS["classes"]
    x, _ = asked("mlp")
    guided = classifier_free(base.given(labels), scale=2.5)
    c, u = network(x, torch.full((4,), 0.3), labels), network(x, torch.full((4,), 0.3))
    torch.testing.assert_close(guided(x, 0.3), u + 2.5 * (c - u))
    compiled = torch.compile(network, backend="eager")
    again = classifier_free(sd.NetworkDenoiser(compiled, VP, "data").given(labels), scale=2.5)
    torch.testing.assert_close(again(x, 0.3), guided(x, 0.3))
    assert again.cost([0.3]) == Cost(1, 2)


FREE = {
    "classifier_free": classifier_free,
    "adaptive_projected": adaptive_projected,
    "cfg_zero_star": cfg_zero_star,
    "autoguidance": autoguidance,
    "composed": lambda c, u, scale: composed([c], u, scales=[scale]),
    "cfg_plus_plus": lambda c, u, scale: cfg_plus_plus(c, u, scale=0.5, times=[0.9, 0.5]),
}


@pytest.mark.parametrize("method", FREE.values(), ids=FREE)
def test_guidance_between_one_model_and_itself_is_refused(method):
    """Made again, of equal conditions, of none in other words, of one that is dropped."""
    labels = CONTEXTS["classes"]
    own = sd.NetworkDenoiser(small("mlp", "classes"), VP)
    all_of, none = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    with_labels, dropped = own.given(labels), own.given(labels, all_of)
    for c, u in (
        (own, own),
        (own.given(None), own),
        (with_labels, own.given(labels.clone())),
        (with_labels, own.given(labels, none)),
        (dropped, own),
        (dropped, own.given(None, None)),
    ):
        with pytest.raises(ValueError, match=r"without a condition|are one denoiser"):
            method(c, u, scale=3.0)
    for c, u in (
        (with_labels, own.given(labels.flip(0))),
        (own.given(labels, torch.tensor([True, False, False, False])), own),
        (with_labels, dropped),
        (with_labels, sd.NetworkDenoiser(own.network, VP, "velocity").given(labels)),
    ):
        assert method(c, u, scale=3.0).samples == 4
    for wrong in (lambda x, t: x, None):
        with pytest.raises(TypeError, match=r"what is guided is .*wrap it"):
            method(wrong, own, scale=3.0)
    if method is not autoguidance:
        with pytest.raises(ValueError, match="without a condition: none is bound"):
            method(dropped, None, scale=3.0)


def test_what_is_refused():
    foreign = sd.NetworkDenoiser(lambda x, t, c=None: x, VP)
    own = sd.NetworkDenoiser(small("mlp", "classes"), VP)
    labels = CONTEXTS["classes"]
    exact = MIXTURE.denoiser(VP)
    same = lambda: classifier_free(own.given(labels), own.given(labels), scale=2.0)
    lost = classifier_free(exact, foreign, scale=lambda t: math.nan)
    refused = [
        (lambda: classifier_free(own, scale=2.0), ValueError, "without a condition: none"),
        (lambda: classifier_free(own.given(None), scale=2.0), ValueError, "without a condition"),
        (lambda: classifier_free(own, own, scale=2.0), ValueError, "both denoisers are the same"),
        (same, ValueError, "no scale has an effect"),
        (lambda: classifier_free(foreign.given(labels), scale=2.0), ValueError, "null_embedding"),
        (lambda: classifier_free(exact, scale=2.0), TypeError, "of a ExactDenoiser it"),
        (lambda: classifier_free(exact, foreign, scale=math.inf), ValueError, "scale = inf"),
        (lambda: classifier_free(exact, foreign, scale=np.float32("inf")), ValueError, "= inf"),
        (lambda: classifier_free(exact, foreign, scale="7"), TypeError, "scale = '7'"),
        (lambda: classifier_free(exact, foreign, scale=True), TypeError, "scale = True"),
        (lambda: classifier_free(exact, lambda x, t: x, scale=2.0), TypeError, "what is guided"),
        (lambda: autoguidance(exact, exact, scale=2.0), ValueError, "one denoiser"),
        (lambda: lost(states(), 0.5), ValueError, r"scale\(0.5\) = nan"),
        (lambda: lost.bind([0.5], states()), ValueError, r"scale\(0.5\) = nan"),
    ]  # fmt: skip
    for attempt, error, text in refused:
        with pytest.raises(error, match=text):
            attempt()


def test_gradients_reach_times_through_a_scale_of_the_time():
    """Of a plan's times, against a difference quotient."""
    guided = classifier_free(
        SOME.denoiser(VP), MIXTURE.denoiser(VP), scale=lambda t: 1.0 + 3.0 * t * t
    )

    def end(middle):
        times = [torch.tensor(0.9, dtype=DOUBLE), middle, torch.tensor(0.2, dtype=DOUBLE)]
        return sd.run(sd.SOLVERS["ddim"](VP, times), guided, states(), grad=True).sum()

    middle = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(end(middle), middle)
    quotient = (end(middle.detach() + 1e-5) - end(middle.detach() - 1e-5)) / 2e-5
    assert abs(slope - quotient) < 1e-6 * abs(quotient)
