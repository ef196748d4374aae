"""Effective weights, importance sampling and learned uncertainty against closed forms.

On Gaussian data N(m, v) the best denoiser's mean squared error in the noise is alpha^2 v/V, with
V = alpha^2 v + sigma^2; the error itself is normal, so its fourth moment is 3 times the square.
"""

import math
import multiprocessing

import numpy as np
import pytest
import torch
from objectives import DOUBLE, MEAN, VARIANCE, gaussian_mean, objective
from scipy import integrate
from torch import nn

import sde_diffusion as sd
from sde_diffusion.training import (
    Batch,
    DiffusionObjective,
    Importance,
    LearnedUncertainty,
    effective_weight,
    plot_effective_weights,
)
from sde_diffusion.training.random import generator_at

VP = sd.VPLinear()


def noise_error(schedule, t):
    alpha, sigma = (torch.as_tensor(c) for c in schedule(t))
    return alpha**2 * VARIANCE / (alpha**2 * VARIANCE + sigma**2)


def mean_loss(made, u):
    """E[l | u] of the best predictor: coefficient * |F - F*|^2, without importance sampling."""
    t = made.times.quantile(u)
    return made.coefficient(t) / made.noise_factor(t) * noise_error(made.denoiser.schedule, t)


def midpoints(n=200_000):
    return (torch.arange(n, dtype=DOUBLE) + 0.5) / n


# The effective weight


THIN = ("laplace", "logit_normal")  # 1/p in their tails is too large for an even grid of u
CASES = [
    (weighting, times)
    for weighting in ("own", "min_snr", "sigmoid", "p2", "likelihood", "velocity")
    for times in ("uniform", "cosine", "log_normal", *THIN)
    if not (times in THIN and weighting in ("sigmoid", "likelihood"))
]


@pytest.mark.parametrize(("weighting", "times"), CASES)
def test_effective_weight_integrates_to_the_loss(weighting, times):
    made = objective(VP, "noise", weighting=weighting, times=times)
    noisy, clean = (float(VP.half_log_snr(t)) for t in (VP.t_max, VP.t_clean))

    def integrand(lambda_):
        place = torch.tensor([lambda_], dtype=DOUBLE)
        error = noise_error(VP, torch.as_tensor(VP.time_of(place)))
        return float(effective_weight(made, place) * error)

    total, _ = integrate.quad(integrand, noisy, clean, points=[0.0], limit=200, epsabs=1e-8)
    assert total == pytest.approx(float(mean_loss(made, midpoints(20_000)).mean()), rel=1e-4)


def test_the_bound_is_flat_whatever_the_law_and_the_prediction():
    lambdas = torch.linspace(-4, 3, 29, dtype=DOUBLE)
    for prediction in ("noise", "velocity", "score", "edm"):
        for times in ("uniform", "laplace", "cosine"):
            made = objective(VP, prediction, weighting="likelihood", times=times)
            torch.testing.assert_close(effective_weight(made, lambdas), torch.ones_like(lambdas))


def test_likelihood_weight_is_that_of_the_continuous_time_bound():
    # Song et al. 2021: uniform t and g^2/2 on the score, the same as uniform lambda and the noise.
    # The bound is half of int |eps - eps_hat|^2 dlog SNR = int |eps - eps_hat|^2 d lambda.
    uniform = objective(VP, "noise", weighting="likelihood")
    u = midpoints(20_000)
    t = uniform.times.quantile(u)
    _, sigma = VP(t)
    score_error = noise_error(VP, t) / sigma**2
    bound = float((VP.g2(t) / 2 * score_error).mean()) * (VP.t_max - VP.t_clean)
    assert float(mean_loss(uniform, u).mean()) == pytest.approx(bound, rel=1e-9)
    even = objective(VP, "noise", weighting="noise", times="uniform_lambda")
    width = float(VP.half_log_snr(VP.t_clean) - VP.half_log_snr(VP.t_max))
    assert float(mean_loss(even, u).mean()) * width == pytest.approx(bound, rel=3e-5)
    # I-MMSE: int |eps - eps_hat|^2 d lambda = log V/sigma^2 / 2 between the two ends
    ends = torch.tensor([VP.t_clean, VP.t_max], dtype=DOUBLE)
    alpha, sigma = VP(ends)
    clean, noisy = torch.log1p(alpha**2 * VARIANCE / sigma**2) / 2
    assert bound == pytest.approx(float(clean - noisy), rel=1e-4)


