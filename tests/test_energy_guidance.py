"""Guidance by gradients of log p(y | .): the exact classifier gives the conditional law."""

import math

import pytest
import torch
from enumeration import SCHEDULES, representatives, smooth_grid
from guided_problem import BOTH, WANTED, evidence, noised, states
from models import DOUBLE, VP, Net

import sde_diffusion as sd
from sde_diffusion.gradient import denoise_with_pull
from sde_diffusion.guidance import (
    classifier,
    limited_interval,
    rescale,
    static_thresholding,
    universal,
)
from sde_diffusion.problems import Gaussian


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("lambda_t", [-3.0, 0.0, 2.0])
def test_with_the_exact_classifier_the_score_is_the_conditional_one(schedule, lambda_t):
    t = schedule.time_of(lambda_t)
    x = noised(schedule, t)
    guided = classifier(BOTH.denoiser(schedule), evidence(schedule))
    with torch.no_grad():
        torch.testing.assert_close(guided(x, t), WANTED.denoised(x, *schedule(t)))
        expected = WANTED.score(x, *schedule(t))
        torch.testing.assert_close(guided.score(x, t), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), representatives())
def test_solvers_take_it_for_the_conditional_denoiser(name, options):
    plan = sd.SOLVERS[name](VP, smooth_grid(VP, 6), **options)
    guided = classifier(BOTH.denoiser(VP), evidence(VP))
    x = states(5)
    found = sd.run(plan, guided, x, noise=1)
    expected = sd.run(plan, WANTED.denoiser(VP), x, noise=1)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_the_scale_multiplies_the_gradient_and_zero_leaves_the_model():
    x, exact = noised(VP, 0.4), BOTH.denoiser(VP)
    shift = lambda w: classifier(exact, evidence(VP), scale=w)(x, 0.4) - exact(x, 0.4)
    assert not shift(0.0).any()
    torch.testing.assert_close(shift(3.0), 3 * shift(1.0))
    torch.testing.assert_close(shift(1.0), WANTED.denoised(x, *VP(0.4)) - exact(x, 0.4))


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_of_the_denoised_data_on_a_gaussian(t):
    """x_0 ~ N(0, c), y = x_0 + s n: d moves by w (sigma^2/alpha) J (y - d)/s^2."""
    c, s, y, w = 0.5, 0.7, torch.tensor([1.0, -2.0], dtype=DOUBLE), 1.5
    (alpha, sigma), x = VP(t), states(4)
    jacobian = alpha * c / (alpha**2 * c + sigma**2)
    d = jacobian * x
    log_p = lambda d, y: -(y - d).square().sum(1) / (2 * s**2)
    exact = Gaussian([0.0, 0.0], [c, c]).denoiser(VP)
    guided = universal(exact, log_p, scale=w, condition=(y.expand(4, 2),))
    expected = d + w * sigma**2 / alpha * jacobian * (y - d) / s**2
    torch.testing.assert_close(guided(x, t), expected)
    # Near sigma = 0 the point d is all there is: the shift is that of the exact classifier.
    spread = c * sigma**2 / (alpha**2 * c + sigma**2)
    right = w * sigma**2 / alpha * jacobian * (y - d) / (s**2 + spread)
    assert (guided(x, t) - d - right).abs().max() <= spread / s**2 * right.abs().max() + 1e-12


