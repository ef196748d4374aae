"""Products with a denoiser's Jacobian: Tweedie's covariance, and what autograd cannot do."""

from functools import partial

import pytest
import torch
from cases import each
from enumeration import SCHEDULES
from models import DOUBLE, VP, Net

import sde_diffusion as sd
from sde_diffusion.gradient import denoise_with_pull, gradient_of_log, score_to_mean
from sde_diffusion.problems import DataSet, ring, spectrum_mixture

PROBLEMS = {
    "ring": ring(5, 3),
    "full": spectrum_mixture(4, 6),
    "points": DataSet([[0.0, 1.0], [1.0, 0.0], [-1.0, -0.5]], smoothing=0.1),
}


def normal(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@each("schedule", SCHEDULES.values(), ids=SCHEDULES)
@each("problem", PROBLEMS.values(), ids=PROBLEMS)
@each("lambda_t", [-2.0, 0.0, 2.0])
def test_the_pull_is_tweedies_covariance(problem, schedule, lambda_t):
    """J^T v = (alpha/sigma^2) Cov[x_0 | x_t] v, and J is symmetric."""
    t = schedule.time_of(lambda_t)
    alpha, sigma = schedule(t)
    x = problem.sample_marginal(5, alpha, sigma, torch.Generator().manual_seed(3))
    v, w = normal(*x.shape, seed=1), normal(*x.shape, seed=2)
    with torch.no_grad():
        d, pull = denoise_with_pull(problem.denoiser(schedule), x, t)
    assert not d.requires_grad
    torch.testing.assert_close(d, problem.denoised(x, alpha, sigma))
    covariance = problem.covariance(x, alpha, sigma)
    expected = alpha / sigma**2 * torch.einsum("bij,bj->bi", covariance, v)
    size = expected.abs().max()
    torch.testing.assert_close(pull(v) / size, expected / size, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close((pull(v) * w).sum(1) / size, (pull(w) * v).sum(1) / size)


def test_the_gradient_of_evidence_makes_the_conditional_mean():
    """d + (sigma^2/alpha) grad log p(y|x_t) = E[x_0 | x_t, y], where y tells the mode."""
    weights, means, variances = [0.3, 0.7], [[-1.0, 0.0], [0.9, 0.4]], [0.09, 0.04]
    both = sd.problems.GaussianMixture(weights, means, variances)
    second = sd.problems.GaussianMixture([1.0], means[1:], variances[1:])
    alpha, sigma = VP(0.4)
    x = both.sample_marginal(20, alpha, sigma, torch.Generator().manual_seed(0))
    log_p = lambda x: second.log_prob(x, alpha, sigma) - both.log_prob(x, alpha, sigma)
    moved = both.denoised(x, alpha, sigma) + score_to_mean(VP, 0.4) * gradient_of_log(log_p, x)
    torch.testing.assert_close(moved, second.denoised(x, alpha, sigma))


def test_one_time_a_sample():
    problem, x = PROBLEMS["ring"], normal(4, 3)
    t = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=DOUBLE)
    v = normal(4, 3, seed=1)
    plain = sd.FunctionDenoiser(lambda x, t: problem.denoised(x, *VP(t)), VP)
    network = sd.NetworkDenoiser(Net(dtype=DOUBLE), VP)
    for denoiser in (problem.denoiser(VP), plain, network):
        d, pull = denoise_with_pull(denoiser, x, t)
        product, factor = pull(v), score_to_mean(VP, t)
        for i in range(4):
            one = slice(i, i + 1)
            alone, pull_alone = denoise_with_pull(denoiser, x[one], float(t[i]))
            torch.testing.assert_close(d[one], alone)
            torch.testing.assert_close(product[one], pull_alone(v[one]))
            assert float(factor[i]) == pytest.approx(score_to_mean(VP, float(t[i])))


def test_a_network_in_its_own_dtype_answers_in_that_of_the_state():
    network = sd.NetworkDenoiser(Net(), VP)
    x, v = normal(4, 3), normal(4, 3, seed=1)
    d, pull = denoise_with_pull(network, x, 0.5)
    assert d.dtype == pull(v).dtype == DOUBLE
    single, pull_single = denoise_with_pull(network, x.float(), 0.5)
    assert single.dtype == pull_single(v).dtype == torch.float32  # v in another dtype than d
    torch.testing.assert_close(single.double(), d, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pull_single(v).double(), pull(v), rtol=1e-5, atol=1e-5)


def test_inference_mode_is_refused_in_words():
    x = normal(4, 3)
    network = sd.NetworkDenoiser(Net(dtype=DOUBLE), VP)
    with torch.inference_mode():
        made_inside = sd.NetworkDenoiser(Net(dtype=DOUBLE), VP)
        state = x.clone()
        with pytest.raises(RuntimeError, match=r"inference_mode\(\) keeps none"):
            denoise_with_pull(network, x, 0.5)
        with pytest.raises(RuntimeError, match="through log_p"):
            gradient_of_log(lambda x: x.sum(1), x)
    with pytest.raises(RuntimeError, match="made inside"):
        denoise_with_pull(made_inside, x, 0.5)
    with pytest.raises(RuntimeError, match="log_p holds tensors"):
        gradient_of_log(lambda x: made_inside(x, 0.5).sum(1), x)
    d, pull = denoise_with_pull(network, state, 0.5)  # a state that was made inside does no harm
    torch.testing.assert_close(d, network(x, 0.5).detach())
    torch.testing.assert_close(pull(x), denoise_with_pull(network, x, 0.5)[1](x))


def test_an_answer_that_autograd_does_not_see_is_refused():
    x, weight = normal(4, 3), torch.ones(3, dtype=DOUBLE, requires_grad=True)
    detached = sd.FunctionDenoiser(lambda x, t: x.detach() / 2, VP)
    with pytest.raises(ValueError, match="no gradient in x"):
        denoise_with_pull(detached, x, 0.5)
    of_parameters = sd.FunctionDenoiser(lambda x, t: x.detach() * weight, VP)
    with pytest.raises(ValueError, match="no gradient in x"):
        denoise_with_pull(of_parameters, x, 0.5)[1](x)
    with pytest.raises(ValueError, match="no gradient in x"):
        gradient_of_log(lambda x: (x.detach() * weight).sum(1), x)
    with pytest.raises(ValueError, match="no gradient in x"):
        gradient_of_log(lambda x: x.detach().sum(1), x)


def test_a_network_without_a_graph_is_refused_whatever_it_predicts():
    """d = a x + b F has a graph by a x alone, so that F itself is looked at."""
    network, x = Net(dtype=DOUBLE), normal(4, 3)
    ways = [
        torch.no_grad()(network.forward),
        torch.inference_mode()(network.forward),
        lambda x, t: network(x.detach(), t),  # a graph, to the parameters alone
        lambda x, t: torch.from_numpy(network(x, t).detach().numpy().copy()),
    ]
    for prediction in ("noise", "data", "velocity", "flow", "score", "edm"):
        for way in ways:
            denoiser = sd.NetworkDenoiser(way, VP, prediction)
            for t in (0.5, torch.tensor(0.5), torch.full((4,), 0.5)):
                with pytest.raises(ValueError, match="network's answer has no gradient in x"):
                    denoise_with_pull(denoiser, x, t)
            with torch.no_grad():
                denoiser(x, 0.5)
        seen = sd.NetworkDenoiser(lambda x, t: torch.ones_like(x) + 0 * x, VP, prediction)
        denoise_with_pull(seen, x, 0.5)[1](x)  # a constant that says so
        one = sd.NetworkDenoiser(network, VP, prediction)
        v = torch.ones(4, 3, dtype=DOUBLE)
        product = torch.func.vjp(partial(one, t=0.5), x)[1](v)[0]  # its tensors are wrapped
        torch.testing.assert_close(product, denoise_with_pull(one, x, 0.5)[1](v))


def test_a_pull_refuses_another_shape_and_a_state_that_went_on():
    x = normal(4, 3)
    _, pull = denoise_with_pull(sd.FunctionDenoiser(lambda x, t: x.sin(), VP), x, 0.5)
    with pytest.raises(ValueError, match=r"shape \(3,\).*\(4, 3\)"):
        pull(x[0])
    x.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pull(x)


@pytest.mark.parametrize("t", [1.0, torch.tensor([0.5, 1.0, 0.2, 0.3], dtype=DOUBLE)])
def test_no_gradient_at_pure_noise(t):
    with pytest.raises(ValueError, match="alpha = 0"):
        score_to_mean(sd.FlowMatching(), t)


def test_log_p_must_be_one_real_number_a_sample():
    x = normal(4, 3)
    for wrong in (lambda x: x, lambda x: x.sum(), lambda x: x.sum(1, keepdim=True)):
        with pytest.raises(ValueError, match=r"one number a sample, \(4,\)"):
            gradient_of_log(wrong, x)
    with pytest.raises(TypeError, match="float"):
        gradient_of_log(lambda x: 1.0, x)
    with pytest.raises(TypeError, match="int64"):
        gradient_of_log(lambda x: x.argmax(1), x)


def test_gradients_of_the_answers_where_they_are_asked_for():
    x, v = normal(3, 3), normal(3, 3, seed=1)
    denoiser = PROBLEMS["ring"].denoiser(VP)

    def both(x):
        d, pull = denoise_with_pull(denoiser, x, 0.5)
        return d, pull(v)

    assert torch.autograd.gradcheck(both, x.requires_grad_())
    with torch.no_grad():
        assert not any(answer.requires_grad for answer in both(x))
    assert not any(answer.requires_grad for answer in both(x.detach()))
