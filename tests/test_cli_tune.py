"""sde-diffusion tune, as a user meets it."""

import sys

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.cli import main
from sde_diffusion.tuning import report

MODEL = """
import sde_diffusion as sd
ring = sd.problems.ring().denoiser(sd.VPLinear())

class Stopping(sd.Denoiser):
    schedule, calls, stop = ring.schedule, 0, 10**9

    def __call__(self, x, t):
        type(self).calls += 1
        if type(self).calls > type(self).stop:
            raise KeyboardInterrupt
        return ring(x, t)

denoiser = Stopping()
network = lambda x, t: x
"""
TUNE = ["tune", "--model", "my_model:denoiser", "--shape", "2", "--nfe", "4", "--base", "ddim"]
TUNE += ["--free", "scalars", "--starts", "60", "--t-end", "0.001", "--out", "plan.json"]
TUNE += ["--option", "max_iterations=3", "--teacher-tolerance", "1e-4"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    return tmp_path


def test_tune_writes_a_plan_and_says_how_to_use_it(folder, capsys):
    assert main(TUNE) == 0
    out = capsys.readouterr().out
    plan = sd.Plan.load(folder / "plan.json")
    assert plan.nfe == 4
    assert plan.origin["label"] == "my_model:denoiser"
    assert report(plan) in out
    assert 'sample(denoiser, (16, 2), solver="plan.json")' in out
    results = plan.origin["results"]
    assert results["tuned"]["validation"]["median"] < results["base"]["validation"]["median"]
    ring = sd.problems.ring().denoiser(sd.VPLinear())
    assert torch.isfinite(sd.sample(ring, (16, 2), solver=folder / "plan.json")).all()


def test_a_stopped_run_goes_on(folder, capsys):
    assert main(TUNE) == 0
    model = sys.modules["my_model"]
    expected, every = sd.Plan.load("plan.json"), model.Stopping.calls
    other = [*TUNE, "--out", "other.json"]
    for stop in (every // 2, every - 5):
        model.Stopping.calls, model.Stopping.stop = 0, stop
        assert main(other) == 130
        told = capsys.readouterr().out
        assert "the same command goes on" in told
        assert told.endswith(".\n")
        assert not (folder / "other.json").exists()
        assert model.Stopping.calls > 10
    (best,) = (folder / "other.tuning").rglob("*.best.json")
    assert f"It lies in {best.relative_to(folder)}" in told
    model.Stopping.calls, model.Stopping.stop = 0, 10**9
    assert main(other) == 0
    assert model.Stopping.calls < every / 2
    torch.testing.assert_close(sd.Plan.load("other.json").matrix(), expected.matrix())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "my_model:network"], "is no Denoiser"),
        (["--out", "no/plan.json"], "there is no folder no"),
        (["--out", "plan.txt"], "ends in .json"),
        (["--base", "dimm"], "did you mean 'ddim'"),
        (["--base", "none.json"], "there is no such file"),
        (["--option", "max_iterations=abc"], "an integer"),
        (["--option", "tolerance=1e-4"], "--teacher-tolerance"),
        (["--option", "chunk=64"], "--chunk"),
        (["--option", "seed=3"], "--seed"),
        (["--option", "nope=1"], "Known: ftol, max_iterations, noise, probes\n"),
        (["--device", "cudaa"], "--device cudaa"),
        (["--free", "scalar"], "did you mean 'scalars'"),
        (["--loss", "endpiont"], "did you mean 'endpoint'"),
        (["--method", "least_square"], "did you mean 'least_squares'"),
        (["--option", "max_iteration=3"], "did you mean 'max_iterations'"),
        (["--teacher", "dop83"], "did you mean 'dop853'"),
        (["--starts", "3"], "free numbers"),
        (["--validation", "1.5"], "at least one start on either side"),
        (["--validation", "58"], "2 train starts for 3 free numbers"),
        (["--t-end", "3"], "lies outside"),
    ],
)
def test_errors_of_the_arguments(folder, capsys, arguments, message):
    assert main([*TUNE, *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "plan.json").exists()


def test_the_help_names_what_there_is(capsys):
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "scalars" in told
    assert "least_squares" in told
