"""The quality benchmark: its models, its screening, and what it found of the default."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import sde_diffusion as sd
from benchmarks.about import without_folders
from benchmarks.metrics import directions
from benchmarks.quality import fresh, ours, stochastic
from benchmarks.quality.__main__ import PEERS, _beside
from benchmarks.quality.grids import flow, grids
from benchmarks.quality.models import Case, load
from benchmarks.quality.sweep import NFES, Kept, best, measure
from sde_diffusion import times


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """The ring on VP's range of noise, 96 points."""
    return load(tmp_path_factory.mktemp("exact"), "ring", "vp").small(96)


def test_exact_ends_are_the_limit_of_many_steps(ring):
    setting = ours.Rule("rk4", "rk4", times.quadratic)
    plan = sd.SOLVERS["rk4"](ring.schedule, times.quadratic(ring.schedule, 400, t_end=1e-4))
    y = ours.follow(plan, ring.schedule, ring, torch.float64)
    assert ring.errors(y)["median"] < 1e-4
    assert measure(ring, setting, 4)[1] > 1e-3


def test_kept_ends_are_read_back(tmp_path):
    first, again = load(tmp_path, "ring of 5", "edm"), load(tmp_path, "ring of 5", "edm")
    assert first.end.equal(again.end)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("name", "grid"), list(grids()))
def test_grids_go_from_the_top_to_zero(name, grid):
    for n in (1, 2, 7, 51):
        values = grid(150.0, n)
        assert len(values) == n + 1, name
        assert values[0] == 150.0
        assert values[-1] == 0.0
        assert (np.diff(values) < 0).all()


def test_every_setting_asks_as_often_as_it_says(ring):
    """Network calls, not steps: a first step without one makes room for another."""
    for setting in ours.settings()[::97]:
        asked = []

        class Counting(Case):
            def denoised(self, y, rho):
                asked.append(rho)  # noqa: B023
                return super().denoised(y, rho)

        case = Counting(ring.model, ring.range, ring.problem, ring.start[:4], ring.end[:4])
        setting.run(case, 6)
        assert len(asked) == 6, setting.name
        assert (setting.start == "asked") == math.isclose(asked[0], ring.rho_max)


def test_a_carried_start_is_exact_on_standard_normal_data():
    """There the angular velocity is 0: the path is a rotation of x/hypot(alpha, sigma)."""
    problem = sd.problems.Gaussian(torch.zeros(3, dtype=torch.float64), 1.0)
    end = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    case = Case("normal", "edm", problem, end, end)
    case = replace(case, start=math.hypot(1.0, case.rho_max) * end)
    for start in ours.STARTS:
        found = ours.Setting("angular", (), "flow p=1", flow(1.0), start)
        assert measure(case, found, 6) == pytest.approx([0.0, 0.0], abs=1e-12)
    off = ours.Setting("dpm_solver_pp_2m", (), "flow p=1", flow(1.0), "carried")
    assert measure(case, off, 6)[0] > 1e-3


class Off:
    """A sampler that ends off by a share of all points, or by more on one in 20."""

    peer = "test"

    def __init__(self, name, everywhere, rare):
        self.name, self.everywhere, self.rare = name, everywhere, rare

    def run(self, case, nfe, dtype=torch.float64):
        share = torch.full((len(case.end), 1), self.everywhere, dtype=torch.float64)
        share[::20] = self.rare
        return case.end * (1 + share / nfe)


def test_the_best_is_found_by_each_metric(ring, tmp_path):
    made = [Off("even", 0.1, 0.1), Off("rare", 0.01, 10.0), Off("both", 0.2, 10.0)]
    kept = Kept(tmp_path / "kept.json")
    found = best(ring, made, kept, say=lambda line: None)
    assert set(found) == set(NFES)
    for nfe, cell in found.items():
        assert cell["rms"]["setting"] == "even"
        assert cell["rms"]["rms"] == pytest.approx(0.1 / nfe)
        assert cell["median"]["setting"] == "rare"
        assert cell["median"]["median"] == pytest.approx(0.01 / nfe)
        assert cell["rms"]["next"] == ["rare", "both"]
        assert cell["median"]["next"] == ["even", "both"]
    again = Kept(tmp_path / "kept.json")
    assert again.cells == kept.cells


