"""Latent spaces: unit variance over the data, and their affine map undone by the decoder."""

import math

import pytest
import torch
from latents import Rotation, autoencoder, images

import sde_diffusion as sd
from sde_diffusion.latent import LatentDiffusion, LatentSpace
from sde_diffusion.training import TensorData
from sde_diffusion.training.random import generator_at


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("variational", [True, False])
def test_latents_have_mean_zero_and_variance_one_over_the_data(variational, per_channel):
    space = LatentSpace.measure(autoencoder(variational), images(), per_channel, batch_size=32)
    assert space.event_shape == (3, 2, 3)
    latents = space.encode_all(images(), batch_size=17)
    mean, log_variance = latents.posterior
    noise = log_variance.exp() if variational else torch.zeros_like(mean)
    axes = (0, 2, 3) if per_channel else (0, 1, 2, 3)
    centre = mean.double().mean(axes)
    variance = (mean.double().square() + noise).mean(axes)
    assert centre.abs().max() < 1e-6
    assert (variance - 1).abs().max() < 1e-5
    assert space.shift.shape == ((3,) if per_channel else (1,))


def test_one_number_for_all_channels_keeps_their_proportions():
    model = autoencoder()
    one, each = (LatentSpace.measure(model, images(), each) for each in (False, True))
    spread = one.posterior(images()).mean.std((0, 2, 3))
    assert spread.max() / spread.min() > 1.05
    assert torch.allclose(
        spread * one.scale, each.posterior(images()).mean.std((0, 2, 3)) * each.scale, rtol=1e-4
    )


def test_moments_do_not_depend_on_the_batches():
    model = autoencoder().double()
    spaces = [LatentSpace.measure(model, images().double(), batch_size=n) for n in (1, 32, 70)]
    for space in spaces[1:]:
        assert torch.allclose(space.shift, spaces[0].shift, rtol=1e-12)
        assert torch.allclose(space.scale, spaces[0].scale, rtol=1e-12)


def test_decoding_undoes_the_affine_map():
    model = autoencoder()
    space = LatentSpace.measure(model, images())
    expected = model.decode(model.encode(images()).mean)
    found = space.decode(space.encode(images()), batch_size=9)
    assert torch.allclose(found, expected, atol=1e-5)
    a, b = (space.encode(images(), generator_at(3)) for _ in range(2))
    raw = model.encode(images()).draw(generator_at(3))
    assert torch.equal(a, b)
    assert torch.allclose(space.decode(a), model.decode(raw), atol=1e-5)


def test_the_autoencoder_of_a_space_stays_as_it_was_measured():
    model = autoencoder()
    space = LatentSpace.measure(model, images())
    text, z = space.describe(), space.encode(images())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1)
    assert space.describe() == text
    assert torch.equal(space.encode(images()), z)
    assert all(weight.requires_grad for weight in model.parameters())
    assert LatentSpace.measure(model, images()).describe() != text


def test_a_trainer_is_given_new_draws_of_the_posterior():
    space = LatentSpace.measure(autoencoder(), images())
    labels = torch.arange(70) % 4
    latents = space.encode_all(TensorData(images(), labels))
    chosen = torch.tensor([5, 3, 3])
    z, context = latents.batch(chosen, generator_at(1))
    again, _ = latents.batch(chosen, generator_at(1))
    assert torch.equal(z, again)
    assert not torch.equal(z[1], z[2])
    assert context.tolist() == [1, 3, 3]
    assert (len(latents), latents.event_shape, latents.classes) == (70, (3, 2, 3), 4)
    mean, _ = latents.batch(chosen)
    assert torch.equal(mean, latents.posterior.mean[chosen])
    # 4,000 draws of one sample; |z| > 5 in one of 18 numbers falsely alarms once in 90,000 seeds.
    draws, _ = latents.batch(torch.full((4000,), 5), generator_at(2))
    deviation = (latents.posterior.log_variance[5] / 2).exp()
    error = (draws.mean(0) - latents.posterior.mean[5]) / deviation * math.sqrt(4000)
    assert error.abs().max() < 5
    assert (draws.std(0) / deviation - 1).abs().max() < 0.06  # 5 standard errors of 1/sqrt(8000)


