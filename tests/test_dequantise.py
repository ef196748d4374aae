"""Bits per dimension: bounds on the exact probability of integers."""

import math

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.likelihood import bits_per_dimension
from sde_diffusion.likelihood.dequantise import _truncated_normal, _uniform, on_levels
from sde_diffusion.problems import Gaussian

VP = sd.VPLinear()
NORMAL = torch.distributions.Normal(0.0, 1.0)


def exact_bits(images, std, width, t):
    """Of integers cut out of N(0, std^2) as a model sees it at t, each coordinate alone."""
    alpha_t, sigma_t = VP(t)
    spread = math.sqrt(std**2 + (sigma_t / alpha_t) ** 2)
    cdf = lambda x: NORMAL.cdf(x / spread)
    return -(cdf(images + width / 2) - cdf(images - width / 2)).log2().mean(1)


@pytest.mark.parametrize("dequantisation", ["uniform", "truncated_normal"])
def test_bounds_close_from_above_as_samples_are_added(dequantisation):
    """Gaussian data in 2 dimensions, 2,000 draws in all: K = 1 is above by what it gives away, and
    nowhere below by 4 standard errors; K = 2,000 is within 0.01 bits."""
    std, levels, t_end, draws = 0.5, 9, 0.05, 2000
    images = torch.tensor([[-1.0, 0.25], [0.0, 0.5], [0.25, -0.5]], dtype=torch.float64)
    exact = exact_bits(images, std, 0.25, t_end)
    denoiser = Gaussian([0.0, 0.0], std**2).denoiser(VP)
    options = {"reference": std**2, "steps": 24, "t_end": t_end, "tolerance_error": False}
    options |= {"levels": levels, "dequantisation": dequantisation, "prior": _prior(std), "seed": 0}
    each = bits_per_dimension(denoiser, images.repeat(draws, 1), **options).bits.reshape(draws, 3)
    one, error = each.mean(0), each.std(0) / math.sqrt(draws)
    assert (one > exact - 4 * error).all()
    assert one[0] > exact[0] + 0.01
    many = bits_per_dimension(denoiser, images, samples=draws, **options).bits
    assert torch.allclose(many, exact, atol=0.01)


def _prior(std):
    alpha_T, sigma_T = VP(1.0)
    spread = math.sqrt(alpha_T**2 * std**2 + sigma_T**2)
    return lambda x: torch.distributions.Normal(0.0, spread).log_prob(x).sum(1)


@pytest.mark.parametrize("draw", [_uniform, lambda z, w: _truncated_normal(z, w, 0.04)])
def test_laws_of_u_are_what_they_say(draw):
    """E[1/q(u)] is the volume of the cell; u lies in it (5 standard errors: 6e-7 by chance)."""
    z = torch.randn(20_000, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, log_q = draw(z, 0.1)
    assert u.abs().max() <= 0.05
    inverse = (-log_q).exp()
    error = 5 * float(inverse.std()) / math.sqrt(inverse.numel())
    assert float(inverse.mean()) == pytest.approx(0.1, abs=error + 1e-12)
    assert u.std() < 0.05


def test_integers_and_floats_of_the_same_image_are_the_same():
    whole = torch.tensor([[0, 3, 16], [8, 1, 2]])
    x, width = on_levels(whole, 17, (-1.0, 1.0))
    same, _ = on_levels(whole.float() / 8 - 1, 17, (-1.0, 1.0))
    assert width == 0.125
    assert torch.equal(x, same)
    assert torch.equal(x, whole / 8 - 1)


def test_seeds_settle_everything():
    denoiser = sd.problems.ring().denoiser(VP)
    images = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.5, 0.5]])
    options = {"levels": 9, "steps": 10, "samples": 2}
    first = bits_per_dimension(denoiser, images, seed=[3, 4, 5], **options)
    again = bits_per_dimension(denoiser, images[1:], seed=[4, 5], batch_size=2, **options)
    assert torch.allclose(first.bits[1:], again.bits, atol=1e-6)
    other = bits_per_dimension(denoiser, images, seed=[3, 4, 6], **options)
    assert first.bits[0] == pytest.approx(float(other.bits[0]), abs=1e-6)
    assert abs(float(first.bits[2] - other.bits[2])) > 1e-3
    assert first.nfe == first.vjp // 2 == again.nfe // 2  # in two dimensions, in two parts
    assert str(first).endswith("bits per dimension")


@pytest.mark.parametrize(("dtype", "levels"), [(torch.float16, 256), (torch.float32, 65_536)])
def test_levels_are_known_within_the_rounding_of_their_dtype(dtype, levels):
    whole = torch.arange(levels)[None]
    values = (2 * whole.double() / (levels - 1) - 1).to(dtype)
    assert torch.equal(on_levels(values, levels, (-1, 1))[0], on_levels(whole, levels, (-1, 1))[0])
