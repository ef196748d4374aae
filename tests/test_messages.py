"""Wrong arguments that are easily given: the message names the value and the cure."""

import subprocess
import sys

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.cli import main
from sde_diffusion.problems import ring

VP = sd.VPLinear()
GRID = sd.times.uniform(VP, 10)


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda: sd.certify("ddim", claim=3), TypeError, r"claim = 3: give a Claim"),
        (lambda: sd.certify("default"), ValueError, "default_plan"),
        (lambda: sd.certify("dpmpp2m"), ValueError, "did you mean .*'dpm_solver_pp_2m'"),
        (lambda: sd.SOLVERS["ddim"](VP, GRID, eta=torch.ones(10, 2)), ValueError, r"\(10, 2\)"),
        (lambda: sd.BrownianPath(3), TypeError, "seeds = 3: give one seed for each sample"),
    ],
)
def test_the_message_says_what_to_give(wrong, error, match):
    with pytest.raises(error, match=match):
        wrong()


def test_one_number_stands_for_a_list_of_one():
    ask = {"solvers": ["ddim eta=0.0"], "grids": ["uniform"], "n": 2}
    one, many = (sd.compare(ring().denoiser(VP), s, nfe=k, **ask) for s, k in ((2, 5), ((2,), [5])))
    assert one.cells[0].rms == many.cells[0].rms


def test_a_denoiser_is_not_certified(tmp_path, monkeypatch, capsys):
    text = "import sde_diffusion as sd\nden = sd.problems.ring().denoiser(sd.VPLinear())\n"
    (tmp_path / "held_denoiser.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["certify", "held_denoiser:den"]) == 1
    assert "compare --model held_denoiser:den" in capsys.readouterr().err


def test_a_reader_that_goes_away_ends_it_quietly():
    command = [sys.executable, "-m", "sde_diffusion", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
