"""The comparison: errors against a direct computation, what is kept and resumed, and its door."""

import csv
import json
import math
import re
import sys

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.comparison import Cell, Entry, Reference, Results, variants
from sde_diffusion.comparison.candidates import DEFAULT_GRIDS
from sde_diffusion.comparison.entries import written
from sde_diffusion.comparison.report import ranking
from sde_diffusion.problems import ring
from sde_diffusion.progress import Progress, clock
from sde_diffusion.tables import Table, number

VP = sd.VPLinear()
PROBLEM = ring()
TWO = ["ddim eta=0.0", "heun variable=t"]
SMALL = {"nfe": (5, 8), "solvers": TWO, "grids": ["quadratic"], "n": 6}


class Counting(sd.Denoiser):
    """The exact denoiser of the ring; counts the calls, stops at one of them, may be shifted."""

    def __init__(self, schedule=VP, shift=0.0, stop_at=math.inf):
        self.schedule, self.shift, self.stop_at = schedule, shift, stop_at
        self.exact, self.calls = PROBLEM.denoiser(schedule), 0

    def __call__(self, x, t):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return self.exact(x, t) + self.shift


def numbers(comparison):
    return [
        (c.solver, c.grid, c.allowed, c.nfe, c.steps, c.rms, c.median) for c in comparison.cells
    ]


# What is measured


def test_errors_are_those_of_a_direct_computation():
    """Against the closed-form trajectory, not the reference that `compare` solves for itself."""
    found = sd.compare(PROBLEM.denoiser(VP), (2,), **SMALL, seed=3)
    assert [(c.solver, c.allowed, c.nfe, c.steps) for c in found.cells] == [
        *(("ddim", 5, 5, 5), ("ddim", 8, 8, 8)),
        *(("heun", 5, 4, 2), ("heun", 8, 8, 4)),
    ]
    start = sd.IndependentNoise(3).start(torch.empty(6, 2, dtype=torch.float64)) * VP.sigma(1.0)
    end = PROBLEM.endpoint(start, VP, VP.t_max, VP.t_clean)
    for cell in found.cells:
        grid = sd.times.quadratic(VP, cell.steps, t_end=VP.t_clean)
        x = sd.run(sd.SOLVERS[cell.solver](VP, grid), PROBLEM.denoiser(VP), start)
        error = (x - end).norm(dim=1) / end.norm(dim=1)
        assert cell.rms == pytest.approx(float(error.square().mean().sqrt()), rel=1e-4)
        assert cell.median == pytest.approx(float(error.median()), rel=1e-4)


def test_the_reference_is_as_good_as_it_says():
    found = sd.compare(PROBLEM.denoiser(VP), (2,), **SMALL, reference_tolerance=1e-8)
    start = sd.IndependentNoise(0).start(torch.empty(6, 2, dtype=torch.float64)) * VP.sigma(1.0)
    end = PROBLEM.endpoint(start, VP, VP.t_max, VP.t_clean)
    error = ((found.reference.x - end).norm(dim=1) / end.norm(dim=1)).square().mean().sqrt()
    assert float(error) <= found.reference.rms < 1e-5
    rough = sd.compare(PROBLEM.denoiser(VP), (2,), **SMALL, reference_tolerance=1e-3)
    assert rough.reference.nfe < found.reference.nfe
    assert rough.reference.rms > 10 * found.reference.rms


@pytest.mark.parametrize("schedule", [VP, sd.EDM(), sd.FlowMatching(), sd.ddpm_linear()], ids=repr)
def test_every_solver_of_the_package_takes_part(schedule):
    found = sd.compare(PROBLEM.denoiser(schedule), (2,), nfe=(8,), grids=["uniform"], n=4)
    equal = " ".join(found.notes)
    for entry in variants():
        told = entry.short in {cell.solver for cell in found.cells} or entry.short in equal
        assert told, entry.short
    assert found.cells[0].solver == "default"
    assert all(cell.nfe <= 8 for cell in found.cells)
    assert not {c.solver for c in found.cells} & {e.short for e in variants() if e.stochastic}
    assert any(cell.median < 0.5 for cell in found.cells)