@pytest.mark.parametrize("make", [classifier, universal])
def test_conditions_follow_their_samples(make):
    """Of some samples, of all at their own times, in a run: each alone gives the same."""
    labels = torch.tensor([0, 1, 1, 0])
    means = torch.tensor([[-1.0, 0.2], [0.9, 0.4]], dtype=DOUBLE)
    near = lambda x, y: -(x - means[y]).square().sum(1)
    log_p = near if make is universal else lambda x, t, y: near(x, y)
    exact, x = BOTH.denoiser(VP), states(4)
    guided = make(exact, log_p, scale=2.0, condition=(labels,))
    assert guided.conditioned
    everyone = guided(x, 0.5)
    chosen = torch.tensor([2, 0])
    torch.testing.assert_close(guided.select(chosen)(x[chosen], 0.5), everyone[chosen])
    t = torch.tensor([0.2, 0.5, 0.8, 0.9], dtype=DOUBLE)
    for i, together in enumerate(guided(x, t)):
        alone = make(exact, log_p, scale=2.0, condition=(labels[i : i + 1],))(
            x[i : i + 1], float(t[i])
        )
        torch.testing.assert_close(together, alone[0])
    plan = sd.solvers.ddim(VP, sd.times.uniform(VP, 5))
    run = sd.run(plan, guided, x)
    one = sd.run(plan, make(exact, log_p, scale=2.0, condition=(labels[2:3],)), x[2:3])
    torch.testing.assert_close(run[2:3], one)
    torch.testing.assert_close(sd.run_parallel(plan, guided, x, tolerance=1e-12).x, run)


def test_a_run_of_a_network_differentiates_under_no_grad_and_not_in_inference_mode():
    network = sd.NetworkDenoiser(Net((2,), DOUBLE), VP)
    plan = sd.solvers.ddim(VP, sd.times.uniform(VP, 4))
    guided = universal(network, lambda d: -d.square().sum(1))
    found = sd.run(plan, guided, states(3))
    assert not found.requires_grad
    assert guided.cost(plan.asked_at) == (plan.nfe, plan.nfe)
    assert all(p.grad is None for p in network.network.parameters())
    assert (found - sd.run(plan, network, states(3))).abs().max() > 1e-3
    for made in (guided, classifier(network, lambda x, t: -x.square().sum(1))):
        with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
            sd.run(plan, made, states(3))


@pytest.mark.parametrize("kind", ["classifier", "universal"])
def test_a_run_that_keeps_its_graph_differentiates_the_guidance_too(kind):
    """With respect to the start and to the times, against difference quotients."""
    log_p = lambda d: -(d - 0.3).square().sum(1)
    made = {
        "classifier": classifier(BOTH.denoiser(VP), evidence(VP), scale=1.5),
        "universal": universal(BOTH.denoiser(VP), log_p, scale=1.5),
    }[kind]

    def run(x, times):
        return sd.run(sd.solvers.ddim(VP, times), made, x, grad=True)

    x, times = states(3), torch.tensor([0.9, 0.6, 0.3], dtype=DOUBLE)
    for arguments in ((x.requires_grad_(), times), (x.detach(), times.requires_grad_())):
        assert torch.autograd.gradcheck(run, arguments)


def test_the_likelihood_under_the_exact_classifier_is_the_conditional_models():
    """The divergence of the flow sees the Hessian of log p(y | x_t)."""
    ask = lambda denoiser: sd.log_likelihood(denoiser, 0.5 * states(4), t_end=0.01, trace="exact")
    found, right = ask(classifier(BOTH.denoiser(VP), evidence(VP))), ask(WANTED.denoiser(VP))
    torch.testing.assert_close(found.log_prob, right.log_prob, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["classifier", "universal"])
