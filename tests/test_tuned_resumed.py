"""The benchmark of tuned plans goes on where it was stopped, to the same plan bit for bit."""

from functools import partial

import pytest
import torch

import benchmarks.tuned.__main__ as tuned
from benchmarks.tuned import data
from sde_diffusion import Plan
from sde_diffusion.tuning import restarts

NFE = 2
CHOSEN_BY = "validation losses before"


@pytest.fixture
def fit(monkeypatch, tmp_path):
    """(folder, range, again) -> the record of a fit on few starts, and its plan."""
    for name, size in {"TRAIN": 32, "VALIDATION": 16, "POINTS": 8}.items():
        monkeypatch.setattr(data, name, size)
    for name, size in {"_FEW": 16, "_LOOK": 2, "_EARLY": 3}.items():
        monkeypatch.setattr(restarts, name, size)
    monkeypatch.setattr(tuned, "_LONGEST", 4)
    monkeypatch.setattr(tuned, "load", partial(tuned.load, points=16))

    def measured(folder, range_, again=False):
        output = tmp_path / folder
        cell = tuned._measure(tuned.Job("ring", range_, NFE), output, tmp_path / "kept", again)
        return cell, Plan.load(tuned.Job("ring", range_, NFE).plan(output))

    return measured


@pytest.fixture
def watched(monkeypatch):
    """(iterations seen, those in which Ctrl-C comes): the watch of every fit from now on."""
    seen, stops = [], []

    class Watched(tuned.Keeper):
        def __call__(self, progress):
            super().__call__(progress)
            seen.append(progress.iteration)
            if stops and progress.iteration == stops[0]:
                stops.pop(0)
                raise KeyboardInterrupt

    monkeypatch.setattr(tuned, "Keeper", Watched)
    return seen, stops


FIGURES = ("test", "other seed", "validation loss", "iterations", "stopped", "begun with")


@pytest.mark.parametrize("range_", ["edm", "vp"])
def test_a_fit_stopped_twice_is_the_one_that_was_not(fit, watched, tmp_path, range_):
    """edm begins with first guesses and is stopped in two of its rounds; vp with edm's plan."""
    seen, stops = watched
    for folder in ("whole", "stopped") if range_ == "vp" else ():
        fit(folder, "edm")
    seen.clear()
    cell, plan = fit("whole", range_)
    assert seen == list(range(1, cell["iterations"] + 1))
    seen.clear()
    stops += [cell["iterations"] // 4, cell["iterations"] - 1]
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit("stopped", range_)
        assert list((tmp_path / "kept" / "fits").glob("*.npz"))
    again, resumed = fit("stopped", range_)
    assert seen == list(range(1, cell["iterations"] + 1))  # none of them twice
    assert resumed == plan
    assert {k: again[k] for k in FIGURES} == {k: cell[k] for k in FIGURES}
    assert not list((tmp_path / "kept" / "fits").iterdir())


def test_stopped_before_its_first_iteration_a_fit_begins_anew(tmp_path):
    def fitted(state, watch):
        assert state is None
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tuned._resumed(tmp_path / "fits" / "ring.npz", torch.zeros(1), fitted)


def test_what_a_fit_began_with_is_on_record(fit, watched):
    cell, _ = fit("one", "edm")
    assert (cell["begun with"], cell[CHOSEN_BY]) == ("first guesses", {})
    other, _ = fit("one", "vp")
    assert other["begun with"] == "the plan of edm"
    both, _ = fit("one", "vp", again=True)
    tried = both[CHOSEN_BY]
    assert set(tried) == {"its own plan", "the plan of edm"}
    assert both["begun with"] == min(tried, key=tried.get)
    assert both["validation loss"] <= min(tried.values())
    more, _ = fit("one", "vp", again=True)  # by the same loss
    assert more[CHOSEN_BY]["the plan of edm"] == tried["the plan of edm"]
    assert more[CHOSEN_BY]["its own plan"] == pytest.approx(both["validation loss"], rel=1e-9)
