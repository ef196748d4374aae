"""The configurations to begin with run, and the list has all that one can name."""

import pytest
from PIL import Image

from sde_diffusion.cli import main
from sde_diffusion.commands.train import EXAMPLES
from sde_diffusion.networks import NETWORKS
from sde_diffusion.schedule_names import SCHEDULES
from sde_diffusion.training import LAWS, WEIGHTINGS
from sde_diffusion.training.objectives import IMPORTANCES
from sde_diffusion.training.sources import SOURCES


def test_the_list_has_all_that_a_configuration_can_name(capsys):
    assert main(["list", "training"]) == 0
    shown = capsys.readouterr().out
    kinds = {*SOURCES, *NETWORKS, *SCHEDULES, *WEIGHTINGS, *LAWS, *IMPORTANCES}
    assert kinds <= {line.split()[0] for line in shown.splitlines() if line}
    assert "beta_max" in shown


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(tmp_path, monkeypatch, name, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--example", name]) == 0
    text = capsys.readouterr().out
    (tmp_path / f"{name}.toml").write_text(text)
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.new("RGB", (70, 80), (80 * i, 0, 0)).save(tmp_path / "pictures" / f"{i}.png")
    batch = 64 if name == "digits" else 2
    small = {"training.batch_size": batch, "samples.steps": 2, "samples.n": 2, "network.width": 8}
    settings = [f"--set={key}={value}" for key, value in small.items()]
    assert main(["train", f"{name}.toml", "--steps", "2", *settings]) == 0
    assert main(["sample", name, "--n", "2", "--steps", "2"]) == 0
