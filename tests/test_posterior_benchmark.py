"""The judge of inverse problems: its distances against closed forms, its counting, its verdict."""

import json
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import sde_diffusion
from benchmarks.posterior import __main__ as command
from benchmarks.posterior import compare, measure, ours, particles
from benchmarks.posterior.asks import Ask, Counted, Setting, ask
from benchmarks.posterior.distances import Posterior
from benchmarks.posterior.measure import Bench, nearest
from benchmarks.posterior.problems import OPERATORS, Task, fields
from benchmarks.posterior.tables import pairs, report, verdict
from sde_diffusion import VPLinear, inverse, problems, sample
from sde_diffusion import particles as particles_of
from sde_diffusion.solvers import SOLVERS
from sde_diffusion.store import Store

ROW = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
RING = Task("ring", problems.ring(), ROW, 0.1, 2, 400, VPLinear())
GAUSS = problems.GaussianMixture(
    [1.0], [[0.5, -0.5]], torch.tensor([[[1.0, 0.7], [0.7, 1.0]]], dtype=torch.float64)
)
GAUSSIAN = Task("gaussian", GAUSS, ROW, 0.1, 2, 400, VPLinear())


def _setting(method: str, **options: float) -> Setting:
    make = partial(getattr(inverse, method), **options)
    return Setting("ours", method, "", partial(ours.by_plan, make=make, eta=1.0))


def test_kl_of_the_moments_is_zero_for_the_moments_and_the_formula_for_others() -> None:
    posterior = Posterior.of(RING.posteriors[0], draws=10)
    z = RING.exact(0)[0] @ posterior.axes
    z = (z - z.mean(0)) / z.std(0)
    with_moments = posterior.mean + (z * posterior.variances.sqrt()) @ posterior.axes.T
    assert posterior.kl(with_moments) == pytest.approx(0.0, abs=1e-12)
    wider = posterior.mean + 2.0 * (with_moments - posterior.mean)
    assert posterior.kl(wider) == pytest.approx((4 - 1 - math.log(4)) / 2, rel=1e-9)
    moved = with_moments + 3 * posterior.variances[0].sqrt() * posterior.axes[:, 0]
    assert posterior.kl(moved) == pytest.approx(9 / 4, rel=1e-9)  # 3^2/2, over two dimensions


def test_coverage_of_exact_samples_is_nine_tenths() -> None:
    """4,000 samples against a threshold of 4,000: standard error 0.0067; alarm beyond 4 of them."""
    for law in (
        *RING.posteriors,
        fields(2, 4).posterior(OPERATORS["mask"](4)[0], torch.ones(4), 0.1),
    ):
        posterior = Posterior.of(law)
        x = law.sample(4000, torch.Generator().manual_seed(1))
        assert abs(posterior.inside(x) - 0.9) < 0.027
        assert posterior.inside(posterior.mean + 0 * x + 20.0) == 0.0
    gaussian = Posterior.of(GAUSSIAN.posteriors[0])
    assert gaussian.inside(gaussian.mean.expand(5, 2)) == 1.0


def test_exact_samples_are_at_the_floor_and_the_prior_is_not() -> None:
    bench = Bench(RING)
    floor = bench.floor(4)
    for setting in ours.settings():
        if setting.library == "exact":
            cell = bench.cell(setting, 40, 0)
            near = cell["sliced"] < floor["sliced"][0] + 4 * floor["sliced"][1]
            assert near == (setting.method != "prior"), setting.name
    assert floor["inside"][0] == pytest.approx(0.9, abs=0.03)
    assert floor["kl"][0] < 0.02


def test_moment_matching_on_gaussian_data_is_the_exact_posterior() -> None:
    """All measured numbers in one iteration of conjugate gradients: what is left is rounding."""
    found = [
        Bench(GAUSSIAN).samples(setting, 10, 0)[0]
        for setting in (
            _setting("mmps", iterations=1),
            Setting("exact", "", "", partial(ours.posterior_denoiser, eta=0.0)),
        )
    ]
    plain = Setting(
        "ours", "mmps", "", partial(ours.by_plan, make=partial(inverse.mmps, iterations=1), eta=0.0)
    )
    assert (Bench(GAUSSIAN).samples(plain, 10, 0)[0] - found[1]).abs().max() < 1e-4
    assert (found[0] - found[1]).abs().max() > 0.1  # noise of its own


