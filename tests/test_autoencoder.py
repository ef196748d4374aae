"""Autoencoders against closed forms.

A linear autoencoder on data of covariance S, with eigenvalues l_1 >= l_2 >= .., has known optima:
the plain one projects on the leading eigenvectors and loses the sum of the other eigenvalues
(Baldi & Hornik, "Neural networks and principal component analysis", 1989); the variational one with
decoder N(x_hat, s^2 I) is probabilistic PCA, whose posterior it can hold exactly (Lucas et al.,
"Don't blame the ELBO!", 2019, arXiv:1911.02469).
"""

import math

import pytest
import torch
from torch import nn

from sde_diffusion.networks.encoding import Autoencoding, Posterior
from sde_diffusion.training import AutoencoderObjective, Batch
from sde_diffusion.training.random import generator_at

EIGENVALUES = torch.tensor([3.0, 1.0, 0.4, 0.2, 0.1, 0.05], dtype=torch.float64)
D, KEPT, N = len(EIGENVALUES), 2, 256


class Linear(Autoencoding):
    """m(x) = V x, one variance a coordinate for all x, x_hat(z) = W z."""

    def __init__(self, variational):
        super().__init__()
        self.variational, self.configuration = variational, {"kind": "linear"}
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        self.inward = nn.Parameter(draw(KEPT, D))
        self.outward = nn.Parameter(draw(D, KEPT))
        self.log_variance = nn.Parameter(draw(KEPT)) if variational else None

    def encode(self, x):
        mean = x @ self.inward.T
        return Posterior(mean, self.log_variance.expand_as(mean) if self.variational else None)

    def decode(self, z):
        return z @ self.outward.T


