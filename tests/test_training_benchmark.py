"""The benchmark of training: its smallest form from end to end, and what its figures rest on."""

import json
from dataclasses import replace

import pytest
import torch

import sde_diffusion as sd
from benchmarks.training.__main__ import measure_all, write
from benchmarks.training.measure import cell, digits, train, trainer_of
from benchmarks.training.overhead import denoiser_of, loss
from benchmarks.training.recipes import RECIPES, SEED
from benchmarks.training.sizes import Sizes
from sde_diffusion.networks import ResidualMLP
from sde_diffusion.training import Batch, DiffusionObjective

SIZES = Sizes(
    steps=(1, 3),
    images=12,
    sampling_steps=4,
    chosen=12,
    levels=6,
    points=2,
    flow=3,
    flow_steps=4,
    probes=2,
    overhead=4,
    network={"width": 4, "multipliers": [1]},
)
OTHERS = [recipe for recipe in RECIPES if "schedule" in recipe.name or recipe is RECIPES[0]]
SEEDS = [recipe for recipe in RECIPES if recipe.group == SEED]


def weights_of(folder):
    return dict(sd.load_denoiser(folder).network.named_parameters())


@pytest.mark.parametrize("recipe", OTHERS, ids=lambda recipe: recipe.folder)
def test_a_length_of_training_does_not_depend_on_those_measured_before_it(recipe, tmp_path):
    """To the bit: so the points of a curve are of one run, and of the run of each length."""
    for steps in (1, 2, 5):
        train(recipe, steps, SIZES, tmp_path / "in parts")
    train(recipe, 5, SIZES, tmp_path / "at once")
    parts, whole = (weights_of(tmp_path / name / recipe.folder) for name in ("in parts", "at once"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_all_of_it_writes_its_files_and_goes_on_from_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.training.overhead.ROUNDS", 1)
    found = measure_all(SIZES, tmp_path, OTHERS + SEEDS)
    paths = write(found, tmp_path / "out")
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(found))
    assert list(found["cells"]) == [recipe.name for recipe in OTHERS + SEEDS]
    for cells in found["cells"].values():
        assert list(cells) == ["1", "3"]
        assert cells["3"]["processor seconds"] > cells["1"]["processor seconds"]
        assert cells["3"]["flow"]["mean"] > 0
    assert found["seeds"]["3"]["runs"] == 3
    assert str(tmp_path) not in paths[1].read_text()
    assert paths[2].stat().st_size > 10_000

    monkeypatch.setattr("benchmarks.training.measure.train", None)  # nothing is trained again
    for recipe in OTHERS:
        assert cell(recipe, 3, SIZES, tmp_path) == found["cells"][recipe.name]["3"]
    with pytest.raises(TypeError):
        cell(RECIPES[0], 3, replace(SIZES, points=3), tmp_path)


def test_recipes_differ_in_one_thing_each():
    """In one table, or in the process: schedule, prediction and the times that go with it."""
    base = RECIPES[0].configuration(1).tables()
    seen = []
    for recipe in RECIPES:
        tables = recipe.configuration(1).tables()
        differ = {name for name in base if tables[name] != base[name]}
        assert trainer_of(recipe, 1, SIZES, None).options.steps == 1  # it is one that can be run
        seen.append(json.dumps(tables, sort_keys=True))
        assert differ <= {"schedule", "model", "objective"} or differ == {"network", "training"}
    assert len(set(seen)) == len(RECIPES)


def test_the_bare_loop_minimises_the_loss_of_the_trainer():
    """At the same batch, times and noise."""
    generator = torch.Generator().manual_seed(0)
    x_0 = digits("train", labels=False).x[:32]
    eps = torch.randn(x_0.shape, generator=generator)
    t = torch.rand(len(x_0), generator=generator)
    network = ResidualMLP((1, 8, 8), width=16, depth=1)
    with torch.no_grad():
        for weights in network.parameters():  # the last layer is 0 when new
            weights.add_(0.05 * torch.randn(weights.shape, generator=generator))
        ours = DiffusionObjective(denoiser_of(network)).at(Batch(x_0, None), t.double(), eps)
        assert loss(network, x_0, t, eps) == pytest.approx(ours.loss.mean().item(), rel=1e-5)
