"""Finished plans in a comparison: at their own NFE, beside the solvers, or refused."""

import dataclasses
import re

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.comparison.report import ranking
from sde_diffusion.problems import ring

VP = sd.VPLinear()
PROBLEM = ring()
SMALL = {"nfe": (5, 8), "solvers": ["ddim eta=0.0"], "grids": ["quadratic"], "n": 6}


def compared(**options):
    return sd.compare(PROBLEM.denoiser(VP), (2,), **{**SMALL, **options})


def test_a_plan_is_measured_at_its_own_calls_on_the_paths_of_all(tmp_path):
    """Against a direct run; the paths of all end where the plans do, at sigma = 0."""
    tables = [sd.default_plan(VP, nfe) for nfe in (5, 8)]
    path = tmp_path / "eight.json"
    tables[1].save(path)
    found = compared(plans=[tables[0], str(path)], seed=3)
    shown = [(c.solver, c.grid, c.allowed, c.nfe) for c in found.cells]
    assert shown == [
        *(("ddim", "quadratic", 5, 5), ("ddim", "quadratic", 8, 8)),
        ("few_steps(5)", "its own times", 5, 5),
        ("eight.json", "its own times", 8, 8),
    ]
    start = sd.IndependentNoise(3).start(torch.empty(6, 2, dtype=torch.float64)) * VP.sigma(1.0)
    end = found.reference.x
    torch.testing.assert_close(end, PROBLEM.endpoint(start, VP, 1.0, 0.0), rtol=0, atol=3e-3)
    for cell, plan in zip(found.cells[2:], tables, strict=True):
        x = sd.run(plan, PROBLEM.denoiser(VP), start)
        error = (x - end).norm(dim=1) / end.norm(dim=1)
        assert cell.median == pytest.approx(float(error.median()), rel=1e-9)
    assert found.best(5).solver == "few_steps(5)"


def test_the_default_of_sample_is_a_row_of_its_own():
    """At its own times, with as many calls as allowed; its ends are those of `sample`."""
    ask = {"nfe": (5, 8), "grids": ["uniform"], "n": 4, "t_end": 0.0}
    found = compared(solvers=["default"], **ask)
    assert [(c.solver, c.grid, c.nfe) for c in found.cells] == [
        ("default", "its own times", n) for n in (5, 8)
    ]
    plans = [sd.default_plan(VP, n) for n in (5, 8)]
    named = [dataclasses.replace(plan, name=f"own {plan.nfe}") for plan in plans]
    beside = compared(solvers=["default", "ddim eta=0.0"], plans=named, **ask)
    errors = {(c.solver, c.allowed): c.rms for c in beside.cells}
    for n in (5, 8):
        assert errors["default", n] == errors[f"own {n}", n] != errors["ddim", n]


def test_a_plan_is_ranked_by_its_own_calls_alone(tmp_path):
    """It is the best at 5, so it is behind nobody; DDIM is behind it there, and alone at 8."""
    found = compared(plans=sd.default_plan(VP, 5), out=tmp_path)
    best, ddim = ranking(found)
    assert (best.label, best.score) == ("few_steps(5) @ its own times", 1.0)
    at = {cell.allowed: cell for cell in found.cells if cell.solver == "ddim"}
    assert ddim.score == pytest.approx((at[5].median / found.best(5).median) ** 0.5)
    assert re.search(r"few_steps\(5\) @ its own times +[\d.e/-]+ +– ", str(found))
    assert "Grid its own times" in (tmp_path / "report.html").read_text()


def test_paths_end_where_the_plans_do_or_where_one_says():
    inside = sd.SOLVERS["heun"](VP, sd.times.uniform(VP, 4, t_end=0.01))
    assert compared(plans=[inside]).about["paths"] == "from t = 1 to t = 0.01"
    whole = sd.default_plan(VP, 5)
    for plans, t_end in (([whole], 0.01), ([inside, whole], None)):
        with pytest.raises(ValueError, match="all must have the same ends"):
            compared(plans=plans, t_end=t_end)
    late = sd.SOLVERS["heun"](VP, sd.times.uniform(VP, 4, t_start=0.9, t_end=0.01))
    with pytest.raises(ValueError, match=r"from t = 0\.9 to 0\.01, and the paths"):
        compared(plans=[late])


def test_stochastic_plans_only_if_asked_for():
    ddpm = sd.SOLVERS["ddpm"](VP, sd.times.uniform(VP, 5, t_end=0.01))
    found = compared(plans=[ddpm])
    assert {cell.solver for cell in found.cells} == {"ddim"}
    assert any("Stochastic" in note and ddpm.name in note for note in found.notes)
    both = compared(plans=[ddpm], stochastic=True)
    assert ddpm.name in {cell.solver for cell in both.cells}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"plans": [sd.default_plan(sd.EDM(), 5)]}, ValueError, "was made for EDM"),
        ({"plans": [sd.default_plan(VP, 6)]}, ValueError, r"nfe = \(5, 8\); add 6"),
        ({"plans": [sd.default_plan(VP, 5)] * 2}, ValueError, r"two are called 'few_steps\(5\)'"),
        ({"plans": [3]}, TypeError, "neither a Plan nor the path"),
        ({"plans": ["nowhere.json"]}, FileNotFoundError, "no such file of a plan"),
        ({"solvers": ["tuned.json"]}, TypeError, r"plans=\[\.\.\.\]"),
        ({"solvers": [sd.default_plan(VP, 5)]}, TypeError, r"plans=\[\.\.\.\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(options, error, match):
    with pytest.raises(error, match=match):
        compared(**options)


def test_plans_of_other_names_are_told_apart():
    plan = sd.default_plan(VP, 5)
    found = compared(plans=[plan, dataclasses.replace(plan, name="mine")])
    errors = {c.solver: c.median for c in found.cells if c.solver in (plan.name, "mine")}
    assert len(errors) == 2
    assert len(set(errors.values())) == 1
