"""The command line, as a user meets it: in a process of its own, and by its errors."""

import subprocess
import sys

import pytest

import sde_diffusion as sd
from sde_diffusion.cli import main

MODEL = """
import sde_diffusion as sd
denoiser = sd.problems.ring().denoiser(sd.VPLinear())
def make():
    return denoiser
network = lambda x, t: x
number = 3
def mine(schedule, times, eta=0.0):
    return sd.SOLVERS["ddim"](schedule, times, eta=eta)
"""
COMPARE = ["compare", "--shape", "2", "--nfe", "4,6", "--n", "4", "--grids", "quadratic"]
COMPARE += ["--solvers", "heun,ddim eta=0.0"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "broken.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_model", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_compare_in_a_process_of_its_own(folder):
    command = [sys.executable, "-m", "sde_diffusion", *COMPARE, "--model", "my_model:denoiser"]
    done = subprocess.run([*command, "--out", "found"], capture_output=True, text=True, check=True)
    assert "ddim @ quadratic" in done.stdout
    assert "found/report.html" in done.stdout.replace("\\", "/")
    assert (folder / "found" / "report.html").exists()
    assert (folder / "found" / "results.csv").read_text().count("\n") == 1 + 3 * 2


def test_a_function_that_returns_a_denoiser(folder, capsys):
    assert main([*COMPARE, "--model", "my_model:make"]) == 0
    assert "comparison" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("my_model", "is no checkpoint"),
        ("runs/last.safetensor", "for an object write module:attribute"),
        ("my_modl:denoiser", "no module 'my_modl'"),
        ("my_model:denoise", "did you mean 'denoiser'"),
        ("my_model:number", "is no Denoiser but int"),
        ("my_model:network", "is no Denoiser but function"),
        ("broken:denoiser", "No module named 'no_such_package'"),
    ],
)
def test_models_that_cannot_be_loaded(folder, capsys, model, message):
    assert main([*COMPARE, "--model", model]) == 1
    assert message in capsys.readouterr().err


def test_errors_of_the_arguments(folder, capsys):
    assert main([*COMPARE, "--model", "my_model:denoiser", "--t-end", "3"]) == 1
    assert "lies outside" in capsys.readouterr().err
    for wrong, said in (
        (["--n", "0"], "n = 0 must be an integer of at least 1"),
        (["--device", "tpu"], "as --device cpu or cuda"),
        (["--out", "my_model.py"], "is a file: give a folder"),
        (["--solvers", ""], "no solver to compare"),
        (["--solvers", "gotta_go_fast"], "no plan, and only plans are certified, compared"),
    ):
        assert main([*COMPARE, "--model", "my_model:denoiser", *wrong]) == 1
        assert said in capsys.readouterr().err
    for wrong in (["--nfe", "five"], ["--nfe", "0"], ["--shape", "2.5"]):
        with pytest.raises(SystemExit):
            main([*COMPARE, "--model", "my_model:denoiser", *wrong])
        assert "whole numbers" in capsys.readouterr().err.replace("at least 1", "whole numbers")


def test_a_stopped_run_says_how_to_go_on(folder, capsys, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sd.problems.ring().denoiser(sd.VPLinear()).__class__, "__call__", stop)
    assert main([*COMPARE, "--model", "my_model:denoiser"]) == 130
    assert "the same command goes on" in capsys.readouterr().out


def test_the_list_has_every_solver_and_grid(capsys):
    assert main(["list"]) == 0
    words = capsys.readouterr().out.split()
    samplers = {*sd.SOLVERS, *sd.adaptive.ADAPTIVE, *sd.langevin.LANGEVIN}
    assert {*samplers, *sd.times.GRIDS} <= set(words)
    assert all(set(name.split()) <= set(words) for name in sd.PRESETS)
    assert main(["list", "grids"]) == 0
    assert "dpm_solver_1" not in capsys.readouterr().out


def test_certify_a_solver_of_the_package_or_of_ones_own(folder, capsys):
    """One's own has the certificate of the solver that it is, but for its name and paper."""
    assert main(["certify", "ddim", "--option", "eta=0.0"]) == 0
    theirs = capsys.readouterr().out
    assert theirs.strip() == _untimed(str(sd.certify("ddim", eta=0.0)), theirs)
    assert main(["certify", "my_model:mine"]) == 0
    mine = capsys.readouterr().out
    assert "mine" in mine
    assert "None" not in mine
    assert main(["certify", "azula DDIM"]) == 0
    assert capsys.readouterr().out.startswith("azula DDIM()")


def _untimed(text, like):
    """A certificate with the lines that tell seconds taken from another one."""
    pairs = zip(text.splitlines(), like.strip().splitlines(), strict=True)
    return "\n".join(other if " s" in line else line for line, other in pairs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ddmi"], "unknown solver 'ddmi'"),
        (["dpmpp_2m"], "did you mean 'k-diffusion dpmpp_2m Karras'"),
        (["per_sample_ode"], "it is no plan"),
        (["--table", "nowhere/table.md"], "there is no folder nowhere"),
        (["ddim", "--option", "ets=1"], "did you mean 'eta'"),
        (["--option", "eta=1"], "belongs to one solver"),
        (["my_model:number"], "is no function to a Plan but int"),
    ],
)
def test_certify_refuses(folder, capsys, arguments, message):
    assert main(["certify", *arguments]) == 1
    assert message in capsys.readouterr().err