def test_default_grids_that_a_schedule_does_not_have_are_noted():
    exact = PROBLEM.denoiser(sd.FlowMatching())
    flow = sd.compare(exact, (2,), nfe=(4,), solvers=["euler variable=t"], n=3)
    left_out = {"uniform_lambda", "karras"}
    assert {cell.grid for cell in flow.cells} == set(DEFAULT_GRIDS) - left_out
    assert all(any(f"Grid {grid} is left out" in note for note in flow.notes) for grid in left_out)


def test_stochastic_solvers_only_if_asked_for():
    ask = {**SMALL, "solvers": ["ddpm", "ddim eta=0.0"]}
    found = sd.compare(PROBLEM.denoiser(VP), (2,), **ask)
    assert {cell.solver for cell in found.cells} == {"ddim"}
    assert any("Stochastic" in note and "ddpm" in note for note in found.notes)
    both = sd.compare(PROBLEM.denoiser(VP), (2,), **ask, stochastic=True)
    assert {cell.solver for cell in both.cells} >= {"ddim", "ddpm", "ddpm variance=posterior"}
    assert not any("Stochastic" in note for note in both.notes)


def test_solvers_and_grids_of_ones_own():
    def mine(schedule, times):
        return sd.SOLVERS["heun"](schedule, times)

    def cubes(schedule, steps, t_end):
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** 3
        return t_end + (schedule.t_max - t_end) * times

    ask = {**SMALL, "solvers": [mine], "grids": [cubes, "karras rho=3.0"]}
    found = sd.compare(PROBLEM.denoiser(VP), (2,), **ask)
    assert [c.grid for c in found.cells] == ["cubes"] * 2 + ["karras rho=3.0"] * 2
    assert {c.solver for c in found.cells} == {"mine"}
    assert [c.nfe for c in found.cells] == [4, 8, 4, 8]


def test_equal_solvers_are_run_once_under_the_plainest_name():
    ask = {**SMALL, "solvers": ["dpm_solver_1", "euler variable=rho", "ddim eta=0.0"]}
    found = sd.compare(PROBLEM.denoiser(VP), (2,), **ask)
    assert len({cell.solver for cell in found.cells}) == 1
    assert found.cells[0].solver in ("ddim", "dpm_solver_1")
    assert any("euler variable=rho = " in note for note in found.notes)


def test_solvers_that_part_at_more_steps_are_not_equal():
    """`angular` has order 3 below 20 steps and 4 from there."""
    below = {"order": 3, "corrector": 0, "lower_last": False}
    grid = lambda steps: sd.times.uniform(VP, steps, t_end=0.01)
    few, many = (
        [sd.SOLVERS["angular"](VP, grid(n)), sd.SOLVERS["angular"](VP, grid(n), **below)]
        for n in (6, 24)
    )
    assert few[0].equals(few[1])
    assert not many[0].equals(many[1])
    words = " ".join(f"{key}={value}" for key, value in below.items())
    ask = {**SMALL, "nfe": (24,), "solvers": ["angular order=None", f"angular {words}"]}
    found = sd.compare(PROBLEM.denoiser(VP), (2,), **ask)
    assert len({cell.solver for cell in found.cells}) == 2


def test_at_sigma_zero_every_grid_takes_part():
    found = sd.compare(
        PROBLEM.denoiser(VP), (2,), nfe=(60,), solvers=["deis order=2"], n=5, t_end=0.0,
        grids=["uniform", "leading timesteps=1000", "karras"],
    )  # fmt: skip
    assert [cell.nfe for cell in found.cells] == [60, 60, 60]
    assert any("one denoising step" in note for note in found.notes)
    assert all(cell.median < 0.1 for cell in found.cells)


# What is kept


def test_a_resumed_run_computes_nothing_twice(tmp_path):
    whole = Counting()
    expected = sd.compare(whole, (2,), **SMALL)
    assert not list(tmp_path.iterdir())
    stopped = Counting(stop_at=whole.calls - 5)
    with pytest.raises(KeyboardInterrupt):
        sd.compare(stopped, (2,), **SMALL, out=tmp_path)
    rest, probe = Counting(), 6
    found = sd.compare(rest, (2,), **SMALL, out=tmp_path)
    assert numbers(found) == numbers(expected)
    assert rest.calls == probe + 8  # the interrupted cell alone
    again = Counting()
    assert numbers(sd.compare(again, (2,), **SMALL, out=tmp_path)) == numbers(expected)
    assert again.calls == probe


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"n": 5}, {"t_end": 0.01}, {"reference_tolerance": 1e-5}, {"denoiser": 0.1}],
    ids=str,
)
def test_what_an_error_depends_on_is_computed_anew(change, tmp_path):
    sd.compare(Counting(), (2,), **SMALL, out=tmp_path)
    other = Counting(shift=change.pop("denoiser", 0.0))
    sd.compare(other, (2,), **{**SMALL, **change}, out=tmp_path)
    fresh = Counting(shift=other.shift)
    sd.compare(fresh, (2,), **{**SMALL, **change})
    assert other.calls == fresh.calls


