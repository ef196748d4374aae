"""The benchmark: its metrics against closed forms, its verdict on made-up numbers, its resuming."""

import contextlib
import json
import math
import re

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as main_job
from benchmarks import model
from benchmarks.claim import compare, crossings, sentence, verdict
from benchmarks.entries import Entry, adaptive_entries, plan_entries, twins
from benchmarks.jobs import Job
from benchmarks.metrics import (
    directions,
    energy_distance,
    frechet_distance,
    sliced_wasserstein,
)
from benchmarks.runner import Budget, run_jobs
from benchmarks.settings import Settings
from sde_diffusion import SOLVERS, VPLinear
from sde_diffusion.store import Store
from sde_diffusion.times import GRIDS

torch.set_num_threads(1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Metrics.


def test_sliced_wasserstein_of_a_shift_is_the_mean_projection() -> None:
    x, shift, theta = normal(200, 5), normal(5, seed=1), directions(5, 64)
    expected = (shift @ theta).square().mean().sqrt()
    assert sliced_wasserstein(x, x[torch.randperm(200)] + shift, theta) == pytest.approx(
        float(expected), rel=1e-12
    )
    with pytest.raises(ValueError, match="one shape"):
        sliced_wasserstein(x, x[:100])


def test_sliced_wasserstein_agrees_with_pot() -> None:
    import ot  # seconds, for this test alone

    x, y, theta = normal(150, 6), 0.5 * normal(150, 6, seed=1) + 1, directions(6, 100)
    peer = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=theta.numpy())
    assert sliced_wasserstein(x, y, theta) == pytest.approx(float(peer), rel=1e-10)


def test_energy_distance_of_normals_on_the_line() -> None:
    # E|N(m, s^2)| = s sqrt(2/pi) e^{-m^2/2s^2} + m erf(m / s sqrt 2); both variances 1, s^2 = 2.
    m, s = 0.8, math.sqrt(2)
    folded = s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / 4) + m * math.erf(m / 2)
    expected = 2 * folded - 2 * s * math.sqrt(2 / math.pi)
    found = energy_distance(normal(4000, 1), normal(4000, 1, seed=1) + m)
    assert found == pytest.approx(expected, abs=0.03)


def test_energy_distance_is_unbiased() -> None:
    values = [
        energy_distance(normal(20, 3, seed=2 * k), normal(20, 3, seed=2 * k + 1))
        for k in range(400)
    ]
    error = np.std(values) / math.sqrt(len(values))
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 4 * error


def test_frechet_distance_of_gaussians() -> None:
    x = normal(300, 4)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    white = x @ (vectors / values.sqrt()) @ vectors.T  # sample covariance is exactly I
    shift, scale = normal(4, seed=1), torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    expected = shift.square().sum() + (1 - scale).square().sum()
    assert frechet_distance(white, white * scale + shift) == pytest.approx(
        float(expected), rel=1e-9
    )
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


# The verdict.


def curves(ddim: dict[int, float], ddpm: dict[int, float], spread: float = 0.01):
    offsets = (-spread, 0.0, spread)
    sides = [{n: [v + o for o in offsets] for n, v in side.items()} for side in (ddim, ddpm)]
    sides[1] = {n: [v + o * 0.9 for v, o in zip(vs, offsets, strict=True)] for n, vs in
                sides[1].items()}  # fmt: skip
    return compare(sides[0], sides[1], [0.001, 0.0011, 0.0009])


NFE = (10, 100, 1000)


def test_a_crossing_is_found_where_it_was_made() -> None:
    # The difference falls linearly in log NFE from 1 to -1: it is zero at 100 * sqrt(10).
    rows = curves({100: 1.0, 1000: 2.0}, {100: 2.0, 1000: 1.0})
    (found,) = crossings(rows)
    assert found.at == pytest.approx(100 * math.sqrt(10))
    assert found.left == "DDIM"
    assert found.resolved
    assert [row.winner for row in rows] == ["DDIM", "DDPM"]
    assert "agrees with this run" in verdict({"a": rows})
    assert "cross near NFE 316 (100 to 1000, resolved)" in sentence("a", rows)


