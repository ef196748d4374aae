"""Guidance and thresholding of diffusers: equal to ours, or shown where they are not."""

import diffusers
import pytest
import torch
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
)
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

import sde_diffusion as sd
from sde_diffusion import guidance

FLOW, SHAPE, W = sd.FlowMatching(), (3, 2, 4, 4), 3.5
TIMES = (0.9, 0.6, 0.3)


def normal(seed, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def answers(outputs):
    """A denoiser of the flow with these outputs at TIMES, whatever the state."""
    return sd.FunctionDenoiser(lambda x, t: outputs[TIMES.index(t)], FLOW)


CONDITIONAL, UNCONDITIONAL = [normal(k) for k in (1, 2, 3)], [normal(k) for k in (4, 5, 6)]
PAIR = answers(CONDITIONAL), answers(UNCONDITIONAL)


def projected(original, momentum, **config):
    """What diffusers makes of the same pairs, call by call."""
    guider = AdaptiveProjectedGuidance(use_original_formulation=original, **config)
    guider.momentum_buffer = None if momentum is None else MomentumBuffer(momentum)
    return [guider.forward(*pair).pred for pair in zip(CONDITIONAL, UNCONDITIONAL, strict=True)]


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("threshold", [2.5, 6.0])
@pytest.mark.parametrize("momentum", [None, -0.5])
def test_adaptive_projected_guidance_in_the_papers_form(eta, threshold, momentum):
    """Its guidance_scale is then w - 1. (Its 0 is no threshold; ours is inf.)"""
    config = {"adaptive_projected_guidance_rescale": threshold, "eta": eta}
    theirs = projected(True, momentum, guidance_scale=W - 1, **config)
    ours = guidance.adaptive_projected(
        *PAIR, scale=W, eta=eta, norm_threshold=threshold, momentum=momentum or 0.0
    )
    x = normal(0)
    for call, expected in zip(ours.bind(TIMES, x), theirs, strict=True):
        torch.testing.assert_close(call.function(x, None), expected)


def test_its_default_form_begins_at_the_unconditional_one():
    """d_u + w (..): the same without projection and threshold, another guidance with them."""
    x, plain = normal(0), {"adaptive_projected_guidance_rescale": 0.0}
    theirs = projected(False, None, guidance_scale=W, eta=1.0, **plain)
    ours = guidance.adaptive_projected(*PAIR, scale=W, eta=1.0)
    torch.testing.assert_close(ours(x, TIMES[0]), theirs[0])
    theirs = projected(False, None, guidance_scale=W, eta=0.0, **plain)
    assert (guidance.adaptive_projected(*PAIR, scale=W)(x, TIMES[0]) - theirs[0]).abs().max() > 0.1


def test_cfg_zero_star_of_the_flows_velocity():
    x, guider = normal(0), ClassifierFreeZeroStarGuidance(guidance_scale=W, zero_init_steps=1)
    ours = guidance.cfg_zero_star(*PAIR, scale=W, zero_above=0.8).bind(TIMES, x)
    for i, t in enumerate(TIMES):
        guider._step = i
        v = guider.forward(*((x - d[i]) / t for d in (CONDITIONAL, UNCONDITIONAL))).pred
        torch.testing.assert_close(
            ours[i].function(x, None), x - t * v, rtol=1e-5, atol=1e-5
        )  # its scale is computed in float32


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (0.4, 0.7), (0.0, 0.5), (0.7, 1.0)])
def test_guidance_in_a_share_of_the_steps(start, stop):
    """Steps from int(start N) up to int(stop N): an interval of the noise levels of the grid."""
    guider = ClassifierFreeGuidance(guidance_scale=W, start=start, stop=stop)
    high, low = (FLOW.rho((*TIMES, 0.0)[int(share * len(TIMES))]) for share in (start, stop))
    full = guidance.classifier_free(*PAIR, scale=W)
    ours = guidance.limited_interval(full, low, high).bind(TIMES, normal(0))
    for i, pair in enumerate(zip(CONDITIONAL, UNCONDITIONAL, strict=True)):
        guider.set_state(i, len(TIMES), None)
        call = ours[i]
        found = call.scale * call.function(normal(0), None)
        torch.testing.assert_close(found, guider.forward(*pair).pred)


def test_dynamic_thresholding():
    d = 2 * normal(0) * torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    for ratio, most in ((0.995, 1.5), (0.9, 100.0), (0.5, 1.0)):
        theirs = diffusers.DDIMScheduler(
            thresholding=True, dynamic_thresholding_ratio=ratio, sample_max_value=most
        )
        denoiser = sd.FunctionDenoiser(lambda x, t: d, FLOW)
        ours = guidance.dynamic_thresholding(denoiser, ratio, max_threshold=most)(d, 0.5)
        torch.testing.assert_close(ours, theirs._threshold_sample(d))


@pytest.mark.parametrize("recomputed", [True, False])
def test_a_clipped_step_of_ddim(recomputed):
    """Ours is theirs with use_clipped_model_output=True: the noise follows from the clipped data.

    By default their noise stays that of the data before clipping, so that d and eps no longer
    make up x.
    """
    schedule = sd.ddpm_linear()
    theirs = diffusers.DDIMScheduler(1000, clip_sample=True, timestep_spacing="leading")
    theirs.set_timesteps(20)
    k = int(theirs.timesteps[3])
    t, s = ((i + 1) / 1000 for i in (k, k - 50))
    x, eps = normal(0), normal(1)
    found = theirs.step(eps, k, x, use_clipped_model_output=recomputed).prev_sample
    network = sd.NetworkDenoiser(lambda x, t: eps, schedule, "noise")
    clipped = guidance.static_thresholding(network)
    assert network(x, t).abs().max() > 1
    ours = sd.run(sd.solvers.ddim(schedule, [t, s]), clipped, x)
    assert ((found - ours).abs().max() < 1e-5) == recomputed
