"""Where the draws come from: batch-independent, repeatable, standard normal."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import DOUBLE, GRID, VP

import sde_diffusion as sd
from sde_diffusion.noise import Course
from sde_diffusion.solvers import ddpm


@given(seeds=st.lists(st.integers(0, 2**62), min_size=1, max_size=5, unique=True), data=st.data())
def test_a_samples_noise_does_not_depend_on_its_batch(seeds, data):
    """Alone, in another batch, in another place: the same sample to the bit."""
    noise = lambda chosen: sd.PerSampleNoise(chosen)
    plan = ddpm(VP, GRID)

    def draw(chosen):
        shape = (len(chosen), 3, 7)
        start = noise(chosen).start(torch.empty(shape, dtype=DOUBLE))
        return sd.run(plan, lambda x, t: 0.3 * x, start, noise=noise(chosen))

    together = draw(seeds)
    order = data.draw(st.permutations(range(len(seeds))))
    permuted = draw([seeds[i] for i in order])
    for place, i in enumerate(order):
        assert torch.equal(permuted[place], together[i])
        assert torch.equal(draw([seeds[i]])[0], together[i])


def test_noise_is_standard_normal_and_streams_are_unrelated():
    """Mean, variance, correlations of 200,000 draws; each test 5 sigma: false alarms < 1e-5."""
    n = 200_000
    for source in (sd.IndependentNoise(0), sd.PerSampleNoise([0, 1])):
        out = torch.empty(2, n // 2, dtype=DOUBLE)
        start = source.start(out.clone()).flatten()
        stream = source.stream(out, Course(((1.0, 0.5), (0.5, 0.0))))
        first = stream(torch.empty_like(out), 1.0, 0.5).flatten()
        second = stream(torch.empty_like(out), 0.5, 0.0).flatten()
        for z in (start, first, second):
            assert abs(float(z.mean())) < 5 / math.sqrt(n)
            assert abs(float(z.var()) - 1) < 5 * math.sqrt(2 / n)
        for a, b in ((start, first), (first, second), (start, second)):
            assert abs(float((a * b).mean())) < 5 / math.sqrt(n)


def test_unseeded_noise_is_new_each_time_and_still_repeatable(x, denoiser):
    first, second = sd.IndependentNoise(), sd.IndependentNoise()
    assert first.seed != second.seed
    plan = ddpm(VP, GRID)
    a, b = (sd.run(plan, denoiser, x, noise=first) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        (-1, "2\\^63"),
        (2**63, "2\\^63"),
        ([], "empty"),
        ("0", "give an integer"),
        (1.5, "integer"),
        (True, "integer"),
    ],
)
def test_bad_seeds(seed, words, denoiser):
    with pytest.raises((ValueError, TypeError), match=words):
        sd.sample(denoiser, (2, 3), seed=seed)
