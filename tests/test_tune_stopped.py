"""What is left of a fit that is stopped: the best plan so far, and where to go on."""

import warnings
from functools import cache

import pytest
import torch
from fitters import END, IDEAL, TASK, VP

import sde_diffusion as sd
from sde_diffusion.progress import Progress as Telling
from sde_diffusion.tuning import FAMILIES, METHODS, STRATEGIES, teach, tune
from sde_diffusion.tuning.base import Base
from sde_diffusion.tuning.fit import Progress
from sde_diffusion.tuning.gradient import gradient
from sde_diffusion.tuning.loss import endpoint, robust
from sde_diffusion.tuning.measure import measure
from sde_diffusion.tuning.restarts import restarts
from sde_diffusion.tuning.resume import Keeper
from sde_diffusion.tuning.table import table

NAN, ERROR = "NaN", RuntimeError("out of memory")
IN_ONE_GO = {"bound", "gits", "oss"}  # strategies without iterations
BRIEF = {
    "gradient": {"max_iterations": 8, "batch": 16, "every": 1},
    "quasi_newton": {"max_iterations": 4},
    "least_squares": {"max_iterations": 4},
    "table": {"max_iterations": 2, "nfe": 1},
    "alternate": {"max_iterations": 2, "turns": 2, "nfe": 1},
}


class Failing(sd.Denoiser):
    """The ideal denoiser for so many calls."""

    schedule = VP

    def __init__(self, calls=10**9, how=NAN):
        self.left, self.how, self.calls = calls, how, 0

    def __call__(self, x, t):
        self.calls += 1
        if self.calls <= self.left:
            return IDEAL(x, t)
        if self.how == NAN:
            return x * torch.nan
        raise self.how


@cache
def pairs(path=False):
    times = {"times": [1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, END]} if path else {"t_end": END}
    return teach(IDEAL, 32, shape=(2,), seed=3, **times)


def tuned(denoiser, free, method=None, folder=None, **options):
    brief = {} if free in IN_ONE_GO else BRIEF.get(method or free, BRIEF["least_squares"])
    task = {**TASK, "shape": None, "nfe": 2, "free": free, "method": method, **brief, **options}
    return tune("ddim", denoiser, None, pairs(free in IN_ONE_GO), **task, folder=folder, label="a")