def data():
    """N samples with mean 0 and covariance exactly U diag(EIGENVALUES) U^T, and U."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(N, D, generator=generator, dtype=torch.float64)
    z, _ = torch.linalg.qr(z - z.mean(0))
    rotation, _ = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64))
    return math.sqrt(N) * z * EIGENVALUES.sqrt() @ rotation.T, rotation


def fit(objective, x, steps=1500):
    """Adam on all of the data, its rate falling to zero."""
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02, fused=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.02 * math.cos(math.pi / 2 * step / steps) ** 2
        optimizer.zero_grad()
        objective(Batch(x), generator_at(0, step)).loss.mean().backward()
        optimizer.step()


def expected_loss(model, x, kl):
    """The mean of the loss over the draws of z: the decoder is linear, so s adds s^2 |W_j|^2."""
    posterior = model.encode(x)
    error = (model.decode(posterior.mean) - x).square().sum(1)
    spread = (model.outward.square().sum(0) * posterior.log_variance.exp()).sum(1)
    return (error + spread + kl * posterior.divergence()).mean().item() / x.shape[1]


def test_plain_linear_autoencoder_becomes_principal_components():
    x, rotation = data()
    objective = AutoencoderObjective(Linear(variational=False), kl=0.0)
    fit(objective, x)
    loss = float(objective(Batch(x), generator_at(0)).loss.detach().mean())
    optimum = float(EIGENVALUES[KEPT:].sum()) / D
    assert optimum * (1 - 1e-9) <= loss < optimum * 1.001
    projection = objective.network.decode(objective.network.inward.T).detach()
    best = rotation[:, :KEPT] @ rotation[:, :KEPT].T
    assert (projection - best).abs().max() < 0.02


def test_variational_linear_autoencoder_becomes_probabilistic_pca():
    # With v = s^2, -2 log-likelihood is sum_kept (log l + 1) + sum_rest (log v + l/v), and the
    # loss is v/D of what exceeds D log v.
    x, _ = data()
    v = 0.15
    kept, rest = EIGENVALUES[:KEPT], EIGENVALUES[KEPT:]
    optimum = v / D * float((kept / v).log().sum() + KEPT + (rest / v).sum())
    objective = AutoencoderObjective(Linear(variational=True), kl=2 * v)
    assert expected_loss(objective.network, x, objective.kl) > 1.2 * optimum
    fit(objective, x)
    loss = expected_loss(objective.network, x, objective.kl)
    assert optimum * (1 - 1e-9) <= loss < optimum * 1.01


def test_loss_of_draws_has_the_expected_mean():
    # 400 draws for each of 256 samples; |z| > 5 falsely alarms once in two million seeds.
    x, _ = data()
    objective = AutoencoderObjective(Linear(variational=True), kl=0.3)
    losses = torch.stack(
        [objective(Batch(x), generator_at(2, k)).loss.detach().mean() for k in range(400)]
    )
    z = (losses.mean() - expected_loss(objective.network, x, 0.3)) / losses.std() * 20
    assert abs(float(z)) < 5


def test_divergence_is_that_of_torch_and_of_monte_carlo():
    generator = torch.Generator().manual_seed(3)
    mean, log_variance = torch.randn(2, 3, 4, 2, 2, generator=generator, dtype=torch.float64)
    posterior = Posterior(mean, log_variance)
    found = posterior.divergence()
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    exact = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    assert torch.allclose(found, exact, rtol=1e-12)
    # |z| > 5 in one of three samples falsely alarms once in 600,000 seeds.
    z = torch.stack([posterior.draw(generator) for _ in range(4000)])
    logs = (q.log_prob(z) - p.log_prob(z)).flatten(2).sum(2)
    deviation = (logs.mean(0) - found) / (logs.std(0) / math.sqrt(len(z)))
    assert deviation.abs().max() < 5


def test_divergence_near_the_normal_law_does_not_cancel():
    # s^2 = exp(2e-4): KL = (e^u - 1 - u)/2 = u^2/4 + .. = 1e-8, below float32's step at 1
    posterior = Posterior(torch.zeros(1, 1), torch.full((1, 1), 2e-4))
    assert float(posterior.divergence()) == pytest.approx(1e-8, rel=1e-3)


def test_points_are_drawn_as_they_are():
    mean = torch.randn(2, 3, generator=torch.Generator().manual_seed(4))
    assert Posterior(mean).draw(torch.Generator()) is mean
    with pytest.raises(ValueError, match="infinite"):
        Posterior(mean).divergence()


def test_loss_is_distortion_plus_rate_plus_the_users_term():
    x = data()[0][:8]
    model = Linear(variational=True)
    plain = AutoencoderObjective(model, kl=0.2)
    own = AutoencoderObjective(model, 0.2, perceptual=lambda y, x: (y - x).abs().amax(1))
    distortion, rate, further = own.terms(x, generator_at(5))
    y = model.decode(model.encode(x).draw(generator_at(5)))
    assert torch.allclose(distortion, (y - x).square().mean(1))
    assert torch.allclose(rate, model.encode(x).divergence())
    assert torch.allclose(further, (y - x).abs().amax(1))
    loss = own(Batch(x), generator_at(5)).loss
    assert torch.allclose(loss, distortion + 0.2 * rate / 6 + further)
    assert torch.allclose(loss - further, plain(Batch(x), generator_at(5)).loss)


@pytest.mark.parametrize("kl", [-1.0, math.nan, math.inf])
def test_bad_weight(kl):
    with pytest.raises(ValueError, match="kl"):
        AutoencoderObjective(Linear(variational=True), kl)


def test_weights_that_do_not_fit_the_autoencoder():
    with pytest.raises(ValueError, match="variational=False"):
        AutoencoderObjective(Linear(variational=True), kl=0.0)
    with pytest.raises(ValueError, match="variational=True"):
        AutoencoderObjective(Linear(variational=False), kl=0.1)
    bad = AutoencoderObjective(Linear(True), 0.1, perceptual=lambda y, x: (y - x).square())
    with pytest.raises(ValueError, match="one number a sample"):
        bad(Batch(data()[0]), generator_at(0))
