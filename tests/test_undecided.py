"""Starts in doubt: which are chosen, what they count, and that fits weigh them so."""

import math

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.tuning import Pairs, choose_starts, tune
from sde_diffusion.tuning.gradient import gradient
from sde_diffusion.tuning.least_squares import least_squares
from sde_diffusion.tuning.loss import endpoint
from sde_diffusion.tuning.measure import measure
from sde_diffusion.tuning.objective import Objective
from sde_diffusion.tuning.table import table
from sde_diffusion.tuning.undecided import doubt, strata

VP = sd.VPLinear()
RING = sd.problems.ring()
DENOISER = RING.denoiser(VP)
STARTS = RING.sample_marginal(256, *VP(1.0), generator=torch.Generator().manual_seed(0))


def test_the_starts_in_doubt_are_those_near_a_border():
    """Eight modes on a circle: paths part on the rays half-way between them, by symmetry."""
    score = doubt(DENOISER, STARTS)
    angle = torch.atan2(STARTS[:, 1], STARTS[:, 0]) / (math.pi / 4)
    from_border = ((angle - angle.floor()) - 0.5).abs()  # modes at multiples of pi/4
    near = from_border < from_border.quantile(0.1)
    assert score[near].median() > 5 * score[~near].median()


def test_the_chosen_stand_for_all():
    """The upper half is in, each once; of the others some, each for as many as were left."""
    score = doubt(DENOISER, STARTS)
    chosen, weights = choose_starts(DENOISER, STARTS, 64, seed=3)
    upper = set(score.argsort(descending=True)[:32].tolist())
    assert len(set(chosen.tolist())) == 64
    assert upper < set(chosen.tolist())
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0, dtype=torch.float64))
    for index, weight in zip(chosen.tolist(), weights.tolist(), strict=True):
        counts = weight * 256 / 64  # of all
        assert math.isclose(counts, 1.0 if index in upper else (256 - 32) / 32)
    assert choose_starts(DENOISER, STARTS, 256)[1].equal(torch.ones(256, dtype=torch.float64))


def test_samples_in_another_mode_are_all_told():
    """Two narrow modes: the few samples that end in the other one are among the chosen.

    So their share is told exactly, whichever of the others are drawn.
    """
    data = sd.problems.GaussianMixture([0.2, 0.8], [[-1.0], [1.0]], [1e-4, 1e-4])
    denoiser = data.denoiser(VP)
    x = data.sample_marginal(1024, *VP(1.0), generator=torch.Generator().manual_seed(0))
    plan = sd.SOLVERS["angular"](VP, sd.times.default(VP, 6))
    other = (sd.run(plan, denoiser, x) * data.endpoint(x, VP, 1.0, 0.0) < 0).double()[:, 0]
    assert 0 < other.sum() < 64
    for seed in range(3):
        chosen, weights = strata(doubt(denoiser, x), 128, seed)
        assert torch.isclose((weights * other[chosen]).mean(), other.mean(), rtol=1e-12)


