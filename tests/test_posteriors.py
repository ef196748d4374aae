"""Exact posteriors: against conditioning of the joint law, Bayes on a grid, and quadrature."""

import math

import pytest
import torch

from sde_diffusion.digit_mixture import digit_mixture
from sde_diffusion.problems import GaussianMixture, ring, spectrum_mixture, two_gaussians

F64 = torch.float64


def _moments(law):
    return law.mean.flatten(), law.data_covariance()


def _normal(dim, measured, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=F64)
    b = draw(dim, dim)
    return draw(dim), b @ b.T, draw(measured, dim), draw(measured)


@pytest.mark.parametrize("noise", [0.7, 0.02, 0.0])
@pytest.mark.parametrize("measured", [1, 3, 5, 8])
def test_one_component_is_conditioned_as_the_joint_normal_law(measured, noise):
    mu, c, a, y = _normal(5, measured)
    law = GaussianMixture([1.0], mu[None], c[None])
    if noise == 0 and measured > 5:
        with pytest.raises(ValueError, match=r"noise = 0, but A C A\^T is singular"):
            law.posterior(a, y, noise)
        return
    s = a @ c @ a.T + noise**2 * torch.eye(measured, dtype=F64)
    gain = torch.linalg.solve(s, a @ c).T
    posterior = law.posterior(a, y, noise)
    mean, covariance = _moments(posterior)
    scale = float(c.abs().max())
    torch.testing.assert_close(mean, mu + gain @ (y - a @ mu), rtol=1e-7, atol=1e-7 * scale)
    torch.testing.assert_close(covariance, c - gain @ a @ c, rtol=0, atol=1e-7 * scale)
    evidence = torch.distributions.MultivariateNormal(a @ mu, s).log_prob(y)
    assert law.evidence(a, y, noise) == pytest.approx(float(evidence), abs=1e-6)
    assert posterior.smooth == (noise > 0)


def test_posterior_on_the_line_is_bayes_on_a_grid():
    law, noise = two_gaussians(), 0.4
    y = torch.tensor([0.15], dtype=F64)
    grid = torch.linspace(-4, 4, 200_001, dtype=F64)
    prior = law.log_prob(grid[:, None], 1.0, 0.0)
    likelihood = torch.distributions.Normal(1.3 * grid, noise).log_prob(y)
    joint = (prior + likelihood).exp()
    total = torch.trapezoid(joint, grid)
    posterior = law.posterior([[1.3]], y, noise)
    found = posterior.log_prob(grid[::100, None], 1.0, 0.0).exp()
    torch.testing.assert_close(found, joint[::100] / total, rtol=1e-8, atol=1e-9)
    assert law.evidence([[1.3]], y, noise) == pytest.approx(math.log(total), abs=1e-9)


def test_posterior_in_the_plane_is_bayes_on_a_grid():
    law, noise = ring(5, std=0.3), 0.3
    a, y = torch.tensor([[1.0, 0.5], [0.2, -1.0], [1.0, 1.0]], dtype=F64), [0.6, -0.4, 1.0]
    y = torch.tensor(y, dtype=F64)
    line = torch.linspace(-4, 4, 801, dtype=F64)
    grid = torch.cartesian_prod(line, line)
    likelihood = torch.distributions.Normal(grid @ a.T, noise).log_prob(y).sum(1)
    joint = (law.log_prob(grid, 1.0, 0.0) + likelihood).exp()
    total = joint.sum() * (line[1] - line[0]) ** 2  # spectrally exact for a smooth law
    posterior = law.posterior(a, y, noise)
    found = posterior.log_prob(grid, 1.0, 0.0).exp()
    torch.testing.assert_close(found, joint / total, rtol=1e-8, atol=1e-9)
    assert law.evidence(a, y, noise) == pytest.approx(math.log(total), abs=1e-9)


def test_evidence_is_a_density_of_y():
    law, line = ring(3), torch.linspace(-5, 5, 2001, dtype=F64)
    density = [math.exp(law.evidence([[0.6, -0.8]], [float(y)], 0.2)) for y in line]
    assert torch.trapezoid(torch.tensor(density, dtype=F64), line) == pytest.approx(1, abs=1e-10)


def test_posteriors_of_posteriors_are_the_posterior_of_both():
    law = spectrum_mixture(4, 6)
    _, _, a, y = _normal(6, 5, seed=1)
    one_by_one = law.posterior(a[:2], y[:2], 0.3).posterior(a[2:], y[2:], 0.3)
    at_once = law.posterior(a, y, 0.3)
    torch.testing.assert_close(one_by_one.weights, at_once.weights)
    for found, expected in zip(_moments(one_by_one), _moments(at_once), strict=True):
        torch.testing.assert_close(found, expected)
    chained = law.evidence(a[:2], y[:2], 0.3) + law.posterior(a[:2], y[:2], 0.3).evidence(
        a[2:], y[2:], 0.3
    )
    assert chained == pytest.approx(law.evidence(a, y, 0.3))


def test_components_of_no_weight_left_keep_their_numbers():
    law = GaussianMixture([0.5, 0.5], [[-100.0], [100.0]], [0.01, 0.01])
    posterior = law.posterior([[1.0]], [100.0], 0.1)
    assert len(posterior.weights) == 2
    assert float(posterior.mean) == pytest.approx(100)
    assert float(posterior.given([0]).mean) == pytest.approx(0, abs=1e-9)  # midway: equal accuracy


def test_a_measurement_without_noise_holds_exactly():
    law = spectrum_mixture(3, 6)
    _, _, a, y = _normal(6, 2, seed=3)
    x = law.posterior(a, y, 0.0).sample(50, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x @ a.T, y.expand(50, 2), rtol=1e-6, atol=1e-6)