def test_calls_and_gradients_are_counted() -> None:
    for setting, gradients in (
        (_setting("pigdm"), 1),
        (_setting("mmps", iterations=3), 4),
        (_setting("ddnm"), 0),
    ):
        _, counted, _ = Bench(RING).samples(setting, 10, 0)
        assert (counted.calls, counted.gradients) == (10, 10 * gradients), setting.method


def test_no_setting_asks_more_often_than_allowed() -> None:
    matrix, kept = OPERATORS["mask"](4)
    task = Task("small", fields(2, 4), matrix, 0.1, 2, 4, VPLinear(), kept, 4)
    for setting in ours.settings():
        if setting.fits(task, 8):
            counted = Counted(task.prior.denoiser(task.schedule))
            setting.solve(ask(task, counted, setting, 8, 0))
            least = 0 if setting.method == "prior" else 7
            assert least <= counted.calls <= 8, setting.name


def test_evidence_and_measurements_belong_to_one_another() -> None:
    """log p(y) against the mean likelihood of 200,000 draws of the prior, to 4 standard errors."""
    x = RING.prior.sample(200_000, torch.Generator().manual_seed(2))
    for y, evidence in zip(RING.y, RING.evidence, strict=True):
        residual = (y - x @ RING.matrix.T)[:, 0] / RING.noise
        likelihood = (-residual.square() / 2).exp() / (RING.noise * math.sqrt(2 * math.pi))
        error = float(likelihood.std()) / math.sqrt(len(x))
        assert abs(float(likelihood.mean()) - math.exp(evidence)) < 4 * error


def test_smooth_fields_have_one_variance_and_operators_their_means() -> None:
    law = fields(3, 8)
    assert float(law.data_covariance().trace()) == pytest.approx(64, rel=0.6)
    constant = torch.full((64,), 0.3, dtype=torch.float64)
    for make in OPERATORS.values():
        assert torch.allclose(make(8)[0] @ constant, constant[: len(make(8)[0])])


def _row(
    library: str, name: str, nfe: int, each: list[list[float]] | None, default: bool = False
) -> dict[str, object]:
    known = {"library": library, "method": "DPS", "name": f"{library} {name}", "nfe": nfe}
    about = {**known, "default": default, "chosen": True}
    if each is None:
        return {**about, "error": "samples are not finite"}
    costs = {"calls": nfe, "gradients": nfe, "seconds": 0.1}
    figures = {"kl": 0.1, "inside": 0.9}
    mean = lambda v: {**figures, **costs, "sliced": sum(v) / len(v), "each": v}
    return {**about, **compare.together([mean(v) for v in each])}


def test_the_verdict_says_where_ours_is_farther() -> None:
    near, far = [[0.20], [0.21], [0.19]], [[0.30], [0.31], [0.29]]
    cells = [
        *(_row("ours", "a", 20, near), _row("azula", "a", 20, far)),
        *(_row("ours", "b", 50, far), _row("azula", "b", 50, near)),
        *(_row("ours", "b", 100, far), _row("azula", "b", 100, None)),
    ]
    floor = {"sliced": [0.05, 0.001], "kl": [0.01, 0.0], "inside": [0.9, 0.0]}
    named = [("DPS", who, name) for who, name in (("ours", "a"), ("azula", "a"), ("ours", "b"))]
    named.append(("DDNM", "ours", "a"))
    keys = ("method", "library", "name")  # each at two numbers of calls
    sweep = [dict(zip(keys, name, strict=True)) for name in 2 * named]
    task = {"count": 1, "samples": 8, "dimension": 2, "floor": floor, "cells": cells}
    content = {"about": {"choice": "as said"}, "tasks": {"t": {**task, "sweep": sweep}}}
    assert [(r["nearer"], r["farther"]) for r in pairs(content)] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    lines = verdict(content)
    assert "2 of 3" in lines[0]
    assert "NFE 50: 0.3 ± 0.0058 against 0.2" in lines[1]
    assert "comparisons: DPS 1.00 (2)." in lines[3]  # sqrt(2/3 * 3/2); one of azula's failed
    assert "farther in 0.0. Settings swept, ours / azula's: DPS 2 / 1." in lines[-1]
    assert "| DPS | azula | 0.3 ± 0.0058 |" in report(content)


