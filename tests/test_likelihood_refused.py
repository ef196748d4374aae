"""Bad requests of likelihoods are refused with a cure."""

import pytest
import torch
from models import Net

import sde_diffusion as sd
from sde_diffusion.likelihood import (
    GaussianReference,
    bits_per_dimension,
    decode,
    log_likelihood,
    sample_with_density,
)

VP = sd.VPLinear()
X = torch.zeros(2, 3)
DENOISER = sd.NetworkDenoiser(Net(), VP)


class Detached(torch.nn.Module):
    def forward(self, x, t):
        return x.detach() * 2


@torch.no_grad()
def without_gradient(x, t):
    return 2 * x


def inference_network():
    with torch.inference_mode():
        return Net()


def ask(denoiser=DENOISER, x=X, **options):
    return lambda: log_likelihood(denoiser, x, **options)


def bits(images, levels=17, **options):
    return lambda: bits_per_dimension(DENOISER, images, levels=levels, **options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (ask(solver="euler_maruyama"), "draws noise"),
        (ask(solver="gotta_go_fast"), "draws noise"),
        (ask(solver="ddim", eta=0.5), "draws noise"),
        (ask(solver="learned_variance"), "draws noise, as a solver of `sample`"),
        (ask(solver="analytic_dpm"), "draws noise, as a solver of `sample`"),
        (ask(solver="predictor_corrector"), "draws noise, as a solver of `sample`"),
        (ask(steps=1), "steps=2"),
        (ask(solver="torchdiffeq", method="heun3", steps=1), "steps=2"),
        (ask(solver="angulr"), "did you mean 'angular'"),
        (ask(solver="ddim", etta=0.5), "did you mean 'eta'"),
        (ask(trace="rademaker"), "did you mean 'rademacher'"),
        (ask(probes=0), "at least 1"),
        (ask(probes=2, trace="hutch++"), "at least 3"),
        (ask(times=[1.0, 0.5, 0.0]), "t_end=0.001"),
        (ask(t_end=0.0), "sigma = 0"),
        (ask(times=[1.0, 0.5], t_end=0.1), "not both"),
        (ask(times=[1.0, 0.5], steps=2), "not both"),
        (ask(times="unifrom"), "did you mean 'uniform'"),
        (ask(steps=0), "at least 1"),
        (ask(x=torch.zeros(2, 3, dtype=torch.int64)), "bits_per_dimension"),
        (ask(x=torch.full((2, 3), torch.nan)), "not finite"),
        (ask(x=torch.zeros(0, 3)), "empty batch"),
        (ask(x=torch.zeros(3)), r"x\[:, None\]"),
        (ask(reference=-1.0), "positive semidefinite"),
        (ask(reference=torch.ones(4)), "4 variances and a sample 3"),
        (ask(reference=[[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (ask(chunk=0), "chunk = 0"),
        (ask(chunk=2.0), "chunk = 2.0"),
        (ask(batch_size="4"), "batch_size = '4' must be an integer"),
        (ask(chunk=[1]), "chunk = "),
        (ask(batch_size="a"), "batch_size = 'a'"),
        (ask(probes=1.5), "probes = 1.5"),
        (ask(seed=1.5), "seed 1.5"),
        (ask(seed="abc"), "seed 'abc'"),
        (ask(prior=3), "prior = 3"),
        (ask(denoiser=DENOISER.given(torch.zeros(1))), "bound to 1 samples"),
        (ask(denoiser=DENOISER.given(torch.zeros(9))), "bound to 9 samples"),
        (bits(torch.zeros(2, 3), value_range=(0, 1, 2)), "two numbers"),
        (bits(torch.zeros(2, 3, dtype=torch.bool)), "torch.bool"),
        (ask(batch_size=0), "batch_size = 0"),
        (ask(seed=[1, 2, 3]), "3 seeds for 2 samples"),
        (ask(seed=-1), "seed -1"),
        (ask(prior=lambda x: x), "one log-density a sample"),
        (ask(denoiser=sd.NetworkDenoiser(Detached(), VP)), "no gradient"),
        (ask(denoiser=sd.NetworkDenoiser(without_gradient, VP)), "no gradient"),
        (ask(denoiser=sd.NetworkDenoiser(inference_network(), VP)), "inference"),
        (ask(denoiser=sd.FunctionDenoiser(without_gradient, VP)), "no gradient"),
        (ask(denoiser=Net()), "which has no schedule"),
        (lambda: decode(DENOISER, X, solver="euler_maruyama", steps=4), "draws noise"),
        (lambda: GaussianReference.of(torch.zeros(1, 3)), "n >= 2"),
        (lambda: log_likelihood(DENOISER, X, steps=2, seed=0).error_bar(1.5), "level = 1.5"),
        (bits(torch.full((2, 3), 0.3)), "none of the 17 levels"),
        (bits(torch.full((2, 3), 1.5)), "none of the 17 levels"),
        (bits(torch.full((2, 3), 17)), "integers 0 to 16"),
        (bits(torch.full((2, 3), torch.nan)), "none of the 17 levels"),
        (bits(torch.zeros(2, 3), levels=1), "levels = 1"),
        (bits(torch.zeros(2, 3), value_range=(1, -1)), "value_range"),
        (bits(torch.zeros(2, 3), samples=0), "samples = 0"),
        (bits(torch.zeros(2, 3), dequantisation="unifrom"), "did you mean 'uniform'"),
        (lambda: sample_with_density(DENOISER, (2, 3), solver="heun"), "reverse SDE"),
        (lambda: sample_with_density(DENOISER, (2, 3), solver="ddim", eta=0.5), "eta = 1.0"),
        (lambda: sample_with_density(DENOISER, (2, 3), t_end=0.0), "sigma = 0"),
    ],
)
def test_bad_requests_are_refused_with_a_cure(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_inference_mode_around_the_call_is_no_obstacle():
    expected = log_likelihood(DENOISER, X, steps=4, seed=0).log_prob
    with torch.inference_mode():
        found = log_likelihood(DENOISER, X, steps=4, seed=0).log_prob
    assert torch.equal(found, expected)


def test_a_single_sample_has_no_spread():
    found = log_likelihood(DENOISER, X[:1], steps=4, seed=0)
    with pytest.raises(ValueError, match="at least two"):
        _ = found.mean_standard_error


def test_networks_hidden_in_a_function_are_asked_in_the_dtype_of_x():
    """As `sample` asks them: a float32 network would not take the float64 states of the solve."""
    linear = torch.nn.Linear(4, 4)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    hidden = sd.NetworkDenoiser(lambda x, t: linear(x), sd.VPLinear(), "velocity")
    said = sd.NetworkDenoiser(lambda x, t: linear(x), sd.VPLinear(), "velocity", dtype=x.dtype)
    found, told = (sd.log_likelihood(d, x, seed=0).log_prob for d in (hidden, said))
    assert found.equal(told)
    assert (
        sd.bits_per_dimension(hidden, torch.ones(2, 4).long(), levels=5, seed=0)
        .bits.isfinite()
        .all()
    )


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(4)])
def test_networks_in_training_mode_are_refused(layer):
    class Network(torch.nn.Sequential):
        def forward(self, x, t):
            return super().forward(x)

    network = Network(torch.nn.Linear(4, 4), layer)
    denoiser, x = sd.NetworkDenoiser(network, sd.VPLinear(), "velocity"), torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"training mode, where .* network\.eval\(\)"):
        sd.log_likelihood(denoiser, x)
    network.eval()
    assert sd.log_likelihood(denoiser, x, steps=4, seed=0).log_prob.isfinite().all()
    for wrong in ("x", None):
        with pytest.raises(TypeError, match="give a GaussianReference"):
            sd.log_likelihood(denoiser, x, reference=wrong)