def test_given_is_the_law_of_some_components():
    law = GaussianMixture([0.2, 0.3, 0.5], [[0.0], [1.0], [2.0]], [0.1, 0.2, 0.3])
    x = torch.linspace(-2, 4, 50, dtype=F64)[:, None]
    expected = GaussianMixture([0.5 / 0.7, 0.2 / 0.7], [[2.0], [0.0]], [0.3, 0.1])
    torch.testing.assert_close(
        law.given([2, 0]).log_prob(x, 1.0, 0.5), expected.log_prob(x, 1.0, 0.5)
    )
    parts = [law.given([k]).log_prob(x, 1.0, 0.0).exp() for k in range(3)]
    whole = sum(w * p for w, p in zip(law.weights, parts, strict=True))
    torch.testing.assert_close(law.log_prob(x, 1.0, 0.0).exp(), whole)


def test_another_shape_is_the_same_law():
    flat = spectrum_mixture(3, 12)
    law = flat.shaped(3, 2, 2)
    draw = lambda of: of.sample(5, torch.Generator().manual_seed(0))
    x = draw(law)
    assert x.shape == (5, 3, 2, 2)
    assert law.mean.shape == (3, 2, 2)
    assert torch.equal(x.flatten(1), draw(flat))
    for method in ("denoised", "score"):
        found, expected = (
            getattr(p, method)(v, 0.8, 0.6) for p, v in ((law, x), (flat, x.flatten(1)))
        )
        assert torch.equal(found.flatten(1), expected)
    assert torch.equal(law.data_covariance(), flat.data_covariance())
    a, y = torch.eye(12, dtype=F64)[:3], torch.zeros(3)
    assert law.posterior(a, y, 0.1).event_shape == law.given([1]).event_shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("matrix", "y", "noise", "says"),
    [
        (torch.eye(3), [0.0] * 3, 0.1, r"matrix has shape \(3, 3\), but the data have D = 2"),
        ([[1.0, 0.0]], [0.0, 0.0], 0.1, "y has 2 numbers, but the matrix measures 1"),
        ([[1.0, 0.0]], [0.0], -0.1, "noise = -0.1 must be a standard deviation"),
        ([[1.0, 0.0]], [math.nan], 0.1, "y has entries that are not finite"),
        ([[1.0, 0.0], [2.0, 0.0]], [0.0, 0.0], 0.0, "singular"),
    ],
)
def test_measurements_that_cannot_be(matrix, y, noise, says):
    for method in (ring().posterior, ring().evidence):
        with pytest.raises(ValueError, match=says):
            method(matrix, y, noise)


@pytest.mark.parametrize("components", [[], [8], [-1], [1, 1], [0.5], [True, False]])
def test_components_that_are_not(components):
    with pytest.raises(ValueError, match="numbers, 0 to 7"):
        ring(8).given(components)
    with pytest.raises(ValueError, match="holds 3 numbers"):
        ring(8).shaped(1, 3)
    with pytest.raises(ValueError, match=r"shape \(-1, -2\)"):
        ring(8).shaped(-1, -2)


def test_digits_have_the_moments_of_their_images():
    from sde_diffusion.training import digits

    mixture = digit_mixture(components=2, floor=0.1, shrinkage=0.0)
    data = digits("train")
    images, classes = data.batch(torch.arange(len(data)))
    for digit in (0, 7):
        mine = images[classes == digit].flatten(1).double()
        law = mixture.given(digit)
        torch.testing.assert_close(law.mean, mine.mean(0))
        covariance = torch.cov(mine.T, correction=0) + 0.01 * torch.eye(64, dtype=F64)
        torch.testing.assert_close(law.data_covariance(), covariance)
    assert mixture.law.smooth
    assert len(mixture.digits) == 20


def test_shrinkage_counts_as_so_many_images_of_the_pooled_covariance():
    """C_j (n_j + nu) = n_j S_j + nu W, W = sum_j n_j S_j / sum_j n_j."""
    plain, shrunk = (digit_mixture(2, shrinkage=nu, floor=0.1) for nu in (0.0, 40.0))
    floor = 0.01 * torch.eye(64, dtype=F64)
    counts = 1198 * plain.law.weights
    own = [plain.law.given([k]).data_covariance() - floor for k in range(20)]
    for k in (0, 1, 13):
        parts = (k - k % 2, k - k % 2 + 1)
        pooled = sum(counts[j] * own[j] for j in parts) / sum(counts[j] for j in parts)
        expected = (counts[k] * own[k] + 40 * pooled) / (counts[k] + 40) + floor
        torch.testing.assert_close(shrunk.law.given([k]).data_covariance(), expected)


def test_new_digits_are_recognised_by_the_mixture():
    from sde_diffusion.training import digits

    data = digits("held_out")
    images, classes = data.batch(torch.arange(len(data)))
    mixture = digit_mixture()
    x = images.flatten(1).double()
    scores = torch.stack([mixture.given(d).log_prob(x, 1.0, 0.0) for d in range(10)])
    assert (scores.argmax(0) == classes).float().mean() > 0.97


def test_digits_that_are_not():
    mixture = digit_mixture(components=1)
    for digits in ((), (11,), (3, 11), (-1,), (True,), (3.0,)):
        with pytest.raises(ValueError, match="one or more of 0 to 9"):
            mixture.given(*digits)
    for options in ({"components": 1.5}, {"seed": -1}, {"seed": "a"}, {"shrinkage": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} = "):
            digit_mixture(**options)