def test_a_crossing_far_from_500_is_said_to_be_so() -> None:
    rows = curves({5: 1.0, 10: 2.0}, {5: 2.0, 10: 1.0})
    assert "not in number" in verdict({"a": rows})


def test_no_crossing() -> None:
    rows = curves(dict.fromkeys(NFE, 1.0), dict.fromkeys(NFE, 2.0))
    assert crossings(rows) == []
    assert "not confirmed" in verdict({"a": rows})
    assert "DDIM better at NFE 10 to 1000" in sentence("a", rows)
    assert "do not cross" in sentence("a", rows)


def test_a_crossing_within_the_spread_is_not_resolved() -> None:
    rows = curves({10: 1.0, 100: 1.001}, {10: 1.001, 100: 1.0}, spread=0.5)
    (found,) = crossings(rows)
    assert not found.resolved
    assert "no difference beyond the spread" in sentence("a", rows)
    assert "not settled by this run, which ends at NFE 100" in verdict({"a": rows})


def test_one_repeat_decides_nothing_and_neither_does_nothing() -> None:
    rows = compare({10: [1.0]}, {10: [5.0]}, [0.1, 0.2])
    assert rows[0].winner == ""
    assert "one repeat only" in sentence("a", rows)
    assert "says nothing" in verdict({"a": rows})
    assert "says nothing" in verdict({})


def test_the_noise_floor_is_named() -> None:
    rows = compare({10: [0.1, 0.11]}, {10: [0.1, 0.1]}, [0.1, 0.12])
    assert rows[0].at_floor
    assert "both within the noise floor at NFE 10" in sentence("a", rows)


# Entries.


def test_every_solver_may_take_part_with_its_variants() -> None:
    labels = [entry.label for entry in plan_entries(["all"])]
    assert {entry.solver for entry in plan_entries(["all"])} == set(SOLVERS)
    assert set(plan_entries()) < set(plan_entries(["all"]))
    assert {"ddim eta=0", "ddim eta=0.5", "ddim eta=1", "heun variable=rho"} <= set(labels)
    assert len(labels) == len(set(labels))
    assert [entry.label for entry in adaptive_entries()] == ["torchdiffeq dopri5", "scipy RK45"]
    with pytest.raises(ValueError, match="ddim"):
        plan_entries(["ddmi"])


def test_twins_are_the_known_equalities() -> None:
    found = {e.label: first.label for e, first in twins(plan_entries(), VPLinear(), "uniform").items()}  # fmt: skip # noqa: E501
    first = lambda label: found.get(label, label)
    assert first("dpm_solver_1") == first("euler variable=rho") == first("ddim eta=0")
    assert first("ddpm variance=posterior") == first("ddim eta=1") != first("ddim eta=0")
    assert "heun variable=t" not in found


@pytest.mark.parametrize("entry", plan_entries(), ids=lambda entry: entry.label)
@pytest.mark.parametrize("end", [0.0, 1e-3])
def test_nfe_is_never_more_than_allowed(entry: Entry, end: float) -> None:
    for nfe in (5, 10, 13):
        plan = entry.on_grid(VPLinear(), nfe, "uniform", end)
        longer = 1 if plan is None else len(plan.times)
        assert plan is None or plan.nfe <= nfe
        for steps in range(longer, longer + 3):  # no plan of more steps would do
            with contextlib.suppress(ValueError):  # fewer steps than this solver takes
                times = GRIDS["uniform"](VPLinear(), steps, t_end=end)
                assert entry.plan(VPLinear(), times).nfe > nfe


# Stopping and going on.


JOBS = [Job("quality", "network", Entry("ddim"), n) for n in (5, 10, 20, 50)]
KEYS = {job: job.key(Settings(), "code") for job in JOBS}


