"""Guidance over real conditions: what is joined to one call, what is not, and whose is whose."""

import math

import pytest
import torch
from guided_problem import BOTH, WANTED, states
from models import DOUBLE, VP
from networks_listed import CONTEXTS, asked, perturbed, small

import sde_diffusion as sd
from sde_diffusion.guidance import (
    autoguidance,
    classifier_free,
    limited_interval,
    rescale,
    universal,
)
from sde_diffusion.guidance.branches import groups

N = 5
C, D = (torch.randn(N, 3, generator=torch.Generator().manual_seed(s)).double() for s in (1, 2))


def network(x, label, c=0.0, more=0.0):
    """Not linear in the label, so that a label of another branch is a wrong number."""
    shift = c.mean() if isinstance(c, torch.Tensor) and c.shape != x.shape else c
    return torch.tanh(x * (1 + label.reshape(-1, 1).to(x.dtype)) + shift) + more


def reads(**options):
    return sd.NetworkDenoiser(network, options.pop("schedule", VP), **{"dtype": DOUBLE, **options})


def start(n=N):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0)).double()


def members(*branches, count=N):
    return [group.members for group in groups(branches, count)]


class Halved(sd.NetworkDenoiser):
    """A NetworkDenoiser with a reading of its own."""

    def _mean(self, answer, x):
        return 0.5 * super()._mean(answer, x)