def test_differences_of_chance_are_called_farther_as_often_as_is_said() -> None:
    """1,000 pairs of one law: 1 % on either side, to 4 standard errors.

    With K (R - 1) degrees of freedom, which belong to equal variances, 3 % would be called so.
    """
    generator = torch.Generator().manual_seed(0)
    levels = torch.tensor([10.0, 30.0, 20.0])  # measurements differ, and are not drawn
    spread = torch.tensor([0.1, 1.0, 0.1])
    found = []
    for _ in range(1000):
        a, b = (levels + spread * torch.randn(2, 4, 3, generator=generator)).unbind()
        pair = {"each": a.tolist()}, {"each": b.tolist()}
        found.append([compare.farther(*pair), compare.farther(*pair[::-1])])
    shares = torch.tensor(found).double().mean(0)
    assert float((shares - 0.01).abs().max()) < 4 * math.sqrt(0.01 * 0.99 / 1000)


def test_a_shift_is_seen_and_rounding_is_not() -> None:
    base = [[1.0, 2.0], [1.4, 2.2], [0.9, 1.7]]
    moved = lambda by: {"each": [[v + by for v in line] for line in base]}
    assert compare.farther(moved(0.1), moved(0.0))  # paired: the same under every seed
    assert not compare.farther(moved(0.0), moved(0.1))
    assert not compare.farther(moved(0.01), moved(0.0))  # below 1 %


def test_degrees_of_freedom_count_the_measurements_that_vary() -> None:
    one = torch.tensor([[1.0], [2.0], [4.0], [3.0]])
    assert compare.freedom(one.expand(4, 3)) == pytest.approx(9.0)
    assert compare.freedom(one * torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(3.0)
    assert compare.freedom(one * torch.zeros(3)) == pytest.approx(9.0)


def test_the_standard_error_is_of_seeds_alone() -> None:
    """Of 4 seeds and two measurements that differ by far: sqrt((v_1 + v_2)/4)/2."""
    each = torch.tensor([[1.0, 50.0], [2.0, 52.0], [3.0, 54.0], [4.0, 56.0]], dtype=torch.float64)
    assert compare.standard_error(each) == pytest.approx(math.sqrt((5 / 3 + 20 / 3) / 4) / 2)


def test_the_nearest_few_go_on_and_those_that_failed_or_do_not_fit_do_not() -> None:
    settings = [
        Setting("ours", "DPS", str(i), lambda asked: asked.start, share=10 if i == 1 else 1)
        for i in range(5)
    ]
    rows = [
        {"name": s.name, "nfe": nfe, "sliced": v}
        for nfe, found in {50: (0.5, 0.1, None, 0.2, 0.6), 10: (0.5, 0.3, None, 0.9, 0.6)}.items()
        for s, v in zip(settings, found, strict=True)
    ]
    assert [s.options for s in nearest(settings, rows, RING, 50)] == ["1", "3"]
    assert [s.options for s in nearest(settings, rows, RING, 10)] == ["0", "4"]


@pytest.mark.parametrize("worse", ["ours", "azula"])
def test_what_is_told_is_measured_under_seeds_that_did_not_choose(tmp_path, worse) -> None:
    """Both seem equal under the seeds of the choice; under others either is farther."""
    assert not set(measure.CHOICE) & set(measure.SEEDS)
    asked = []

    def solve(who: str, a: Ask) -> torch.Tensor:
        asked.append((who, len(a.times), a.seed))
        x = a.task.exact(a.seed).float().flatten(0, 1)
        return x + (0.5 if who == worse and a.seed not in measure.CHOICE else 0.2)

    small = replace(RING, samples=4)
    settings = [Setting(who, "DPS", "", partial(solve, who), True) for who in ("ours", "azula")]
    settings.append(Setting("ours", "DDNM", "", partial(solve, "alone"), True))
    store = Store(tmp_path / "cells.json")
    found = measure.measure(small, settings, store, quick=False)
    sweep = {row["library"]: row["sliced"] for row in found["sweep"]}
    assert sweep["ours"] == pytest.approx(sweep["azula"])
    seeds = {(row["method"], row["seeds"]) for row in found["cells"]}
    assert seeds == {("DPS", len(measure.SEEDS)), ("DDNM", measure.ALONE)}
    assert {row["nfe"] for row in found["cells"]} == {10, 20, 50, 100}
    told = [r for r in found["cells"] if r["method"] == "DPS"]
    far, near = ([r for r in told if (r["library"] == worse) == w] for w in (True, False))
    for far_at, near_at in zip(far, near, strict=True):
        assert far_at["sliced"] == pytest.approx(2.5 * near_at["sliced"], rel=1e-5)
    assert len(set(asked)) == len(asked)  # each is run once
    assert {s for _, _, s in asked} == {*measure.CHOICE, *measure.SEEDS}
    asked.clear()
    measure.measure(small, settings, store, quick=False)
    assert asked == []  # all is kept


def test_slopes_are_those_of_a_power() -> None:
    rows = [{"particles": k, "mean": 3 * k**-0.5} for k in (4, 16, 64)]
    assert particles.slope(rows, "mean") == pytest.approx(-0.5)


def test_the_command_writes_its_files_and_goes_on_from_them(tmp_path, capsys) -> None:
    arguments = ["--quick", "--task", "gaussian", "--method", "DPS", "TDS"]
    arguments += ["--output", str(tmp_path), "--kept", str(tmp_path)]
    assert command.main(arguments) == 0
    content = json.loads((tmp_path / "posterior.json").read_text())
    (task,) = content["tasks"].values()
    assert {row["library"] for row in task["cells"]} >= {"exact", "ours"}
    (kept,) = tmp_path.glob("cells-*.json")
    before = kept.read_text()
    assert command.main(arguments) == 0
    assert kept.read_text() == before
    assert "gaussian" in (tmp_path / "posterior.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--task", "rinng"], "unknown task 'rinng'; did you mean 'ring'"),
        (["--method", "MMSP"], "did you mean 'mmps'"),
        (["--method", "RePaint", "--task", "ring"], "for masks alone"),
        (["--draw"], "no posterior.json in"),
        (["--processes", "0"], "must be at least 1"),
        (["--draw", "--method", "DPS"], "no --task, --method"),
    ],
)
def test_what_cannot_be_measured_or_drawn_is_said_at_once(
    tmp_path, capsys, arguments, told
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([*arguments, "--output", str(tmp_path / "out"), "--kept", str(tmp_path)])
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["mmps", "steering"])
def test_one_method_has_its_pictures(tmp_path, method) -> None:
    arguments = ["--quick", "--task", "ring", "--method", method]
    assert command.main([*arguments, "--output", str(tmp_path), "--kept", str(tmp_path)]) == 0
    assert (tmp_path / "samples-2.png").exists()
    assert (tmp_path / "distance-2.png").exists()


