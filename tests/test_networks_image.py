"""A condition that is an image: where it lies, its gradient, and what a denoiser does with it."""

import pytest
import torch
from networks_listed import CONTEXTS, asked, every_kind, perturbed, small

from sde_diffusion import NetworkDenoiser, VPCosine
from sde_diffusion.networks import Condition
from sde_diffusion.training import DiffusionObjective, Trainer, load_model

IMAGE = CONTEXTS["image"]


def large(image, height=4, width=6):
    """Its pixels repeated."""
    rows, columns = height // image.shape[2], width // image.shape[3]
    return image.repeat_interleave(rows, 2).repeat_interleave(columns, 3)


def test_the_image_lies_beside_the_state_its_pixels_repeated():
    condition, x = Condition(4, channels=3), torch.randn(4, 2, 4, 6)
    drop = torch.tensor([False, True, False, True])
    with torch.no_grad():
        condition.null.copy_(torch.arange(4.0))
    given = condition(IMAGE, None, x)
    assert given.vector is None
    assert torch.equal(given.beside(x), torch.cat([x, large(IMAGE)], dim=1))
    some = condition(IMAGE, drop, x)
    assert torch.equal(some.beside(x)[~drop], given.beside(x)[~drop])
    assert torch.equal(some.beside(x)[drop, 2:], torch.zeros(2, 3, 4, 6))
    assert torch.equal(some.vector, drop[:, None] * torch.arange(4.0))


@every_kind
def test_an_image_of_any_size_that_divides_is_the_same_condition(kind):
    network, (x, t) = perturbed(small(kind, "image")), asked(kind)
    whole = network(x, t, large(IMAGE))
    assert torch.equal(network(x, t, IMAGE), whole)
    assert torch.equal(network(x, t, large(IMAGE, 2, 6)), whole)


@every_kind
def test_no_image_is_not_an_image_of_zeros(kind):
    network, (x, t) = perturbed(small(kind, "image")), asked(kind)
    assert not torch.allclose(network(x, t), network(x, t, torch.zeros_like(IMAGE)))


@every_kind
def test_the_gradient_reaches_the_image_of_samples_that_have_one(kind):
    network, (x, t) = perturbed(small(kind, "image")).double(), asked(kind, torch.float64)
    image, step = IMAGE.double().requires_grad_(), 1e-6
    drop = torch.tensor([False, True, False, False])
    towards = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).double()
    answer = lambda c: (network(x, t, c, drop) * towards).flatten(1).sum(1)
    (slope,) = torch.autograd.grad(answer(image).sum(), image)
    assert torch.equal(slope[1], torch.zeros_like(slope[1]))
    away = torch.randn(image.shape, generator=torch.Generator().manual_seed(4)).double()
    with torch.no_grad():
        measured = (answer(image + step * away) - answer(image - step * away)) / (2 * step)
    torch.testing.assert_close((slope * away).flatten(1).sum(1), measured)


@every_kind
def test_a_denoiser_selects_the_images_with_their_samples(kind):
    denoiser = NetworkDenoiser(perturbed(small(kind, "image"), scale=0.1), VPCosine())
    x, _ = asked(kind)
    drop, who = torch.tensor([False, True, False, True]), torch.tensor([3, 0, 0])
    given = denoiser.given(IMAGE, drop)
    torch.testing.assert_close(given.select(who)(x[who], 0.5), given(x, 0.5)[who])
    assert not torch.allclose(given(x, 0.5)[0], denoiser(x, 0.5)[0])


def linear_gaussian(count, noise, generator):
    """x_0 ~ N(0, K) of 4 x 4 pixels, y = the means of 2 x 2 squares + noise: (x_0, y, K, A)."""
    places = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
    covariance = (-torch.cdist(places, places).square() / 8).exp()
    square = lambda x: torch.nn.functional.avg_pool2d(x, 2)
    matrix = square(torch.eye(16).double().reshape(16, 1, 4, 4)).reshape(16, 4).T
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(16))
    x = torch.randn(count, 16, generator=generator, dtype=torch.float64) @ root.T
    y = x @ matrix.T + noise * torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return x, y, covariance, matrix


def test_a_trained_denoiser_is_the_exact_conditional_mean_and_comes_back_from_its_file(tmp_path):
    r"""E[x_0 | x_t, y] of a Gaussian law: K B^T (B K B^T + R)^-1 (x_t, y), B = (alpha I; A).

    The mean square distance to it, over that of the unconditional mean, is the share of what y
    tells that was not learned.
    """
    schedule, noise = VPCosine(), 0.1
    x, y, covariance, matrix = linear_gaussian(4000, noise, torch.Generator().manual_seed(0))
    network = small("mlp", event_shape=[1, 4, 4], width=64, condition_channels=1)
    denoiser = NetworkDenoiser(network, schedule, "velocity")
    data = (x.float().reshape(-1, 1, 4, 4), y.float().reshape(-1, 1, 2, 2))
    Trainer(
        DiffusionObjective(denoiser, drop=0.2),
        data,
        steps=500,
        batch_size=128,
        learning_rate=3e-3,
        ema=[0.1],
        folder=tmp_path,
        progress=False,
        device="cpu",
    ).train()
    learned = load_model(tmp_path).denoiser
    held_x, held_y, _, _ = linear_gaussian(500, noise, torch.Generator().manual_seed(1))
    for t in (0.6, 0.9):
        alpha_t, sigma_t = map(float, schedule(t))
        eps = torch.randn(held_x.shape, generator=torch.Generator().manual_seed(2)).double()
        x_t = alpha_t * held_x + sigma_t * eps

        def mean(rows, variances, seen):
            gain = (
                covariance
                @ rows.T
                @ torch.linalg.inv(rows @ covariance @ rows.T + torch.diag(variances))
            )
            return seen @ gain.T

        state = torch.full((16,), sigma_t**2).double()
        both = torch.cat([state, torch.full((4,), noise**2).double()])
        here = alpha_t * torch.eye(16).double()
        exact = mean(torch.cat([here, matrix]), both, torch.cat([x_t, held_y], dim=1))
        without = mean(here, state, x_t)
        ask = x_t.float().reshape(-1, 1, 4, 4)
        given = learned.given(held_y.float().reshape(-1, 1, 2, 2))(ask, t).reshape(-1, 16)
        told = (exact - without).square().mean()
        missed = {"y": (given - exact).square().mean() / told}
        missed["none"] = (learned(ask, t).reshape(-1, 16) - without).square().mean() / told
        assert missed["y"] < 0.05
        assert missed["none"] < 0.15


@pytest.mark.parametrize("size", [(3, 4), (4, 5)])
def test_a_size_that_does_not_divide_is_refused_when_sampling(size):
    denoiser = NetworkDenoiser(small("unet", "image"), VPCosine()).given(torch.zeros(4, 3, *size))
    with pytest.raises(ValueError, match="resize them"):
        denoiser(asked("unet")[0], 0.5)
