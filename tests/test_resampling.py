"""Resampling: unbiased exactly, for every scheme; never a particle of weight zero."""

import math
from fractions import Fraction

import pytest
import torch

from sde_diffusion.particles import SCHEMES, effective_sample_size

SHARES = [[1, 2, 3, 4, 0, 2], [7, 1, 1, 1, 1, 1], [0, 0, 12, 0, 0, 0], [5, 5, 1, 1, 0, 0]]

every_scheme = pytest.mark.parametrize("name", SCHEMES)


def counts_of(ancestors, k):
    return torch.nn.functional.one_hot(ancestors, k).sum(-2)


@every_scheme
@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("n", [6, 4, 9])
def test_the_mean_number_of_offspring_is_exact(name, shares, n):
    """E[N_k] = n W_k, the integral over u being a sum: all jumps lie between the grid's points."""
    total = sum(shares)
    left = sum(Fraction(n * s, total) % 1 for s in shares)
    grid = total * math.lcm(*range(1, n + 1)) * int(max(left, 1))
    u = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    # Every place's uniform runs over the whole grid; each in another order.
    uniforms = torch.stack([u.roll(7 * j) for j in range(n)], -1)
    weights = torch.tensor(shares, dtype=torch.float64).log() + 3.0
    counts = counts_of(SCHEMES[name](weights.expand(grid, -1), uniforms), len(shares))
    expected = torch.tensor([n * s / total for s in shares], dtype=torch.float64)
    torch.testing.assert_close(counts.double().mean(0), expected, rtol=0, atol=1e-12)


@every_scheme
def test_no_particle_of_weight_zero_is_drawn(name):
    log_weights = torch.tensor([[0.0, 1.0, 0.0, 2.0, 0.0]], dtype=torch.float64).log()
    for u in (0.0, 0.3, 1 - 2**-53, 1.0):
        uniforms = torch.full((1, 5), u, dtype=torch.float64)
        assert set(SCHEMES[name](log_weights, uniforms).flatten().tolist()) <= {1, 3}


@pytest.mark.parametrize("name", ["stratified", "systematic", "residual"])
def test_equal_weights_leave_every_particle(name):
    uniforms = 0.01 + 0.98 * torch.rand(
        50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    ancestors = SCHEMES[name](torch.zeros(50, 7, dtype=torch.float64), uniforms)
    torch.testing.assert_close(ancestors.sort(-1).values, torch.arange(7).expand(50, 7))


def test_numbers_of_offspring_stay_near_their_mean():
    """Systematic: within 1 of K W; residual: at least floor(K W); variances as the module says."""
    groups, k = 20_000, 8
    generator = torch.Generator().manual_seed(1)
    log_weights = torch.randn(k, dtype=torch.float64, generator=generator)
    uniforms = torch.rand(groups, k, dtype=torch.float64, generator=generator)
    expected = k * log_weights.softmax(-1)
    counts = {
        name: counts_of(scheme(log_weights.expand(groups, k), uniforms), k).double()
        for name, scheme in SCHEMES.items()
    }
    assert bool(((counts["systematic"] - expected).abs() < 1).all())
    assert bool((counts["residual"] >= expected.floor()).all())
    variance = {name: c.var(0) for name, c in counts.items()}
    binomial = expected * (1 - expected / k)
    # The standard error of a variance of 20,000 counts is below 2% of it: 5 of them.
    torch.testing.assert_close(variance["multinomial"], binomial, rtol=0.1, atol=0)
    for name in ("residual", "stratified", "systematic"):
        assert bool((variance[name] <= 1.05 * binomial).all()), name


def test_the_effective_sample_size_counts_particles():
    one = torch.tensor([0.0, -torch.inf, -torch.inf], dtype=torch.float64)
    assert float(effective_sample_size(one)) == pytest.approx(1)
    assert float(effective_sample_size(torch.full((5,), -800.0).double())) == pytest.approx(5)
    w = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    expected = w.sum(1) ** 2 / w.square().sum(1)
    torch.testing.assert_close(effective_sample_size(w.log() - 1000), expected)
