"""The convolutional autoencoder: shapes, configurations, refusals, and that it learns."""

import math

import pytest
import torch

from sde_diffusion.networks import Autoencoder, build_autoencoder
from sde_diffusion.networks.autoencoder import pixels, squares
from sde_diffusion.training import AutoencoderObjective, Batch
from sde_diffusion.training.random import generator_at

FORMS = [
    {"multipliers": (1,)},
    {"multipliers": (1, 2), "latent": 3, "attention": True, "heads": 2},
    {"multipliers": (1, 2, 2), "blocks": 2, "patch": 2, "variational": False},
]


def images(count, channels, height, width):
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", FORMS)
def test_shapes_follow_the_strides(form):
    model = Autoencoder(2, width=8, **form)
    f = form.get("patch", 1) * 2 ** (len(form["multipliers"]) - 1)
    x = images(3, 2, 2 * f, 3 * f)
    posterior = model.encode(x)
    assert posterior.mean.shape == (3, form.get("latent", 4), 2, 3)
    assert (posterior.log_variance is None) == (not model.variational)
    assert model.decode(posterior.mean).shape == x.shape
    nothing = model.encode(x[:0]).mean
    assert nothing.shape == (0, *posterior.mean.shape[1:])
    assert model.decode(nothing).shape == (0, *x.shape[1:])


def test_squares_are_those_of_torch_and_back():
    x = images(3, 2, 8, 12)
    assert torch.equal(squares(x, 4), torch.nn.functional.pixel_unshuffle(x, 4))
    assert torch.equal(pixels(squares(x, 4), 4), x)


@pytest.mark.parametrize("form", FORMS)
def test_a_configuration_makes_the_same_autoencoder(form):
    before = torch.random.get_rng_state()
    model = Autoencoder(2, width=8, **form, seed=3)
    again = build_autoencoder(model.configuration)
    settled = {k: v for k, v in model.configuration.items() if k != "channels"}
    told = build_autoencoder(settled, event_shape=(2, 16, 16))
    assert torch.equal(before, torch.random.get_rng_state())
    for other in (again, told):
        assert other.configuration == model.configuration
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
    changed = build_autoencoder({**model.configuration, "seed": 4})
    assert not torch.equal(changed.encoder[0].weight, model.encoder[0].weight)


def test_a_sample_does_not_depend_on_its_batch():
    model = Autoencoder(2, width=8, seed=1, **FORMS[1]).double()
    x = images(5, 2, 4, 4).double()
    assert torch.allclose(model.encode(x).mean[2:3], model.encode(x[2:3]).mean, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_new_autoencoder_is_an_affine_map(form):
    model = Autoencoder(2, width=8, **form).double()
    x, y = images(2, 2, 16, 16).double(), images(2, 2, 16, 16).double().flip(0)
    through = lambda x: model.decode(model.encode(x).mean)
    assert torch.allclose(through(x + y) + through(0 * x), through(x) + through(y), atol=1e-12)
    assert through(x).std() > 1e-4


def test_answers_are_in_the_dtype_of_what_was_asked():
    model = Autoencoder(2, width=8, **FORMS[1])
    x = images(3, 2, 4, 4)
    exact = model.encode(x).mean
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model.encode(x)
        assert model.decode(posterior.mean).dtype == torch.float32
    assert {part.dtype for part in posterior} == {torch.float32}
    assert 0 < (posterior.mean - exact).abs().max() < 0.05 * exact.abs().max()
    assert model.encode(x.double()).mean.dtype == torch.float64
    assert model.decode(exact.double()).dtype == torch.float64


def test_it_learns_images_with_two_degrees_of_freedom():
    # Ramps: level and slope in [-1/2, 1/2], so that pixels have standard deviation 0.32.
    draw = lambda k: torch.rand(2, 16, 1, 1, 1, generator=generator_at(7, k)) - 0.5
    ramp = torch.linspace(-1, 1, 8).expand(1, 8, 8)
    sample = lambda k: draw(k)[0] + draw(k)[1] * ramp
    model = Autoencoder(1, latent=1, width=8, multipliers=(1,), patch=4)
    objective = AutoencoderObjective(model, kl=2 * 0.05**2)
    optimizer = torch.optim.Adam(objective.parameters(), lr=5e-3, fused=True)
    for step in range(150):
        optimizer.zero_grad()
        objective(Batch(sample(step)), generator_at(8, step)).loss.mean().backward()
        optimizer.step()
    with torch.no_grad():
        new = torch.cat([sample(-k) for k in range(1, 9)])
        distortion, rate, _ = objective.terms(new, generator_at(9))
    assert math.sqrt(distortion.mean()) < 0.1
    assert rate.mean() > 1.0  # the posterior says something of the image


@pytest.mark.parametrize(
    ("shape", "match"),
    [((1, 2, 12, 15), "multiples of 8"), ((1, 3, 16, 16), "2 channels"), ((2, 16, 16), "images")],
)
def test_images_that_do_not_fit(shape, match):
    with pytest.raises(ValueError, match=match):
        Autoencoder(2, width=8, **FORMS[2]).encode(torch.zeros(shape))


def test_latents_that_do_not_fit():
    with pytest.raises(ValueError, match="4, height, width"):
        Autoencoder(2, width=8).decode(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"width": 0}, "width"),
        ({"patch": 1.5}, "patch"),
        ({"multipliers": ()}, "multipliers"),
        ({"attention": True, "heads": 3}, "heads = 3"),
        ({"dropout": 1.0}, "dropout"),
        ({"latnet": 4}, "latent"),
        ({"kind": "cnov"}, "conv"),
    ],
)
def test_configurations_that_do_not_fit(arguments, match):
    with pytest.raises(ValueError, match=match):
        build_autoencoder({"kind": "conv", "channels": 1, "width": 8, **arguments})


def test_a_configuration_without_what_it_needs():
    with pytest.raises(ValueError, match="channels"):
        build_autoencoder({"kind": "conv"})
    with pytest.raises(ValueError, match="kind"):
        build_autoencoder({"channels": 1})