def test_products_with_the_jacobian_are_those_of_difference_quotients(kind):
    made = {
        "classifier": classifier(BOTH.denoiser(VP), evidence(VP), scale=1.5),
        "universal": universal(BOTH.denoiser(VP), lambda d: -(d**4).sum(1), scale=1.5),
    }[kind]
    x, v, step = states(4), states(4, 3), 1e-5
    with torch.no_grad():
        product = denoise_with_pull(made, x, 0.5)[1](v)
        for i in range(2):
            h = step * torch.eye(2, dtype=DOUBLE)[i]
            column = (made(x + h, 0.5) - made(x - h, 0.5)) / (2 * step)
            torch.testing.assert_close(product[:, i], (column * v).sum(1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("make", [classifier, universal])
@pytest.mark.parametrize(
    "around", [lambda d: d, lambda d: rescale(d, 0.5, "data"), static_thresholding]
)
def test_a_condition_is_for_one_number_of_samples(make, around):
    """Under whatever is laid around; a shared one is refused at the first door."""
    log_p = lambda *given: -given[0].square().sum(1)
    exact, plan = BOTH.denoiser(VP), sd.solvers.ddim(VP, sd.times.uniform(VP, 4))
    guided = around(make(exact, log_p, condition=(torch.zeros(4),)))
    assert guided.samples == 4
    assert guided.conditioned
    assert not around(make(exact, log_p)).conditioned
    for call in (
        lambda: sd.run(plan, guided, states(2)),
        lambda: guided(states(2), 0.5),
        lambda: sd.run_parallel(plan, guided, states(2)),
        lambda: sd.adaptive.per_sample_ode(guided, states(2), [0.9, 0.5]),
        lambda: sd.log_likelihood(guided, states(2), t_end=0.1),
    ):
        with pytest.raises(ValueError, match="bound to 4 samples and x has 2"):
            call()
    with pytest.raises(ValueError, match="conditions of 3 and 4 samples"):
        make(exact, log_p, condition=(torch.zeros(4), torch.zeros(3, 1)))


@pytest.mark.parametrize("make", [classifier, universal])
def test_at_pure_noise_guidance_is_left_out_by_an_interval_or_its_scale(make):
    """Flow matching from alpha = 0: the message's cure, and a scale that is 0 there."""
    flow = sd.FlowMatching()
    log_p = lambda *given: -given[0].square().sum(1)
    plan = sd.solvers.ddim(flow, sd.times.uniform(flow, 4, t_start=1.0))
    exact, x = BOTH.denoiser(flow), states(3)
    with pytest.raises(ValueError, match=r"limited_interval\(guided, 0, 50\)"):
        sd.run(plan, make(exact, log_p), x)
    by_interval = sd.run(plan, limited_interval(make(exact, log_p), 0, 50), x)
    by_scale = sd.run(plan, make(exact, log_p, scale=lambda t: float(t < 1)), x)
    torch.testing.assert_close(by_interval, by_scale)
    assert (by_scale - sd.run(plan, exact, x)).abs().max() > 1e-3
    assert torch.equal(sd.run(plan, make(exact, log_p, scale=0.0), x), sd.run(plan, exact, x))


def test_what_cannot_be():
    exact, flow = BOTH.denoiser(VP), sd.FlowMatching()
    with pytest.raises(TypeError, match="log_p must be a function, not float"):
        classifier(exact, 1.0)
    with pytest.raises(ValueError, match="scale = nan"):
        universal(exact, lambda d: d.sum(1), scale=math.nan)
    with pytest.raises(TypeError, match=r"condition=\(labels,\)"):
        classifier(exact, lambda x, t: x, condition=torch.zeros(3))
    with pytest.raises(TypeError, match="what is guided is function"):
        classifier(lambda x, t: x, lambda x, t: x)
    plan = sd.solvers.ddim(flow, sd.times.uniform(flow, 4, t_start=1.0))
    for guided in (
        classifier(BOTH.denoiser(flow), lambda x, t: x.sum(1)),
        universal(BOTH.denoiser(flow), lambda d: d.sum(1)),
    ):
        with pytest.raises(ValueError, match="alpha = 0"):
            sd.run(plan, guided, states(3))
    with pytest.raises(ValueError, match="one number a sample"):
        classifier(exact, lambda x, t: x)(states(3), 0.5)
    with pytest.raises(ValueError, match="no gradient in x"):
        universal(exact, lambda d: d.detach().sum(1))(states(3), 0.5)
    layer = torch.nn.Linear(2, 1)  # float32, and the state is float64
    with pytest.raises(TypeError, match=r"log_p computes in another dtype.*x\.to\(weight"):
        classifier(exact, lambda x, t: layer(x)[:, 0])(states(3), 0.5)
    plan = sd.solvers.ddim(VP, sd.times.uniform(VP, 4))
    with pytest.raises(FloatingPointError, match="step 0 of 4"):
        sd.run(plan, classifier(exact, lambda x, t: (x - x).sqrt().sum(1)), states(3))
