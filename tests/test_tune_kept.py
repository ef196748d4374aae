"""What `tune` keeps in a folder, and of a fit that ends early."""

import pytest
import torch
from fitters import END, IDEAL, TASK, VP, walk

import sde_diffusion as sd
from sde_diffusion.tuning import teach, tune

pytestmark = pytest.mark.filterwarnings("ignore:the default of sample")


class Stopping(sd.Denoiser):
    """The ideal denoiser, until it was asked so often."""

    schedule = VP

    def __init__(self, stop):
        self.stop, self.calls = stop, 0

    def __call__(self, x, t):
        self.calls += 1
        if self.calls > self.stop:
            raise KeyboardInterrupt
        return IDEAL(x, t)


@pytest.mark.parametrize(
    "way",
    [
        {"method": walk},
        {"free": "coefficients", "max_iterations": 5},
        {"free": "table", "nfe": 2, "max_iterations": 2},
        {"free": "knots", "method": "gradient", "max_iterations": 20, "batch": 16},
    ],
    ids=["scalars", "coefficients", "table", "knots"],
)
def test_a_stopped_fit_goes_on(tmp_path, way):
    """Wherever it is stopped, the result is to the bit what it would have been."""
    task = {**TASK, "label": "ring", "reference": "dopri5", "tolerance": 1e-3, **way}
    counting = Stopping(10**9)
    whole = tune("ddim", counting, 40, **task)
    stops = 0
    plan = None
    while plan is None:
        stopping = Stopping(counting.calls // 2)
        try:
            plan = tune("ddim", stopping, 40, **task, folder=tmp_path)
        except KeyboardInterrupt as stop:
            stops += 1
            assert stops < 10
            last = "".join(getattr(stop, "__notes__", []))
    assert stops
    assert "goes on from here" in last
    assert plan == whole
    first = plan.origin["fit"]["seconds"]
    again = tune("ddim", IDEAL, 40, **task, folder=tmp_path)
    assert again == whole
    assert again.origin["fit"]["seconds"] > first / 2  # what it took before is counted


def test_what_is_lost_without_a_folder_is_said():
    with pytest.raises(KeyboardInterrupt) as stop:
        tune(
            "ddim",
            Stopping(100),
            torch.ones(12, 2),
            torch.ones(12, 2),
            **{**TASK, "shape": None},
            method=walk,
        )
    assert "give tune a folder=" in "".join(stop.value.__notes__)


def test_the_best_until_then_is_kept_where_a_fit_leaves_the_numbers():
    with pytest.warns(UserWarning, match="no number.* is kept"):
        plan = tune("ddim", IDEAL, 60, **TASK, method=walk, fail=3)
    short = tune("ddim", IDEAL, 60, **TASK, method=walk, max_iterations=3)
    torch.testing.assert_close(plan.matrix(), short.matrix())
    assert plan.origin["fit"]["stopped"].startswith("not finite")
    with pytest.raises(FloatingPointError, match="no number"):
        tune("ddim", IDEAL, 60, **TASK, method=walk, fail=0)


def test_another_network_in_the_folder_is_noticed(tmp_path):
    pairs = teach(IDEAL, 40, shape=(2,), t_end=END)
    settings = {**TASK, "shape": None, "method": walk, "folder": tmp_path, "max_iterations": 2}
    tune("ddim", IDEAL, None, pairs, **settings, label="mine")
    other = sd.FunctionDenoiser(lambda x, t: 0.9 * IDEAL(x, t), VP)
    with pytest.raises(ValueError, match="another network, also under the label 'mine'"):
        tune("ddim", other, None, pairs, **settings, label="mine")