def test_more_solvers_cost_only_themselves(tmp_path):
    sd.compare(Counting(), (2,), **SMALL, out=tmp_path)
    more = Counting()
    ask = {**SMALL, "solvers": [*TWO, "deis order=2"]}
    sd.compare(more, (2,), **ask, out=tmp_path)
    assert more.calls == 6 + 5 + 8


def test_a_run_that_leaves_the_finite_numbers_is_a_result(tmp_path):
    class Bad(Counting):
        def __call__(self, x, t):
            return super().__call__(x, t) * (math.inf if abs(t - 0.5005) < 1e-9 else 1)

    found = sd.compare(
        Bad(), (2,), nfe=(2, 5), solvers=["ddim eta=0.0"], grids=["uniform"], n=3, out=tmp_path
    )
    assert "not finite" in found.cells[0].error
    assert math.isnan(found.cells[0].median)
    assert not found.cells[1].error
    assert "–" in str(found)
    assert json.loads((tmp_path / "results.json").read_text())["cells"][0]["rms"] is None


# What is shown


@pytest.fixture
def made_up():
    error = {("a", "g"): (0.1, 0.01), ("a", "h"): (0.2, 0.05), ("b", "g"): (0.05, 0.04)}
    cells = [
        Cell(s, g, n, n, n, 2 * e, e)
        for (s, g), values in error.items()
        for n, e in zip((5, 10), values, strict=True)
    ]
    cells += [Cell("c", "g", n, error="no <result>") for n in (5, 10)]
    ends = Reference(torch.zeros(1, 2), 1e-6, 1e-3, 5e-3, 1e-2, 100)
    return sd.Comparison(tuple(cells), ends, {"denoiser": "a <b>", "schedule": "VP"}, ("note &",))


def test_the_best_and_the_ranking(made_up):
    assert made_up.nfe == [5, 10]
    assert (made_up.best(5).solver, made_up.best(10).solver) == ("b", "a")
    lines = ranking(made_up)
    assert [line.label for line in lines] == ["a @ g", "b @ g", "c @ g"]
    assert lines[0].score == pytest.approx(math.sqrt(2 * 1))  # 0.1/0.05, 0.01/0.01
    assert lines[1].score == pytest.approx(math.sqrt(1 * 4))
    assert lines[2].score == pytest.approx(math.sqrt(20 * 100))  # nothing counts as 1
    with pytest.raises(ValueError, match="within 7 network calls"):
        made_up.best(7)
    with pytest.raises(ValueError, match="did you mean 'median'"):
        made_up.best(5, "medien")
    assert isinstance(made_up, Results)


def test_the_text_marks_what_the_reference_does_not_know(made_up):
    text = str(made_up)
    assert "0.02/0.01*" in text
    assert "0.2/0.1 " in text
    assert "median 0.005" in text
    assert "note &" in text


def test_the_files(made_up, tmp_path):
    files = made_up.write(tmp_path / "new")
    assert [f.name for f in files] == [
        *("results.csv", "results.json", "work-precision.png", "report.html"),
    ]
    rows = list(csv.DictReader(files[0].open()))
    assert len(rows) == 8
    assert float(rows[1]["rms"]) == 0.02
    content = json.loads(files[1].read_text())
    assert content["cells"][6]["median"] is None
    assert content["reference"]["nfe"] == 100
    page = files[3].read_text()
    assert "<script" not in page
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    assert page.count("data:image/png;base64,") == 1
    assert "a &lt;b&gt;" in page
    assert "median, beneath it the RMS" in page
    assert "0.01*<small>0.02</small>" in page
    assert "no &lt;result&gt;" in page
    assert "<b>" not in page