def test_weight_is_zero_where_nothing_is_drawn():
    made = objective(VP, "noise", times="laplace")
    lambdas = torch.tensor([-30.0, -5.5, 0.0, 30.0, math.inf, -math.inf], dtype=DOUBLE)
    assert (effective_weight(made, lambdas) > 0).tolist() == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]


def test_the_minimiser_does_not_depend_on_the_weight():
    # A network that is one number at each of 3 times: its best value is the conditional mean there,
    # whatever each time weighs.
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = nn.Parameter(torch.zeros(3, dtype=DOUBLE))

        def forward(self, x, t):
            return self.slope[(t * 3).long().clamp(max=2)][:, None] * x

    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn((2, 3000, 1), generator=generator, dtype=DOUBLE)
    t = torch.tensor([0.1, 0.4, 0.8], dtype=DOUBLE).repeat(1000)
    found = []
    for weighting in ("own", "snr", "min_snr", "sigmoid", "likelihood"):
        network = Table()
        denoiser = sd.NetworkDenoiser(network, VP, "velocity", label=lambda t: t)
        made = DiffusionObjective(denoiser, weighting=weighting)
        loss = made.at(Batch(x_0), t, eps).loss.sum()
        # the loss is quadratic in each slope: one Newton step is the minimum
        (slope,) = torch.autograd.grad(loss, network.slope, create_graph=True)
        curve = torch.stack(
            [torch.autograd.grad(g, network.slope, retain_graph=True)[0] for g in slope]
        )
        found.append(-torch.linalg.solve(curve, slope).detach())
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_figure_of_effective_weights(tmp_path):
    made = {"DDPM": objective(VP, "noise"), "min-SNR": objective(VP, "noise", weighting="min_snr")}
    figure = plot_effective_weights(made)
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert set(drawn) == set(made)
    for values in drawn.values():
        assert np.nanmax(values) == 1
    figure.savefig(tmp_path / "w.png")
    assert (tmp_path / "w.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="at least one"):
        plot_effective_weights({})
    with pytest.raises(TypeError, match="no denoising objective"):
        effective_weight(nn.Identity(), torch.zeros(1))


# Importance sampling


def trained_importance(of, weighting, steps=150):
    made = objective(
        VP, "noise", gaussian_mean, weighting=weighting, importance=Importance(of, memory=1000.0)
    )
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        x_0 = MEAN + VARIANCE**0.5 * torch.randn((256, 1), generator=generator, dtype=DOUBLE)
        made(Batch(x_0), generator_at(0, step))
        made.after_step()
    return made


@pytest.mark.parametrize("of", ["gradient", "loss"])
@pytest.mark.parametrize("weighting", ["likelihood", "data", "score"])
def test_importance_sampling_keeps_the_mean_and_lowers_the_variance(of, weighting):
    made = trained_importance(of, weighting)
    u, ratio = made.importance.draw(midpoints())
    plain, drawn = mean_loss(made, midpoints()), mean_loss(made, u)
    assert float((drawn * ratio).mean()) == pytest.approx(float(plain.mean()), rel=1e-5)

    # The quantity whose mean square q was made for: the loss (3 mean^2), or the gradient's square.
    square = 3 * drawn**2 if of == "loss" else made.coefficient(made.times.quantile(u)) * drawn
    before = (
        3 * plain**2 if of == "loss" else made.coefficient(made.times.quantile(midpoints())) * plain
    )
    found, uniform = float((square * ratio**2).mean()), float(before.mean())
    best = float(before.sqrt().mean() ** 2)
    assert best * 0.999 < found < 0.25 * best + 0.75 * uniform


def test_losses_drawn_by_importance_have_the_mean_of_the_law():
    # False alarm: 6e-7 (5 standard errors, batches being independent).
    made = trained_importance("gradient", "likelihood").eval()
    generator, means = torch.Generator().manual_seed(2), []
    for step in range(200):
        x_0 = MEAN + VARIANCE**0.5 * torch.randn((256, 1), generator=generator, dtype=DOUBLE)
        means.append(float(made(Batch(x_0), generator_at(1, step)).loss.detach().mean()))
    expected = float(mean_loss(made, midpoints()).mean())
    error = np.std(means) / len(means) ** 0.5
    assert abs(np.mean(means) - expected) < 5 * error
    assert 20 * error < expected, "or any mean would do"


def test_importance_sampling_is_uniform_until_all_cells_are_known():
    importance = Importance(cells=4)
    v = torch.linspace(0, 0.999, 50, dtype=DOUBLE)
    u, ratio = importance.draw(v)
    torch.testing.assert_close(u, v)
    assert torch.equal(ratio, torch.ones_like(v))
    known = v[v < 0.75]
    importance.observe(known, torch.ones(len(known)), torch.ones(len(known)))
    importance.update()
    assert torch.equal(importance.density(), torch.ones(4, dtype=DOUBLE))


def test_importance_sampling_finds_the_square_root_of_the_mean_square():
    importance = Importance("loss", cells=4, uniform=0.2)
    u = midpoints(400)
    loss = torch.tensor([1.0, 2.0, 3.0, 4.0]).repeat_interleave(100)
    importance.observe(u, loss, torch.ones(400))
    importance.update()
    expected = 0.2 + 0.8 * torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=DOUBLE) / 2.5
    torch.testing.assert_close(importance.density(), expected, rtol=1e-6, atol=0)
    # memory: after many draws of another size, only they count
    for _ in range(20):
        importance.observe(u, torch.ones(400), torch.ones(400))
        importance.update()
    torch.testing.assert_close(importance.density(), torch.ones(4, dtype=DOUBLE), rtol=1e-2, atol=0)