def test_a_weight_is_as_many_samples():
    """Weights 2, 1, 2, 1, ..: all that a fit sees is that of samples of which some come twice."""
    x = STARTS[:24]
    ends = RING.endpoint(x, VP, 1.0, 0.0)
    times = torch.arange(24) % 2 == 0
    twice = torch.cat([torch.arange(24), torch.arange(24)[times]])
    weights = (1.0 + times.double()) * 24 / 36
    weighed = Pairs(x, ends, 1.0, 0.0, weights=weights)
    repeated = Pairs(x[twice], ends[twice], 1.0, 0.0)
    plan = sd.SOLVERS["angular"](VP, sd.times.default(VP, 2))
    family, loss = table(plan, VP), endpoint(0.1)
    one, other = (
        Objective(family, DENOISER, loss, pairs, chunk=7, probes=2) for pairs in (weighed, repeated)
    )
    assert math.isclose(one.value(family.start), other.value(family.start), rel_tol=1e-12)
    for a, b in zip(
        *(found.normal_equations(family.start, 0) for found in (one, other)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
    a, b = (measure(plan, DENOISER, loss, pairs, 5) for pairs in (weighed, repeated))
    for figure in ("loss", "rms", "median"):
        assert math.isclose(getattr(a, figure), getattr(b, figure), rel_tol=1e-12)
    options = {"max_iterations": 3, "batch": 100}
    a, b = (
        gradient(family, DENOISER, loss, pairs, pairs, **options) for pairs in (weighed, repeated)
    )
    torch.testing.assert_close(a.numbers, b.numbers, rtol=1e-9, atol=1e-12)
    a, b = (
        least_squares(family, DENOISER, loss, pairs, pairs, max_iterations=2, probes=2)
        for pairs in (weighed, repeated)
    )
    torch.testing.assert_close(a.numbers, b.numbers, rtol=1e-8, atol=1e-10)


class Counting(sd.Denoiser):
    """The ring's denoiser, and how many samples it was asked for."""

    def __init__(self, scale=1.0):
        self.schedule, self.scale, self.asked = VP, scale, 0

    def __call__(self, x, t):
        self.asked += len(x)
        return self.scale * DENOISER(x, t)


def test_what_is_known_of_the_starts_is_kept(tmp_path):
    first, again = Counting(), Counting()
    options = {"chunk": 8, "folder": tmp_path, "label": "ring"}
    chosen = choose_starts(first, STARTS, 32, **options)
    assert first.asked >= 45 * len(STARTS)
    for a, b in zip(chosen, choose_starts(again, STARTS, 32, **options), strict=True):
        assert a.equal(b)
    assert again.asked < 10
    with pytest.raises(ValueError, match="another network, also under the label 'ring'"):
        choose_starts(Counting(0.9), STARTS, 32, **options)


def test_tune_fits_on_starts_in_doubt(tmp_path):
    options = {"shape": (2,), "nfe": 3, "method": "least_squares", "max_iterations": 2}
    options |= {"label": "ring", "folder": tmp_path}
    plan = tune("angular", DENOISER, 256, keep=64, **options)
    assert plan.origin["starts"] == {"train": 48, "validation": 16, "in all": 256}
    assert "of 256 half those" in sd.tuning.report(plan)
    known = sd.tuning.teach(DENOISER, 256, shape=(2,), folder=tmp_path, label="ring")
    same = tune("angular", DENOISER, known.starts, known.ends, keep=64, **options)
    torch.testing.assert_close(same.matrix(), plan.matrix(), rtol=1e-3, atol=1e-6)


def test_bad_input_is_refused():
    task = {"shape": (2,), "nfe": 3}
    for wrong in (1, 257, 1.5, True):
        with pytest.raises((TypeError, ValueError), match=f"keep = {wrong}"):
            choose_starts(DENOISER, STARTS, wrong)
    for alike in ({"free": "gits"}, {"loss": "sliced", "free": "coefficients"}):
        with pytest.raises(ValueError, match="takes all alike"):
            tune("ddim", DENOISER, 256, keep=64, **task, **alike)
    for ends in (STARTS[:100], torch.cat([STARTS, STARTS])):
        with pytest.raises(ValueError, match="give the end of each start"):
            tune("angular", DENOISER, STARTS, ends, keep=64, nfe=3)
    asked = Counting()
    with pytest.raises(ValueError, match="teacher"):
        tune("angular", asked, STARTS, "exakt", keep=64, nfe=3)
    assert asked.asked < 45
    with pytest.raises(ValueError, match="keep = 0"):
        tune("angular", DENOISER, 256, keep=0, **task)
    with pytest.raises(ValueError, match="train starts for"):
        tune("angular", DENOISER, 256, keep=8, **task)
    pairs = Pairs(STARTS, STARTS, 1.0, 0.0)
    with pytest.raises(ValueError, match="keep = 64 beside Pairs"):
        tune("angular", DENOISER, None, pairs, keep=64, nfe=3)
    for weights in (torch.ones(255), -torch.ones(256)):
        weighed = Pairs(STARTS, STARTS, 1.0, 0.0, weights=weights)
        with pytest.raises(ValueError, match="a positive one for each of its 256 starts"):
            tune("angular", DENOISER, None, weighed, nfe=3)