def quiet() -> Console:
    return Console(quiet=True)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path) -> None:
    done: list[int] = []

    def compute(job: Job) -> dict[str, float]:
        if len(done) == 2:
            done.append(-1)
            raise KeyboardInterrupt
        done.append(job.nfe)
        return {"nfe": job.nfe, "seconds": 0.1, "value": math.sqrt(job.nfe)}

    path = tmp_path / "cells.json"
    with pytest.raises(KeyboardInterrupt):
        run_jobs(JOBS, KEYS, compute, Store(path), Budget(None), quiet())
    assert len(json.loads(path.read_text())["cells"]) == 2
    resumed = run_jobs(JOBS, KEYS, compute, Store(path), Budget(None), quiet())
    assert done == [5, 10, -1, 20, 50]
    whole = run_jobs(JOBS, KEYS, compute, Store(tmp_path / "other.json"), Budget(None), quiet())
    assert resumed == whole


def test_changed_settings_are_other_cells_and_a_damaged_file_is_refused(tmp_path) -> None:
    assert KEYS[JOBS[0]] != JOBS[0].key(Settings(seed=1), "code")
    assert KEYS[JOBS[0]] != JOBS[0].key(Settings(samples=10), "code")
    assert KEYS[JOBS[0]] != JOBS[0].key(Settings(), "other code")
    assert KEYS[JOBS[0]] == JOBS[0].key(Settings(repeats=9), "code")
    (tmp_path / "cells.json").write_text('{"format": "sde')
    with pytest.raises(ValueError, match="delete it"):
        Store(tmp_path / "cells.json")


def test_a_budget_leaves_out_what_does_not_fit(tmp_path) -> None:
    budget = Budget(60.0)
    budget.learn(JOBS[0], 5, 10.0)  # two seconds an evaluation
    compute = lambda job: {"nfe": 0, "seconds": 0.0}
    found = run_jobs(JOBS, KEYS, compute, Store(tmp_path / "cells.json"), budget, quiet())
    assert [job.nfe for job in found] == [5, 10, 20]


# The whole job, tiny.


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    recipe = model.Recipe(width=8, depth=1, hidden=8, steps=3, batch_size=8, learning_rate=1e-3)
    monkeypatch.setattr(model, "QUICK", recipe)
    monkeypatch.setattr(model, "FOLDER", tmp_path / "networks")
    small = lambda **changes: Settings(
        **{
            "quick": True,
            "points": (("ring", 4), ("digits", 2), ("network", 2)),
            "samples": 20,
            "repeats": 2,
            "tolerances": (1e-2,),
            **changes,
        }
    )
    monkeypatch.setattr(main_job, "quick_settings", small)
    folder = tmp_path / "out"
    arguments = ["--quick", "--nfe", "4,8", "--output", str(folder), "--threads", "1"]
    arguments += ["--solvers", "ddim", "ddpm", "heun", "scipy", "--budget", "0"]
    return arguments, folder


def test_the_whole_job_and_its_report(tiny, capsys, monkeypatch) -> None:
    arguments, folder = tiny
    assert main_job.main(arguments) == 0
    printed = capsys.readouterr().out
    assert str(folder / "report.html") in printed.replace("\n", "")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    assert "<script" not in page
    images = re.findall(r'<img [^>]*src="([^"]{0,30})', page)
    assert len(images) == 8
    assert all(source.startswith("data:image/png;base64,") for source in images)
    content = json.loads((folder / "results.json").read_text())
    assert content["findings"]["verdict"].split(".")[0] in page.replace("&#34;", '"')
    kinds = {(row["kind"], row["case"]) for row in content["cells"]}
    assert kinds == {("precision", c) for c in ("ring", "digits", "network")} | {
        ("quality", "network")
    }
    assert (folder / "results.csv").read_text().count("\n") == len(content["cells"]) + 1
    # A second run knows every cell and tells the same.
    monkeypatch.setattr(main_job, "all_figures", lambda *_: {})
    monkeypatch.setattr(main_job, "_gallery", lambda *_: {})
    assert main_job.main(arguments) == 0
    again = json.loads((folder / "results.json").read_text())
    assert again["cells"] == content["cells"]
    total = len(json.loads((folder / "cells.json").read_text())["cells"])
    assert f"{total} cells, {total} of them known" in capsys.readouterr().out


def test_bad_arguments_are_told(capsys, tmp_path) -> None:
    folder = str(tmp_path)
    assert main_job.main(["--seed", "-1", "--output", folder]) == 1
    assert "at least 0" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main_job.main(["--nfe", "five"])
    assert "whole numbers" in capsys.readouterr().err
