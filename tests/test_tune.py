"""tune: what it gives back, what it was fitted to, and what it keeps."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fitters import END, IDEAL, RING, TASK, VP, walk

import sde_diffusion as sd
from sde_diffusion.tuning import FAMILIES, LOSSES, METHODS, STRATEGIES, report, teach, tune
from sde_diffusion.tuning.family import Family
from sde_diffusion.tuning.fit import Fit
from sde_diffusion.tuning.loss import Loss, endpoint
from sde_diffusion.tuning.measure import measure
from sde_diffusion.tuning.tune import split

pytestmark = pytest.mark.filterwarnings("ignore:the default of sample")


def still(family, denoiser, loss, train, validation, *, state=None, watch=None):
    """Finds nothing."""
    return Fit(family.start, 0.0, 0.0, 1, 0.0)


def wild(family, denoiser, loss, train, validation, *, state=None, watch=None):
    """Finds something worse, and thinks it good."""
    return Fit(family.start + 1.0, 0.0, 0.0, 1, 0.0)


@pytest.fixture(scope="module")
def tuned():
    return tune("ddim", IDEAL, 120, **TASK, method=walk, label="the ring", seed=3)


def test_a_tuned_plan_is_better_on_new_starts_and_in_float32(tuned):
    base = sd.SOLVERS["ddim"](VP, tuned.times)
    for dtype in (torch.float64, torch.float32):
        new = teach(IDEAL, 100, shape=(2,), seed=99, t_end=END, dtype=dtype)
        better, worse = (measure(plan, IDEAL, endpoint(), new) for plan in (tuned, base))
        assert better.median < 0.4 * worse.median
        assert better.rms < 0.5 * worse.rms


@pytest.mark.filterwarnings("ignore:the fit ended")
def test_a_plan_tuned_again_knows_what_it_was_before(tuned):
    task = {**TASK, "nfe": None, "method": walk}
    for method in (walk, wild):
        again = tune(tuned, IDEAL, 24, **{**task, "method": method}, seed=4)
        (before,) = again.origin["before"]
        assert before.items() <= tuned.origin.items()
        assert tuned.origin["about"] in report(again)
    third = tune(again, IDEAL, 24, **task, seed=5)
    assert [one["date"] for one in third.origin["before"]] == [
        plan.origin["date"] for plan in (tuned, again)
    ]
    assert tuned.origin["about"] in report(third)
    assert again.origin["about"] in report(third)


def test_it_knows_how_it_was_made(tuned, tmp_path):
    origin = tuned.origin
    assert (origin["label"], origin["nfe"], origin["free"]) == ("the ring", 4, "scalars")
    usual = 3 * origin["results"]["default"]["validation"]["median"]
    assert (origin["loss"], origin["method"], origin["seed"]) == (
        f"endpoint({usual:g}, 0.02)",
        "walk",
        3,
    )
    assert origin["starts"] == {"train": 90, "validation": 30}
    assert origin["version"] == sd.__version__
    assert origin["fit"]["numbers"] == 3
    assert origin["teacher"]["teacher"] == "exact"
    assert origin["schedule"] == repr(VP)
    assert json.loads(json.dumps(origin)) == origin
    tuned.save(tmp_path / "plan.json")
    again = sd.Plan.load(tmp_path / "plan.json")
    assert again == tuned
    assert again.origin == origin
    assert "Tuned for the ring" in str(again)
    x = sd.sample(IDEAL, (5, 2), solver=tmp_path / "plan.json", seed=0)
    assert torch.equal(x, sd.sample(IDEAL, (5, 2), solver=tuned, seed=0))
    with pytest.raises(ValueError, match="was made for"):
        sd.sample(RING.denoiser(sd.VPCosine()), (5, 2), solver=again)


def test_the_report_says_what_was_measured(tuned):
    pairs = teach(IDEAL, 120, shape=(2,), seed=3, t_end=END)
    train, validation = split(pairs, 0.25)
    plans = {"tuned": tuned, "base": sd.SOLVERS["ddim"](VP, tuned.times)}
    plans["default"] = sd.SOLVERS["angular"](VP, tuned.times)
    for key, plan in plans.items():
        for name, part in (("train", train), ("validation", validation)):
            off = (sd.run(plan, IDEAL, part.starts) - part.ends).norm(dim=1)
            off = off / part.ends.norm(dim=1)
            found = tuned.origin["results"][key][name]
            assert found["median"] == pytest.approx(float(off.median()), rel=1e-9)
            assert found["rms"] == pytest.approx(float(off.square().mean().sqrt()), rel=1e-9)
    text = report(tuned)
    for words in (
        "loss, train (90)",
        "validation (30)",
        "base: ddim",
        "default of sample: angular",
    ):
        assert words in text
    assert "4 calls of the denoiser a sample" in text
    assert "guided denoiser" in text
    with pytest.raises(ValueError, match="was not made by tune"):
        report(plans["base"])


def test_calls_that_are_spared_are_said():
    base = sd.transform.analytic_first_step(
        sd.SOLVERS["ddim"](VP, sd.times.quadratic(VP, 4, t_end=END)), VP
    )
    plan = tune(base, IDEAL, 40, shape=(2,), free="scalars", method=walk, max_iterations=2)
    assert (plan.nfe, plan.origin["nfe"], plan.origin["spared"]) == (3, 3, 1)
    assert "at 1 grid point it is not asked" in report(plan)


def test_the_report_says_how_the_fit_ended_and_whose_the_starts_were(tuned):
    assert "stopped at max_iterations" in report(tuned)
    assert "starts of seed 3" in report(tuned)
    pairs = teach(IDEAL, 40, shape=(2,), t_end=END)
    for starts, reference in ((None, pairs), (40, pairs), (pairs.starts, None)):
        plan = tune("ddim", IDEAL, starts, reference, **TASK, method=walk, max_iterations=1)
        assert "starts given" in report(plan)
        assert "of seed" not in report(plan)


def test_a_churned_plan_is_said_to_start_where_its_state_is():
    grid = [0.9, 0.5, 0.2, END]
    task = {**TASK, "nfe": None, "t_end": None, "free": "scalars", "method": still}
    base = sd.SOLVERS["edm_euler"](VP, grid, s_churn=0.3)
    assert base.times[0] > 0.9
    pairs = replace(teach(IDEAL, 12, shape=(2,), t_end=END), t_start=0.9, origin={})
    with pytest.warns(UserWarning, match="that plan is returned"):
        plan = tune(base, IDEAL, None, pairs, **task, loss="sliced")
    assert plan.origin["t_start"] == 0.9


@pytest.mark.filterwarnings("ignore:the fit ended")
@pytest.mark.parametrize("method", ["gradient", "least_squares", "quasi_newton"])
def test_the_seed_reaches_the_fit(method):
    pairs = teach(IDEAL, 12, shape=(2,), t_end=END)
    task = {**TASK, "nfe": 3, "free": "stochasticity", "loss": "sliced", "method": method}
    seen = {}
    for key, seed in (("one", 1), ("same", 1), ("other", 2)):
        losses = seen[key] = []

        def spy(*args, losses=losses, **kwargs):
            fit = METHODS[method](*args, **kwargs)
            losses.append(fit.train)
            return fit

        functools.update_wrapper(spy, METHODS[method])
        tune("ddim", IDEAL, None, pairs, **{**task, "method": spy}, max_iterations=1, seed=seed)
    assert seen["one"] == seen["same"] != seen["other"]


def test_a_worse_plan_is_never_returned():
    for method in (still, wild):
        with pytest.warns(UserWarning, match="that plan is returned"):
            plan = tune("angular", IDEAL, 40, **TASK, method=method)
        assert plan.equals(sd.SOLVERS["angular"](VP, plan.times))
        assert plan.origin["chosen"] == "base"
        assert "as it was" in report(plan)
        assert "Not bettered" in str(plan)


def test_a_better_default_is_said():
    with pytest.warns(UserWarning, match="the default of sample, angular"):
        plan = tune("ddim", IDEAL, 40, **TASK, method=walk, max_iterations=1)
    assert plan.origin["chosen"] == "tuned"


WAYS = {
    "stochasticity": {"base": "ddim eta=0.5", "loss": "sliced"},
    "alternate": {"max_iterations": 2},
    "bound": {},
    "gits": {},
    "oss": {},
    "churn": {"base": "edm_euler", "loss": "sliced", "max_iterations": 2},
}


@pytest.mark.parametrize("free", sorted({*FAMILIES, *STRATEGIES}))
@pytest.mark.filterwarnings("ignore:the fit ended")
def test_whatever_is_free_the_plan_is_no_worse_and_runs(free, tmp_path):
    """Every way of the package, through the same door, and from a file in float32."""
    task = {"base": "angular", **TASK, "nfe": 3, "validation": 12}
    task |= {"free": free, **WAYS.get(free, {"max_iterations": 2})}
    plan = tune(denoiser=IDEAL, starts=48, tolerance=1e-4, **task)
    results = plan.origin["results"]
    assert results[plan.origin["chosen"]]["validation"]["loss"] <= min(
        results[key]["validation"]["loss"] for key in ("base", "tuned")
    )
    assert plan.nfe <= 3
    plan.save(tmp_path / "plan.json")
    assert torch.isfinite(sd.sample(IDEAL, (8, 2), solver=tmp_path / "plan.json", seed=0)).all()
    assert "validation (12)" in report(plan)


def test_the_page_names_all_there_is():
    page = (Path(sd.__file__).parents[1] / "docs" / "few_steps.md").read_text()
    for name in {*FAMILIES, *STRATEGIES, *LOSSES}:
        assert f'"{name}"' in page
    for name in METHODS:
        assert f"`{name}`" in page


@pytest.mark.parametrize(
    "base",
    [
        "ddim eta=0.0",
        sd.SOLVERS["ddim"],
        lambda schedule, times: sd.SOLVERS["ddim"](schedule, times),
        sd.SOLVERS["ddim"](VP, sd.times.default(VP, 4, t_end=END)),
    ],
)
def test_bases_of_every_kind_are_one(base, tuned):
    task = {**TASK, "nfe": None, "t_end": None} if isinstance(base, sd.Plan) else TASK
    plan = tune(base, IDEAL, 120, **task, method=walk, seed=3)
    assert plan.matrix() == pytest.approx(tuned.matrix())


def test_a_base_on_a_grid_or_from_a_file(tmp_path):
    grid = [1.0, 0.5, 0.2, END]
    plan = sd.SOLVERS["ddim"](VP, grid)
    plan.save(tmp_path / "base.json")
    settings = {"shape": (2,), "free": "scalars", "method": walk, "max_iterations": 2}
    one = tune("ddim", IDEAL, 40, times=grid, **settings)
    two = tune(tmp_path / "base.json", IDEAL, 40, **settings)
    assert one.times == two.times == tuple(grid)
    assert one == two


def test_references_of_every_kind_are_one():
    task = {**TASK, "method": walk, "scale": 0.1, "seed": 3}
    tuned = tune("ddim", IDEAL, 120, **task)
    pairs = teach(IDEAL, 120, shape=(2,), seed=3, t_end=END)
    heun = sd.SOLVERS["heun"](VP, sd.times.quadratic(VP, 50, t_end=END))
    for starts, reference in (
        (None, pairs),
        (pairs.starts, pairs),
        (pairs.starts, pairs.ends),
        (pairs.starts, "dop853"),
        (pairs.starts, heun),
    ):
        plan = tune("ddim", IDEAL, starts, reference, **{**task, "shape": None}, tolerance=1e-4)
        torch.testing.assert_close(plan.matrix(), tuned.matrix(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("own", "states"),
    [
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_states_are_as_fine_as_the_network_and_float32_at_least(own, states):
    seen = set()

    def network(x, t):
        assert x.dtype == own
        return 0.5 * x

    def first(states, times, pairs):
        seen.add(states.dtype)
        return (states[-1] - pairs.ends)[:, :1]

    denoiser = sd.NetworkDenoiser(network, VP, prediction="noise", dtype=own)
    task = {**TASK, "reference": "dopri5", "tolerance": 1e-2, "method": walk, "max_iterations": 1}
    tune("ddim", denoiser, 8, **task, loss=Loss("first", first))
    assert seen == {states}


def test_a_loss_and_a_family_of_ones_own():
    """One number, all outputs scaled by it; the first coordinate of the end alone."""
    seen = []

    def scaled(base):
        def build(numbers):
            trace = sd.Trace(base.times[0])
            x = trace.x
            for t, s in zip(base.times, base.times[1:], strict=False):
                (alpha_t, sigma_t), (alpha_s, sigma_s) = VP(t), VP(s)
                x, d = trace.denoise(x, t)
                x = alpha_s * numbers[0] * d + sigma_s / sigma_t * (x - alpha_t * d)
            return trace.end(x, base.times[-1])

        return Family("scaled", build, torch.ones(1, dtype=torch.float64), ("scale",))

    def first(states, times, pairs):
        seen.append((len(states), len(times), times[-1].item()))
        return (states[-1] - pairs.ends)[:, :1]

    loss = Loss("first", first, 0.1)
    plan = tune("ddim", IDEAL, 40, **{**TASK, "free": scaled}, loss=loss, method=walk)
    assert (plan.origin["free"], plan.origin["loss"]) == ("scaled", "first(0.1)")
    assert set(seen) == {(5, 5, END)}


def test_train_and_validation_starts_are_apart():
    pairs = teach(IDEAL, 10, shape=(2,), t_end=END)
    for validation, held in ((0.3, 3), (4, 4)):
        train, rest = split(pairs, validation)
        assert (len(train), len(rest)) == (10 - held, held)
        assert torch.equal(torch.cat([train.starts, rest.starts]), pairs.starts)
        assert torch.equal(torch.cat([train.ends, rest.ends]), pairs.ends)
    for wrong in (0, 0.0, 10, 1.5, -1, 0.01, True, "half"):
        with pytest.raises(ValueError, match="at least one start on either side"):
            split(pairs, wrong)


def test_inference_mode_around_it_changes_nothing():
    task = {**TASK, "free": "scalars", "max_iterations": 2}
    with torch.inference_mode():
        inside = tune("ddim", IDEAL, 60, **task)
    assert inside == tune("ddim", IDEAL, 60, **task)