DIFFERENT = {
    "label": (reads(label="time"), reads(label="log_snr")),
    "function for a label": (reads(label=lambda t: t), reads(label=lambda t: 2 * t)),
    "timesteps": (
        reads(label="fractional_timestep", timesteps=10),
        reads(label="fractional_timestep", timesteps=20),
    ),
    "sigma_data": (
        reads(prediction="edm", sigma_data=0.5),
        reads(prediction="edm", sigma_data=1.5),
    ),
    "dtype": (reads(), reads(dtype=torch.float32)),
    "prediction": (reads(prediction="velocity"), reads(prediction="data")),
    "class": (Halved(network, VP, dtype=DOUBLE), reads()),
    "the other class": (reads(), Halved(network, VP, dtype=DOUBLE)),
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
def test_one_network_read_in_two_ways_is_asked_in_two_calls(pair):
    a, b = pair[0].given(C), pair[1].given(D)
    assert members(a, b) == [[0], [1]]
    x, w, t = start(), 2.5, 0.6
    right = b(x, t) + w * (a(x, t) - b(x, t))
    assert (a(x, t) - b(x, t)).abs().max() > 1e-9
    guided = autoguidance(a, b, scale=w)
    torch.testing.assert_close(guided(x, t), right, rtol=1e-12, atol=1e-12)
    (call,) = guided.bind([t], x)
    torch.testing.assert_close(call.scale * call.function(x, None), right, rtol=1e-9, atol=1e-9)
    alike = pair[0].given(D)
    assert members(a, alike) == ([[0], [1]] if isinstance(alike, Halved) else [[0, 1]])


def test_one_network_on_two_schedules_or_devices_is_asked_in_two_calls():
    base = reads().given(C)
    assert members(base, base.on(sd.VPCosine())) == [[0], [1]]
    assert members(base, reads(device="meta").given(D)) == [[0], [1]]


def test_a_condition_that_is_not_one_a_sample_is_not_laid_along_the_batch():
    """A shared one, in both branches or in one, keeps its meaning: the network's own."""
    one, another, table = C[:1], D[:1], torch.ones(7, 2, dtype=DOUBLE)
    base = reads()
    for a, b in ((one, another), (table, table), (table, 2 * table), (C, one)):
        assert members(base.given(a), base.given(b)) == [[0], [1]]
    scalar = torch.tensor(0.3, dtype=DOUBLE)
    assert members(base.given(C, scalar), base.given(D, scalar)) == [[0, 1]]
    assert members(base.given(C, scalar), base.given(D, scalar.clone())) == [[0], [1]]


def test_a_network_of_this_library_with_more_than_its_two_conditions_is_not_joined():
    base = sd.NetworkDenoiser(small("mlp", "classes"), VP, "data")
    labels = CONTEXTS["classes"]
    assert members(base.given(labels), base.given(), count=4) == [[0, 1]]
    assert members(base.given(labels, None, labels), base.given(), count=4) == [[0], [1]]


@pytest.mark.parametrize("times", [(0.05, 0.3, 0.9, 0.4, 0.01), (0.3, 0.9, 0.4, 0.35, 0.3)])
def test_in_an_interval_conditions_follow_their_samples(times):
    """Samples inside and outside, each at its own time, with labels of their own."""
    guided = classifier_free(reads().given(C), reads().given(D), scale=3.0)
    limited, x = limited_interval(guided, 0.3, 2.0), start()
    inside = [0.3 < VP.rho(t) <= 2.0 for t in times]
    assert 0 < sum(inside) < N
    right = []
    for i, t in enumerate(times):
        who = torch.tensor([i])
        denoiser = guided if inside[i] else reads().given(C)
        right.append(denoiser.select(who)(x[i : i + 1], t))
    found = limited(x, torch.tensor(times, dtype=DOUBLE))
    torch.testing.assert_close(found, torch.cat(right), rtol=1e-9, atol=1e-9)


def test_in_an_interval_nobody_is_asked_for_no_sample():
    sizes = []

    def counted(x, label, c):
        sizes.append(len(x))
        return network(x, label, c)

    base = sd.NetworkDenoiser(counted, VP, dtype=DOUBLE)
    guided = classifier_free(base.given(C), base.given(D), scale=3.0)
    limited = limited_interval(guided, 0.3, 2.0)
    for t, expected in ((0.01, [N]), (0.3, [2 * N])):
        sizes.clear()
        limited(start(), torch.full((N,), t, dtype=DOUBLE))
        assert sizes == expected


class Bent(sd.Schedule):
    """FlowMatching, but for what vanishes at both ends, of alpha or of sigma."""

    def __init__(self, of_alpha=0.0, of_sigma=0.0):
        self.bends = of_alpha, of_sigma

    def alpha(self, t):
        return (1 - t) * (1 + self.bends[0] * t)

    def sigma(self, t):
        return t * (1 + self.bends[1] * (1 - t))


@pytest.mark.parametrize("bends", [(0.3, 0.0), (0.0, 0.3), (0.3, 0.3)])
def test_schedules_that_agree_at_their_ends_alone_are_refused(bends):
    flow, bent = sd.FlowMatching(), Bent(*bends)
    for t in (0.0, 1.0):
        assert tuple(map(float, bent(t))) == tuple(map(float, flow(t)))
    with pytest.raises(ValueError, match="one denoiser is for"):
        classifier_free(WANTED.denoiser(flow), BOTH.denoiser(bent), scale=2.0)
    same = classifier_free(WANTED.denoiser(flow), BOTH.denoiser(Bent()), scale=2.0)
    assert same(states(3), 0.5).isfinite().all()


def test_a_shared_rho_is_no_shared_schedule():
    """alpha alone, or its ratio to sigma alone, does not tell what x is."""
    flow, scaled = sd.FlowMatching(), Bent()
    scaled.alpha, scaled.sigma = (lambda t: 2 * (1 - t)), (lambda t: 2 * t)
    with pytest.raises(ValueError, match="one denoiser is for"):
        classifier_free(WANTED.denoiser(flow), BOTH.denoiser(scaled), scale=2.0)


def test_whoever_goes_over_a_data_set_sees_conditions_through_any_guidance():
    """One batch of conditions says nothing of the samples of a whole data set."""
    c, u = reads().given(C), reads().given(D)
    energy = universal(
        BOTH.denoiser(VP), lambda d, y: -(d - y).square().sum(1), condition=(states(N),)
    )
    guided = classifier_free(c, u, scale=3.0)
    for denoiser in (
        guided,
        rescale(guided, 0.5, "data"),
        limited_interval(guided, 0.3, 2.0),
        rescale(energy, 0.5, "data"),
        classifier_free(WANTED.denoiser(VP), energy, scale=2.0),
        energy,
        limited_interval(energy, 0.0, math.inf),
    ):
        with pytest.raises(ValueError, match="condition"):
            sd.measure_moments(denoiser, states(60), [0.3, 0.6])
    free = classifier_free(WANTED.denoiser(VP), BOTH.denoiser(VP), scale=2.0)
    sd.measure_moments(free, states(60), [0.3, 0.6])


def test_one_network_or_another_the_condition_left_out_is_the_same_model():
    """adaptive_projected and cfg_zero_star without the unconditional denoiser."""
    x, t = asked("mlp")
    base = sd.NetworkDenoiser(perturbed(small("mlp", "classes")), VP, "velocity")
    conditional = base.given(CONTEXTS["classes"])
    for method in (sd.guidance.adaptive_projected, sd.guidance.cfg_zero_star):
        found = method(conditional, scale=4.0)
        right = method(conditional, base.given(), scale=4.0)
        for time in (0.4, t.clamp(0.1)):
            torch.testing.assert_close(found(x, time), right(x, time))
        assert (found(x, 0.4) - conditional(x, 0.4)).abs().max() > 1e-3
        with pytest.raises(ValueError, match="without a condition"):
            method(base, scale=4.0)