def test_every_method_has_one_default_and_no_setting_is_run_twice() -> None:
    every = ours.settings()
    names = [s.name for s in every]
    assert len(set(names)) == len(names)
    for method in {s.method for s in every if s.library == "ours"}:
        assert sum(s.default for s in every if s.method == method) == 1, method


def test_the_defaults_are_what_the_library_does_when_nothing_is_said() -> None:
    matrix, kept = OPERATORS["mask"](4)
    task = Task("small", fields(2, 4), matrix, 0.1, 1, 4, VPLinear(), kept, 4)
    denoiser = Counted(task.prior.denoiser(task.schedule))
    chosen = {s.method: s for s in ours.settings() if s.default and s.library == "ours"}
    for method, setting in chosen.items():
        asked = ask(task, denoiser, setting, 12, 0)
        given = ours.measurement(task, asked.y)
        grid, start = asked.times, asked.start
        plan = SOLVERS["ddpm"](task.schedule, grid)
        if method in ours.METHODS:
            d_y = ours.METHODS[method][0](denoiser, given)
            x = sample(d_y, start.shape, steps=12, start=start, seed=0)
        elif method == "DAPS":
            x = inverse.daps(denoiser, start, grid, given, noise=0).x
        elif method == "TDS":
            given = ours.measurement(task, task.y.to(start))
            shape = (1, *start.shape)
            found = particles_of.twisted(plan, denoiser, given, shape, start=start[None], seed=0)
            x = found.draw(4, seed=0)[0]
        else:
            continue
        assert torch.equal(setting.solve(asked), x), method


def test_changed_code_anywhere_in_the_package_is_measured_anew(tmp_path, monkeypatch) -> None:
    package = tmp_path / "sde_diffusion"
    shutil.copytree(Path(sde_diffusion.__file__).parent, package)
    monkeypatch.setattr(sde_diffusion, "__file__", str(package / "__init__.py"))
    for name in ("gradient.py", "denoise.py", "inverse/dps.py", "solvers/ddim.py"):
        before = measure.code("ours"), measure.code("azula")
        (package / name).write_text((package / name).read_text() + "\n")
        after = measure.code("ours"), measure.code("azula")
        assert all(a != b for a, b in zip(after, before, strict=True)), name
