"""Guidance as peers have it, their code against ours: what their scales mean here."""

import types

import pytest
import torch
from azula.guidance.cfg import CFGDenoiser
from diffusers.guiders import AutoGuidance, ClassifierFreeGuidance

import sde_diffusion as sd
from sde_diffusion.guidance import autoguidance, classifier_free, rescale
from sde_diffusion.problems import GaussianMixture

VP = sd.VPLinear()
MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5, 0.2], [0.8, -0.2, 0.0]], [0.09, 0.25])
CONDITIONAL, UNCONDITIONAL = MIXTURE.given([0]).denoiser(VP), MIXTURE.denoiser(VP)
X = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
T = 0.4


@pytest.mark.parametrize("w", [0.0, 1.0, 7.5])
def test_azula_guidance_is_w_minus_1(w):
    """On the mean of the data, with one scale a call."""
    denoiser = lambda x, t, of: types.SimpleNamespace(mean=of(x, t))
    theirs = CFGDenoiser(denoiser)(
        X, T, positive={"of": CONDITIONAL}, negative={"of": UNCONDITIONAL}, guidance=w - 1
    )
    ours = classifier_free(CONDITIONAL, UNCONDITIONAL, scale=w)(X, T)
    torch.testing.assert_close(ours, theirs.mean)


@pytest.mark.parametrize("w", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("original", [False, True])
def test_diffusers_guidance_scale_is_w_or_w_minus_1(w, original):
    """On the network's output, here the noise; with `use_original_formulation` w - 1."""
    guided = classifier_free(CONDITIONAL, UNCONDITIONAL, scale=w)
    outputs = CONDITIONAL.noise(X, T), UNCONDITIONAL.noise(X, T)
    for kind in (ClassifierFreeGuidance, AutoGuidance):
        more = {"auto_guidance_layers": 1, "dropout": 0.1} if kind is AutoGuidance else {}
        guider = kind(guidance_scale=w - original, use_original_formulation=original, **more)
        torch.testing.assert_close(guided.noise(X, T), guider.forward(*outputs).pred)
    ours = autoguidance(CONDITIONAL, UNCONDITIONAL, scale=w)
    torch.testing.assert_close(ours.noise(X, T), guided.noise(X, T))


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
@pytest.mark.parametrize("phi", [0.3, 1.0])
def test_diffusers_guidance_rescale_is_phi_of_what_the_network_predicts(prediction, phi):
    outputs = [getattr(d, prediction)(X, T) for d in (CONDITIONAL, UNCONDITIONAL)]
    guider = ClassifierFreeGuidance(guidance_scale=5.0, guidance_rescale=phi)
    theirs = guider.forward(*outputs).pred
    guided = classifier_free(CONDITIONAL, UNCONDITIONAL, scale=5.0)
    ours = rescale(guided, phi, prediction)
    torch.testing.assert_close(getattr(ours, prediction)(X, T), theirs)