def test_the_page_without_matplotlib(made_up, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    names = [file.name for file in made_up.write(tmp_path)]
    assert names == ["results.csv", "results.json", "report.html"]
    assert "needs matplotlib" in (tmp_path / "report.html").read_text()


def test_tables_align_names_left_and_numbers_right():
    table = Table("T", "", ("row", "name", "n"), (("x", "alpha", "1"), ("long", "b", "22")))
    assert str(table).splitlines()[2:] == [
        "row   name    n",
        "---------------",
        "x     alpha   1",
        "long  b      22",
    ]
    assert [number(v) for v in (1.0, 0.01234, 1.234e-5, 12345.0, math.nan)] == [
        *("1", "0.0123", "1.2e-5", "1.2e4", "nan"),
    ]
    assert [number(v, 2) for v in (780.4, 12345.0, 0.0567)] == ["780", "1.2e4", "0.057"]


def test_progress_tells_the_time_left(capsys):
    with Progress(10) as telling:
        assert telling.left is None
        telling._began -= 4.0  # four seconds ago
        telling._told -= 10.0
        telling.advance(2, "next")
        assert telling.left == pytest.approx(16.0, abs=0.5)
    assert capsys.readouterr().err == " 20%, 0:16 left: next\n"
    assert [clock(s) for s in (7, 125, 3723)] == ["0:07", "2:05", "1:02:03"]


# The door


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"nfe": ()}, ValueError, "whole numbers"),
        ({"nfe": (5, 0)}, ValueError, "whole numbers"),
        ({"nfe": (5.0,)}, ValueError, "whole numbers"),
        ({"solvers": ["ddmi"]}, ValueError, "unknown solver 'ddmi'; did you mean"),
        (
            {"solvers": ["ddim ets=0"]},
            ValueError,
            "option of ddim 'ets'; did you mean 'eta'",
        ),
        ({"solvers": ["ddim 0.5"]}, ValueError, "write options as key=value"),
        ({"solvers": ["ddpm"]}, ValueError, "stochastic=True"),
        ({"solvers": [3]}, TypeError, "give a name"),
        ({"grids": ["karas"]}, ValueError, "did you mean 'karras'"),
        ({"grids": ["leading"]}, ValueError, "takes no t_end"),
        ({"grids": ["uniform t_end=0.1"]}, ValueError, "all grids end together"),
        ({"grids": []}, ValueError, "no grid"),
        ({"grids": [lambda s, n, t_end: sd.times.uniform(s, n)]}, ValueError, "ends at t = 0, not"),
        ({"t_end": 2.0}, ValueError, "lies outside"),
        ({"n": 0}, ValueError, "at least 1"),
        ({"seed": -1}, ValueError, "seed"),
        ({"reference_tolerance": 0.0}, ValueError, "between 1e-13, where float64 ends, and 0.1"),
        ({"reference_tolerance": 1e-14}, ValueError, "between 1e-13"),
    ],
)
def test_bad_arguments_are_refused(change, error, match):
    with pytest.raises(error, match=match):
        sd.compare(PROBLEM.denoiser(VP), (2,), **{**SMALL, **change})


def test_a_network_of_another_shape_is_told_the_shape_it_was_asked_with():
    network = torch.nn.Linear(3, 3)
    denoiser = sd.NetworkDenoiser(lambda x, t: network(x), VP, dtype=torch.float32)
    with pytest.raises(RuntimeError) as caught:
        sd.compare(denoiser, (2,), **SMALL)
    assert any("shape (6, 2)" in note for note in caught.value.__notes__)


def test_a_network_that_does_not_answer_the_same_twice_is_refused():
    """Its ODE has no one end; an adaptive solver would reject steps for ever."""
    denoiser = sd.NetworkDenoiser(lambda x, t: torch.randn_like(x), VP, prediction="noise")
    with pytest.raises(ValueError, match=r"not answer the same twice.*network\.eval\(\)"):
        sd.compare(denoiser, (2,), **SMALL)


def test_only_denoisers_are_compared():
    with pytest.raises(TypeError, match="NetworkDenoiser"):
        sd.compare(lambda x, t: x, (2,))


def test_entries_as_they_are_written():
    assert written("ddim eta=0.5") == [Entry("ddim", (("eta", 0.5),))]
    assert {entry.short for entry in written("ddim")} == {"ddim", "ddim eta=0.5", "ddim eta=1"}
    assert written("heun variable=rho")[0].short == "heun variable=rho"