def test_what_a_screening_names_is_measured_on_other_starts(ring, tmp_path):
    """The first of the screening, lucky on its points, falls behind the next one elsewhere."""

    class Lucky(Off):
        def run(self, case, nfe, dtype=torch.float64):
            return case.end * (1 + (0.001 if case.seed == ring.seed else 0.5) / nfe)

    lucky, even, far = Lucky("lucky", 0, 0), Off("even", 0.1, 0.1), Off("far", 1.0, 1.0)
    found = best(ring, [lucky, even, far], Kept(tmp_path / "s.json"), [5], say=lambda line: None)
    assert found[5]["median"]["setting"] == "lucky"
    named = {str(nfe): figures for nfe, figures in found.items()}
    choice = load(tmp_path, "ring", "vp", seed=3, points=64)
    starts = {tuple(row) for row in ring.start.tolist()}
    assert not starts & {tuple(row) for row in choice.start.tolist()}
    other = load(tmp_path, "ring", "vp", seed=4, points=32)
    distances = fresh.Distances(other, tmp_path / "fresh.npz")
    settings = {setting.name: setting for setting in (lucky, even, far)}
    kept = Kept(tmp_path / "fresh.json")
    again = fresh.again(choice, distances, named, settings, kept)
    read = fresh.Distances(other, distances.path)
    assert again == fresh.again(choice, read, named, settings, Kept(kept.path))
    assert [*read.kept] == ["test|even|5"]
    for metric in ("rms", "median"):
        assert again["5"][metric]["setting"] == "even"
        assert again["5"][metric][metric] == pytest.approx(0.1 / 5)
        assert again["5"][metric]["of"] == 3
    for figures in named["5"].values():
        del figures["next"]
    alone = fresh.again(choice, distances, named, settings, Kept(tmp_path / "other.json"))
    assert alone["5"]["rms"]["setting"] == "lucky"
    assert alone["5"]["rms"]["rms"] == pytest.approx(0.5 / 5)
    found = {"ours": alone, "peer": again}
    both = {("ours", "lucky"): lucky, ("peer", "even"): even}
    told = fresh.shares(found, distances, both, "ours", ["peer"])["5"]
    for metric in ("rms", "median"):
        assert told[metric]["peer"] == "peer"
        assert told[metric]["share"] == pytest.approx(5.0)
        assert told[metric]["error"] == pytest.approx(0.0, abs=1e-6)


def test_what_a_default_measured_is_not_taken_for_that_of_another(ring, tmp_path, monkeypatch):
    distances = fresh.Distances(ring, tmp_path / "fresh.npz")
    before, _ = (distances.of(ours.DEFAULT, 5) for _ in range(2))
    assert len(distances.kept) == 1
    monkeypatch.setattr(ours, "default_plan", lambda s, n, t: sd.SOLVERS["ddim"](
        s, times.uniform(s, n, t_start=t)
    ))  # fmt: skip
    assert distances.of(ours.DEFAULT, 5).median() > 2 * before.median()
    assert len(distances.kept) == 2


def test_shares_fall_with_a_figure_that_they_are_made_of():
    parts = {name: {"5": 1.0} for name in ("sde_diffusion", *PEERS)}
    known = {"seed": 2, "points": 8, "shares": {"5": 0.9}, **parts}
    same = {"seed": 2, "points": 8, "azula": {"5": 1.0}}
    assert _beside(known, same) == known
    assert "shares" not in _beside(known, {**same, "azula": {"5": 2.0}})
    assert "shares" not in _beside({**known, "points": 9}, same)
    assert "shares" not in _beside({k: v for k, v in known.items() if k != "azula"}, same)
    assert _beside(known, {**same, "shares": {"5": 0.8}})["shares"] == {"5": 0.8}


