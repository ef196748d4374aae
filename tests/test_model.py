"""A model as plain data: made again, it answers the same; what cannot be made again says so."""

import json

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.model import default_label, describe_model, model_of
from sde_diffusion.networks import NETWORKS, build

SHAPES = {"mlp": (3,), "unet": (2, 4, 4), "dit": (2, 4, 4)}
SMALL = {
    "mlp": {"width": 8, "depth": 1},
    "unet": {"width": 16, "multipliers": [1]},
    "dit": {"width": 16, "depth": 1, "heads": 1, "patch": 2},
}


def perturbed(network):
    """Random weights everywhere: a new network answers zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    return network.eval()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(
    ("schedule", "prediction", "label", "more"),
    [
        (sd.VPLinear(), "noise", "time", {}),
        (sd.EDM(), "edm", None, {"sigma_data": 0.7}),
        (
            sd.ZeroTerminalSNR(sd.ddpm_linear(50)),
            "velocity",
            "fractional_timestep",
            {"timesteps": 50},
        ),
        (sd.Shifted(sd.FlowMatching(), 2.0), "flow", "log_snr", {}),
    ],
)
def test_a_model_is_made_again_from_json(kind, schedule, prediction, label, more):
    shape = SHAPES[kind]
    network = perturbed(build({"kind": kind, **SMALL[kind], "classes": 3}, shape))
    first = sd.NetworkDenoiser(network, schedule, prediction, label, **more)
    text = json.dumps(describe_model(first, shape, classes=3, range=(-1, 1)))
    again = model_of(json.loads(text))
    again.network.load_state_dict(network.state_dict())
    again.network.eval()
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    t = 0.4 * schedule.t_max
    labels = torch.tensor([0, 1, 2, 0])
    assert torch.equal(again.given(labels)(x, t), first.given(labels)(x, t))


def test_the_default_label_is_of_size_one():
    assert default_label(sd.VPLinear()) == default_label(sd.FlowMatching()) == "time"
    assert default_label(sd.EDM()) == "edm"


def test_what_cannot_be_made_again():
    network = build({"kind": "mlp", "width": 8}, (2,))
    custom = sd.CustomSchedule(lambda t: 1 - t, lambda t: t)
    for denoiser, message in (
        (sd.NetworkDenoiser(lambda x, t: x, sd.VPLinear()), "function cannot be made again"),
        (sd.NetworkDenoiser(network, sd.VPLinear(), label=lambda t: t), "label by name"),
        (sd.NetworkDenoiser(network, custom), "Tabulated holds any"),
    ):
        with pytest.raises(ValueError, match=message):
            describe_model(denoiser, (2,))


def test_descriptions_that_are_refused():
    network = build({"kind": "mlp", "width": 8}, (2,))
    whole = describe_model(sd.NetworkDenoiser(network, sd.VPLinear()), (2,))
    for change, message in (
        ({"predicton": "noise"}, "did you mean 'prediction'"),
        ({"prediction": "nose"}, "did you mean 'noise'"),
        ({"network": {"kind": "mpl"}}, "did you mean 'mlp'"),
        ({"network": {"kind": "mlp", "widht": 8}}, "did you mean 'width'"),
        ({"event_shape": [3]}, "event_shape"),
        ({"schedule": {"kind": "edmm"}}, "did you mean 'edm'"),
    ):
        with pytest.raises(ValueError, match=message):
            model_of({**whole, **change})
    del whole["schedule"]
    with pytest.raises(ValueError, match="lacks schedule"):
        model_of(whole)