def test_latents_of_points_are_the_points():
    latents = LatentSpace.measure(autoencoder(False), images()).encode_all(images())
    chosen = torch.arange(3)
    assert torch.equal(latents.batch(chosen, generator_at(0)).x, latents.batch(chosen).x)


def test_samples_of_a_gaussian_come_back_with_its_mean_and_covariance():
    # Latents along the principal axes are independent, so N(0, I) is their law after scaling, and
    # every affine map of it must come back as the Gaussian that it was measured on.
    rotation, _ = torch.linalg.qr(torch.randn(2, 2, generator=generator_at(4)).double())
    z = torch.randn(500, 2, generator=generator_at(5)).double()
    z, _ = torch.linalg.qr(z - z.mean(0))
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    x = mean + math.sqrt(500) * z * torch.tensor([3.0, 0.2]) @ rotation.T
    space = LatentSpace.measure(Rotation(rotation), x)
    schedule = sd.VPLinear()
    ideal = sd.FunctionDenoiser(lambda z, t: schedule.alpha(t) * z, schedule)
    model = LatentDiffusion(ideal, space)
    samples = model.sample(20000, solver="ddim", steps=100, seed=0, dtype=torch.float64)
    covariance = torch.cov(x.T, correction=0)
    # Four moments at 5 standard errors (1/sqrt(20000) of mean, sqrt(2/20000) of variance).
    root = torch.linalg.inv(torch.linalg.cholesky(covariance))
    white = (samples - mean) @ root.T
    assert white.mean(0).abs().max() < 5 / math.sqrt(20000)
    assert (torch.cov(white.T) - torch.eye(2)).abs().max() < 5 * math.sqrt(2 / 20000)


def test_a_channel_that_never_varies():
    model = autoencoder()
    with torch.no_grad():
        model.encoder[-1].weight[1] = 0
        model.encoder[-1].bias[1] = 0.3
        model.encoder[-1].weight[4] = 0  # the log-variance of the same channel
        model.encoder[-1].bias[4] = -40
    with pytest.raises(ValueError, match="channel 1 of the latents"):
        LatentSpace.measure(model, images())
    assert LatentSpace.measure(model, images(), per_channel=False).scale > 0


def test_latents_of_another_shape():
    space = LatentSpace.measure(autoencoder(), images())
    with pytest.raises(ValueError, match=r"\(batch, 3, 2, 3\)"):
        space.decode(torch.zeros(1, 3, 3, 2))


@pytest.mark.parametrize(
    ("shift", "scale"),
    [([0.0], [0.0]), ([0.0], [-1.0]), ([math.nan], [1.0]), ([0.0], [math.inf]), ([0.0] * 2, [1.0])],
)
def test_shifts_and_scales_that_cannot_be(shift, scale):
    with pytest.raises(ValueError, match="shift"):
        LatentSpace(autoencoder(), (3, 2, 3), torch.tensor(shift), torch.tensor(scale))


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_batches_of_no_size(size):
    space = LatentSpace.measure(autoencoder(), images())
    z = space.encode(images(3))
    asks = (
        lambda: LatentSpace.measure(autoencoder(), images(), batch_size=size),
        lambda: space.encode_all(images(), batch_size=size),
        lambda: space.decode(z, batch_size=size),
    )
    for ask in asks:
        with pytest.raises(ValueError, match=r"batch_size = .* must be an integer of at least 1"):
            ask()


def test_what_is_not_finite_is_neither_encoded_nor_decoded():
    space = LatentSpace.measure(autoencoder(), images())
    x = images(3)
    z = space.encode(x)
    x[1, 0, 0, 0], z[2, 0, 0, 0] = math.nan, math.inf
    for ask in (space.encode, space.posterior):
        with pytest.raises(ValueError, match="1 of 3 samples are not finite, number 1 first"):
            ask(x)
    with pytest.raises(ValueError, match="1 of 3 latents are not finite, number 2 first"):
        space.decode(z)
    with torch.no_grad():
        next(space.autoencoder.parameters()).fill_(math.nan)
    with pytest.raises(ValueError, match="latents of the autoencoder are not finite"):
        space.encode(images(3))


def test_a_model_needs_a_space():
    denoiser = sd.problems.Gaussian([0.0], 1.0).denoiser(sd.VPLinear())
    with pytest.raises(TypeError, match=r"LatentSpace\.measure"):
        LatentDiffusion(denoiser, autoencoder())