def test_recorded_commands_hold_no_folder_of_the_machine():
    words = ["--fresh", "--kept", "/tmp/kept", "--points", "8", "--output=/home/me", "a/b"]
    assert without_folders(words) == ["--fresh", "--points", "8", "a/b"]


@pytest.mark.parametrize("range_", ["vp", "edm", "flow"])
@pytest.mark.parametrize("nfe", [5, 10, 20])
def test_the_default_is_well_ahead_of_2m_on_even_steps(tmp_path, range_, nfe):
    case = load(tmp_path, "ring of 5", range_).small(128)
    even = times.uniform_lambda if range_ == "edm" else times.uniform
    usual = ours.Rule("2M", "dpm_solver_pp_2m", even)
    assert measure(case, usual, nfe)[1] > 2 * measure(case, ours.DEFAULT, nfe)[1]


def test_a_stochastic_run_nears_the_law_and_repeats_by_its_seed():
    """Fixed seeds. Exact sets lie 0.025 apart, standard deviation 0.0035: 0.04 is 4 of them off."""
    for seed in stochastic.SEEDS[:3]:
        case, _ = stochastic.draw("ring of 5", "edm", seed, 2048)
        theta = directions(case.end.shape[1], 64)
        few, many, again = (
            stochastic.distance(case, stochastic.OURS, nfe, seed, theta) for nfe in (3, 40, 40)
        )
        other = stochastic.distance(case, stochastic.OURS, 40, seed + 1, theta)
        assert many < 0.04 < 0.08 < few
        assert many == again != other


def test_the_best_of_a_screening_is_measured_with_seeds_of_its_own():
    class Shifted:
        """Points of the data, moved; the seeds that it is asked with are kept."""

        peer = "test"

        def __init__(self, name, shift):
            self.name, self.shift, self.asked = name, shift, []

        def run(self, case, nfe, dtype=torch.float64):
            self.asked.append((len(case.start), torch.initial_seed()))
            return case.end + self.shift / nfe

    near, far = Shifted("near", 0.1), Shifted("far", 1.0)
    found = stochastic.compare("ring of 5", "edm", {"test": [far, near]}, 256, 128)
    theta = directions(8, stochastic.DIRECTIONS)
    for nfe in stochastic.NFES:
        cell = found["test"][str(nfe)]
        assert cell["setting"] == "near"
        assert cell["mean"] == pytest.approx(0.1 / nfe * float(theta.sum(0).square().mean().sqrt()))
        assert cell["spread"] == pytest.approx(0.0, abs=1e-6)
    screened, finals = (128, stochastic.SCREEN_SEED), [(256, s) for s in stochastic.SEEDS]
    assert far.asked == [screened] * 3
    assert near.asked == [screened, *finals] * 3


def test_settings_that_are_screened_are_all_different_samplers_and_the_one_for_all_is_among_them():
    """On EDM at 10 calls; SA-Solver is screened with 16."""
    case, _ = stochastic.draw("ring of 5", "edm", 0, 64)
    settings = list(stochastic.our_settings())
    assert len(settings) == len({setting.name for setting in settings}) == 16

    def end(setting):
        torch.manual_seed(3)
        return setting.run(case, 10, torch.float32)

    ends = [end(setting) for setting in settings]
    assert all(torch.isfinite(end).all() for end in ends)
    assert all(not a.equal(b) for i, a in enumerate(ends) for b in ends[:i])
    one = end(stochastic.OURS)
    assert sum(torch.allclose(one, other, atol=1e-5) for other in ends) == 1


def test_how_far_one_sampler_is_ahead_is_measured_seed_by_seed():
    cell = {"a": {"10": {"runs": [1.0, 2.0, 3.0]}}, "b": {"10": {"runs": [1.5, 2.5, 3.8]}}}
    mean, error = stochastic.ahead(cell, "a", "b", 10)
    assert (mean, error) == (pytest.approx(0.6), pytest.approx(0.1))  # 0.3/sqrt(3)/sqrt(3)