def test_importance_sampling_remembers_in_its_buffers_and_only_in_training():
    made = trained_importance("loss", "likelihood", steps=8)
    other = objective(
        VP, "noise", gaussian_mean, weighting="likelihood", importance=Importance("loss")
    )
    other.load_state_dict(made.state_dict())
    assert torch.equal(other.importance.density(), made.importance.density())
    before = made.importance.density()
    made.eval()
    made(Batch(torch.zeros((64, 1), dtype=DOUBLE)), generator_at(0))
    made.after_step()
    assert torch.equal(made.importance.density(), before)


def _one_of_two(rank, path, queue):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=2
    )
    importance = Importance("loss", cells=2)
    u = torch.full((50,), 0.25 + 0.5 * rank, dtype=DOUBLE)  # each process sees one cell only
    importance.observe(u, torch.full((50,), 1.0 + 2 * rank), torch.ones(50))
    importance.update()
    queue.put(importance.density().tolist())
    torch.distributed.destroy_process_group()


def test_processes_share_one_density(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    jobs = [context.Process(target=_one_of_two, args=(r, tmp_path / "s", queue)) for r in range(2)]
    for job in jobs:
        job.start()
    found = [queue.get(timeout=60) for _ in jobs]
    for job in jobs:
        job.join()
    assert found[0] == found[1] == pytest.approx([0.1 + 0.9 * 0.5, 0.1 + 0.9 * 1.5])


# Learned uncertainty


def test_learned_uncertainty_finds_the_log_of_the_mean_loss():
    # The network is the best predictor and stays so; u alone is trained, to the end.
    inner = objective(VP, "noise", gaussian_mean, weighting="snr", times="uniform_lambda")
    made = LearnedUncertainty(inner)
    first = made(Batch(torch.zeros((4, 1), dtype=DOUBLE)), generator_at(0))
    assert torch.equal(
        first.loss, inner(Batch(torch.zeros((4, 1), dtype=DOUBLE)), generator_at(0)).loss
    )
    optimizer = torch.optim.Adam(made.log_variance.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    steps = 500
    for step in range(steps):
        x_0 = MEAN + VARIANCE**0.5 * torch.randn((1024, 1), generator=generator, dtype=DOUBLE)
        optimizer.param_groups[0]["lr"] = 6e-3 * (1 - step / steps)
        optimizer.zero_grad()
        made(Batch(x_0), generator_at(0, step)).loss.mean().backward()
        optimizer.step()
    lambdas = torch.linspace(-3, 3, 13, dtype=DOUBLE)
    u = made.log_variance(lambdas).detach().double()
    expected = noise_error(VP, torch.as_tensor(VP.time_of(lambdas))).log()
    assert float((u - expected).abs().max()) < 0.15
    # what is left of the weight is 1 over the error: all levels count alike
    weight = effective_weight(made, lambdas) / effective_weight(inner, lambdas)
    torch.testing.assert_close(weight, torch.exp(-u))


def test_learned_uncertainty_is_finite_at_both_ends_and_refuses_what_it_cannot_use():
    made = LearnedUncertainty(objective(VP, "noise"))
    ends = torch.tensor([-math.inf, math.inf])
    assert bool(made.log_variance(ends).isfinite().all())
    assert made.network is made.objective.network
    assert "objective" in made.describe()["of"]
    with pytest.raises(ValueError, match="use one of the two"):
        LearnedUncertainty(objective(VP, "noise", importance="loss"))
    for wrong in ({"cells": 0}, {"uniform": 0.0}, {"memory": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Importance(**wrong)
    with pytest.raises(ValueError, match="unknown second moment 'gradients'"):
        objective(VP, "noise", importance="gradients")
