"""The synthetic discs of the latent benchmark: their numbers can be read back, and judged."""

import math

import torch

from benchmarks.discs import (
    HIGHEST,
    LOWEST,
    NAMES,
    Discs,
    distances,
    draw,
    read,
    render,
    unexplained,
)


def test_numbers_are_read_back_from_images():
    data = Discs(200, seed=3)
    x, _ = data.batch(torch.arange(200))
    assert x.shape == (200, 3, 64, 64)
    assert x.min() >= -1
    assert x.max() <= 1
    error = (read(x) - data.numbers).abs().max(0).values
    assert error[:3].max() < 1e-3  # of the side: a fifteenth of a pixel
    assert error[3:].max() < 0.02
    assert unexplained(x).max() < 0.01


def test_what_is_no_disc_is_told():
    first, second = (render(draw(50, seed)) for seed in (4, 5))
    numbers = draw(50, 4)
    apart = (numbers[:, :2] - draw(50, 5)[:, :2]).norm(dim=1) > 0.3
    two = torch.maximum(first, second)[apart]
    assert apart.sum() > 5
    assert unexplained(two).min() > 0.1
    assert unexplained(first).max() < 0.01


def test_distances_tell_the_law_from_another():
    # E W1 of n uniform values is sqrt(2/pi) (pi/8) sqrt(12)/sqrt(n) = 1.09/sqrt(n) deviations; its
    # law falls off as exp(-2 n d^2): 4/sqrt(n) is passed once in millions of seeds.
    n = 2000
    assert max(distances(draw(n, 6)).values()) < 4 / math.sqrt(n)
    low, high = torch.tensor(LOWEST), torch.tensor(HIGHEST)
    shifted = draw(n, 6) + 0.3 * (high - low)  # 0.3 sqrt(12) = 1.04 deviations
    for name in NAMES:
        assert abs(distances(shifted)[name] - 0.3 * math.sqrt(12)) < 4 / math.sqrt(n)


def test_discs_are_settled_by_their_seed():
    a, b, c = Discs(3, seed=1), Discs(3, seed=1), Discs(3, seed=2)
    chosen = torch.tensor([2, 0])
    assert torch.equal(a.batch(chosen).x, b.batch(chosen).x)
    assert not torch.equal(a.batch(chosen).x, c.batch(chosen).x)
    assert a.describe() == b.describe() != c.describe()
