"""Thresholding: nothing inside the range, once is enough, and the two formulas."""

import math

import pytest
import torch
from enumeration import representatives, smooth_grid
from guided_problem import BOTH, states
from models import DOUBLE, VP

import sde_diffusion as sd
from sde_diffusion.guidance import dynamic_thresholding, static_thresholding
from sde_diffusion.guidance.thresholding import _upper_quantile

KINDS = {
    "static": static_thresholding,
    "dynamic": dynamic_thresholding,
    "narrow": lambda d: dynamic_thresholding(d, 0.6, 1.0, 1.5),
}


def answers(d):
    """A denoiser that answers d whatever it is asked."""
    return sd.FunctionDenoiser(lambda x, t: d, VP)


def wide(batch=7, event=(3, 4, 5), scale=2.0):
    generator = torch.Generator().manual_seed(0)
    sizes = scale * torch.rand(batch, *[1] * len(event), generator=generator, dtype=DOUBLE)
    return sizes * torch.randn(batch, *event, generator=generator, dtype=DOUBLE)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_inside_the_range_it_is_the_identity(kind):
    d = wide().clamp(-1, 1)
    assert torch.equal(kind(answers(d))(d, 0.5), d)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_outside_it_lands_in_the_range_and_once_is_enough(kind):
    d = wide()
    once = kind(answers(d))(d, 0.5)
    assert once.abs().max() <= 1 + 1e-12 < d.abs().max()
    torch.testing.assert_close(kind(answers(once))(d, 0.5), once)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("shape", [(5,), (0, 3), (5, 1)])
def test_states_of_one_number_or_none(kind, shape):
    d = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    torch.testing.assert_close(kind(answers(d))(d, 0.5), d.clamp(-1, 1))


def test_static_clips():
    d = wide()
    found = static_thresholding(answers(d), -0.5, 2.0)(d, 0.5)
    assert torch.equal(found, d.clamp(-0.5, 2.0))


@pytest.mark.parametrize("q", [0.0, 0.3, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("n", [1, 2, 5, 60])
def test_the_quantile_is_torchs(q, n):
    values = wide(4, (n,)).abs()
    torch.testing.assert_close(_upper_quantile(values, q), values.quantile(q, dim=1))


def test_dynamic_is_the_formula_sample_by_sample():
    d = wide()
    for quantile, limit, most in ((0.9, 1.0, math.inf), (0.5, 0.7, 1.1)):
        found = dynamic_thresholding(answers(d), quantile, limit, most)(d, 0.5)
        for one, expected in zip(found, d, strict=True):
            s = min(max(float(expected.abs().flatten().quantile(quantile)), limit), most)
            torch.testing.assert_close(one, expected.clamp(-s, s) / s * limit)


def test_with_most_at_the_limit_dynamic_is_static():
    d = wide()
    found = dynamic_thresholding(answers(d), max_threshold=1.0)(d, 0.5)
    assert torch.equal(found, static_thresholding(answers(d))(d, 0.5))


@pytest.mark.parametrize(("name", "options"), representatives())
def test_solvers_run_and_a_wide_range_changes_nothing(name, options):
    plan, exact = sd.SOLVERS[name](VP, smooth_grid(VP, 6), **options), BOTH.denoiser(VP)
    run = lambda denoiser: sd.run(plan, denoiser, states(5), noise=1)
    assert torch.equal(run(static_thresholding(exact, -1e4, 1e4)), run(exact))
    assert torch.equal(run(dynamic_thresholding(exact, limit=1e4)), run(exact))
    narrow = dynamic_thresholding(exact, 0.9, 0.3)
    plain = sd.FunctionDenoiser(lambda x, t: narrow(x, t), VP)
    torch.testing.assert_close(run(narrow), run(plain))
    assert (run(narrow) - run(exact)).abs().max() > 1e-2


def test_ranges_that_cannot_be():
    exact = BOTH.denoiser(VP)
    for low, high in ((1.0, -1.0), (0.0, 0.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="low must be below high"):
            static_thresholding(exact, low, high)
    with pytest.raises(ValueError, match=r"0\.995, not 99\.5"):
        dynamic_thresholding(exact, 99.5)
    with pytest.raises(ValueError, match="limit = 0"):
        dynamic_thresholding(exact, limit=0)
    with pytest.raises(ValueError, match="max_threshold = "):
        dynamic_thresholding(exact, max_threshold=0.5)
