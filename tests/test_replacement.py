"""The denoiser that is told a part of the picture: what it answers, for whom, by any sampler."""

import pytest
import torch
from enumeration import smooth_grid

import sde_diffusion as sd
from sde_diffusion.editing import replacement

DOUBLE = torch.float64
VP = sd.VPLinear()
Y = torch.zeros(2, 1, 4, 4)
NONE = sd.FunctionDenoiser(lambda x, t: x, VP)


def normal(*shape, seed=3):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "unipc", "krogstad"])
def test_the_denoiser_that_knows_ends_at_the_picture(solver):
    """By solvers exact on a point, on a law that is none, without anyone setting the state."""
    problem = sd.problems.Gaussian([0.6, -0.4, 0.1], 0.5)
    y, z = problem.sample(4, torch.Generator().manual_seed(3)), normal(4, 3, seed=5)
    mask = torch.tensor([True, False, True])
    told = replacement(problem.denoiser(VP), y, mask, z)
    plan = sd.SOLVERS[solver](VP, [*smooth_grid(VP, 6), 0.0])
    alpha_t, sigma_t = (float(c) for c in VP(plan.times[0]))
    out = sd.run(plan, told, alpha_t * y + sigma_t * z, noise=1)
    torch.testing.assert_close(out[:, mask], y[:, mask], rtol=0.0, atol=1e-12)
    assert float((out - y)[:, ~mask].abs().min()) > 1e-3


def test_adaptive_samplers_by_the_denoiser_that_knows():
    """One accuracy after another: what per-sample steps give is what the fine plan gives."""
    problem = sd.problems.Gaussian([0.0, 0.0], [[1.0, 0.9], [0.9, 1.0]])
    y, z = problem.sample(5, torch.Generator().manual_seed(3)), normal(5, 2, seed=5)
    told = replacement(problem.denoiser(VP), y, torch.tensor([1, 0]), z)
    start = VP.sigma(1.0) * z
    give = {"start": start, "dtype": DOUBLE}
    ends = [1.0, 0.01]
    found = sd.sample(
        told, (5, 2), solver="per_sample_ode", times=ends, rtol=1e-7, atol=1e-8, **give
    )
    grid = sd.times.uniform_lambda(VP, 100, *ends)
    fine = sd.sample(told, (5, 2), solver="krogstad", times=grid, **give)
    torch.testing.assert_close(found[:, 1], fine[:, 1], rtol=1e-5, atol=1e-6)


def test_what_it_is_bound_to():
    """One picture for all, or one noise, is for any number; else it answers one batch alone."""
    labels = lambda n: sd.NetworkDenoiser(lambda x, t, c: x, VP).given(torch.zeros(n))
    mask, count = torch.ones(1, 4, 4), lambda *parts: replacement(*parts).samples
    assert count(NONE, Y[:1], mask, Y[:1]) is None
    assert not replacement(NONE, Y[:1], mask, Y[:1]).conditioned
    assert count(NONE, Y[:1], mask, Y) == count(NONE, Y, mask, Y[:1]) == 2
    assert count(labels(3), Y[:1], mask, Y[:1]) == 3
    generator = torch.Generator().manual_seed(0)
    x, y, z = torch.randn(3, 3, 1, 4, 4, generator=generator)
    masks, who = torch.rand(3, 1, 4, 4, generator=generator) > 0.5, torch.tensor([2, 0])
    network = lambda x, t, c: x.sin() + c[:, None, None, None]
    told = sd.NetworkDenoiser(network, VP, "data").given(torch.arange(3.0))
    for parts in ((y, masks, z), (y[:1], masks[:1], z), (y, masks, z[:1])):
        both = replacement(told, *parts)
        assert torch.equal(both.select(who)(x[who], 0.5), both(x, 0.5)[who])
    with pytest.raises(ValueError, match="2 and 3 samples"):
        replacement(labels(3), Y, mask, Y)
    with pytest.raises(ValueError, match="bound to 2 samples and x has 3: pictures, "):
        sd.sample(replacement(NONE, Y, mask, Y), (3, 1, 4, 4), steps=2)