WAYS = [(name, None) for name in STRATEGIES]
WAYS += [(name, None) for name in FAMILIES if name not in (*STRATEGIES, "churn", "stochasticity")]
WAYS += [("scalars", method) for method in METHODS]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("free", "method"), WAYS, ids=str)
def test_the_best_plan_so_far_is_kept_and_said_and_the_fit_goes_on(free, method, tmp_path):
    """By NaN, an error of the network's, or Ctrl-C; then to the same plan, bit for bit."""
    counting = Failing()
    whole = tuned(counting, free, method)
    after = counting.calls - (4 if free in IN_ONE_GO else counting.calls // 4)
    for how, kind in (
        (NAN, FloatingPointError),
        (FloatingPointError("overflow"), FloatingPointError),
        (ERROR, RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        folder = tmp_path / kind.__name__ / str(how == NAN)
        with pytest.raises(kind) as stop:
            tuned(Failing(after, how), free, method, folder)
        said = " ".join(stop.value.__notes__)
        assert "The same call goes on" in said
        if free not in IN_ONE_GO:
            (file,) = folder.rglob("*.best.json")
            assert str(file) in said
            best = sd.Plan.load(file)
            assert best == stop.value.plan
            assert "not its end" in str(best)
            held = pairs().part(24)
            base = sd.SOLVERS["ddim"](VP, sd.times.default(VP, best.nfe, t_end=END))
            errors = [measure(plan, IDEAL, endpoint(), held).loss for plan in (best, base)]
            assert errors[0] < errors[1]
        assert tuned(Failing(), free, method, folder) == whole
        assert not list(folder.rglob("*.best.json"))


def test_without_an_iteration_and_without_paths_that_is_said(tmp_path):
    for folder, words in ((None, "give tune a folder="), (tmp_path, "begins the fit anew")):
        with pytest.raises(KeyboardInterrupt) as stop:
            tuned(Failing(17, KeyboardInterrupt()), "gits", None, folder)
        assert words in " ".join(stop.value.__notes__)
        assert "teacher's paths" not in " ".join(stop.value.__notes__)  # ends were given
        assert not hasattr(stop.value, "plan")
    task = {**TASK, "reference": "dopri5", "chunk": 4}
    for folder, words in ((None, "paths so far are lost"), (tmp_path, "goes on after what")):
        with pytest.raises(KeyboardInterrupt) as stop:
            tune("ddim", Failing(150, KeyboardInterrupt()), 32, **task, folder=folder)
        assert words in " ".join(stop.value.__notes__)


@pytest.mark.filterwarnings("ignore:the default of sample")
def test_a_fit_goes_on_without_the_file_of_its_best_plan(tmp_path):
    """That file was altered, or is gone; it is only for people."""
    counting = Failing()
    whole = tuned(counting, "knots")
    for spoil in (lambda file: file.write_text("{}"), lambda file: file.unlink()):
        folder = tmp_path / str(spoil)
        with pytest.raises(KeyboardInterrupt):
            tuned(Failing(counting.calls * 3 // 4, KeyboardInterrupt()), "knots", None, folder)
        spoil(*folder.rglob("*.best.json"))
        assert tuned(Failing(), "knots", None, folder) == whole


@pytest.mark.filterwarnings("ignore:the default of sample")
def test_the_best_plan_is_not_lost_where_it_cannot_be_saved(tmp_path):
    """A file lies where the folder of the fit is to be: that is said, too, and no file promised."""

    class Blocked(Failing):
        def __call__(self, x, t):
            if self.calls == self.left:
                (tmp_path / "fits").write_text("")
            return super().__call__(x, t)

    counting = Failing()
    tuned(counting, "scalars")
    with pytest.raises(KeyboardInterrupt) as stop:
        tuned(Blocked(counting.calls * 3 // 4, KeyboardInterrupt()), "scalars", None, tmp_path)
    said = " ".join(stop.value.__notes__)
    assert "could not be saved" in said
    assert "lies in" not in said
    assert stop.value.plan.nfe == 2


@pytest.mark.filterwarnings("ignore:the default of sample")
def test_a_network_that_fails_once_costs_only_what_was_to_come():
    """The plan found until then is returned, with a warning and no contradiction."""

    class Once(Failing):
        def __call__(self, x, t):
            d = super().__call__(x, t)
            self.left = 10**9 if self.calls > self.left else self.left
            return d

    counting, early = Failing(), 0
    tuned(counting, "knots")
    for after in range(counting.calls // 2, counting.calls // 2 + 12):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            plan = tuned(Once(after), "knots")
        assert {w.filename for w in found} == {__file__}
        said = [str(w.message) for w in found if "default of sample" not in str(w.message)]
        stopped = plan.origin["fit"]["stopped"]
        assert plan.origin["chosen"] == "tuned"
        assert len(said) == (stopped == "not finite")
        assert all("is kept; look at what the network answers" in words for words in said)
        early += stopped == "not finite"
    assert 0 < early < 12  # a step that fails is one that is not taken


def test_the_best_plan_is_on_disk_before_the_state_that_speaks_of_it(tmp_path):
    """The state cannot be written, because a folder lies in its place."""
    file, plan_file = tmp_path / "fit.npz", tmp_path / "fit.best.json"
    file.mkdir()
    family = table(sd.SOLVERS["ddim"](VP, [1.0, 0.3, END]), VP)
    keeper = Keeper(file, torch.zeros(1), "a", Telling(0), family, plan_file)
    keeper(Progress(1, family.start, 1.0, 1.0, {"done": 1}))
    with pytest.raises(OSError):
        keeper.save()
    assert sd.Plan.load(plan_file) == keeper.best.plan


def test_losses_of_two_rounds_are_not_compared(capsys):
    """A table is fitted with the mean square first: its best is of the last loss."""
    train, held = pairs().part(0, 24), pairs().part(24)
    plan = sd.SOLVERS["ddim"](VP, [1.0, 0.3, END])
    seen, loss = [], robust(measure(plan, IDEAL, endpoint(), held))
    keeper = Keeper(None, torch.zeros(1), "a", Telling(0))

    def watch(progress):
        keeper(progress)
        seen.append((progress.unit, progress.validation))

    base = Base(plan, VP, plan.times)
    restarts(base, IDEAL, loss, train, held, watch=watch, max_iterations=3)
    units = list(dict.fromkeys(unit for unit, _ in seen))
    assert len(units) == 2
    assert "the mean square, on 8 starts" in units[0]
    best = [min(v for u, v in seen if u == unit) for unit in units]
    assert best[0] < best[1]  # by their numbers alone the first would win
    assert (keeper.best.loss, keeper.best.unit) == (best[1], units[1])
    assert measure(keeper.best.plan, IDEAL, loss, held).loss == pytest.approx(best[1])
    telling = Telling(0)
    telling._told -= 10.0
    Keeper(None, torch.zeros(1), "a", telling)(Progress(3, torch.zeros(1), 1.0, 2.0, unit="metres"))
    assert "on validation 2 (metres)" in capsys.readouterr().err


def test_descent_tells_the_validation_loss_only_of_the_numbers_that_have_it():
    seen = []
    family = table(sd.SOLVERS["ddim"](VP, [1.0, 0.3, END]), VP)
    train, held = pairs().part(0, 24), pairs().part(24)
    gradient(family, IDEAL, endpoint(), train, held, max_iterations=4, every=2, watch=seen.append)
    for progress in seen:
        here = measure(family.plan(progress.numbers), IDEAL, endpoint(), held).loss
        looked = progress.iteration % 2 == 0
        assert progress.validation == pytest.approx(here) if looked else progress.validation != here
