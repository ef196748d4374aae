"""sde-diffusion train and sample, as a user meets them: in processes of their own, by files."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import sde_diffusion as sd
from sde_diffusion.cli import main
from sde_diffusion.networks import UNet
from sde_diffusion.training import latest, load_model
from sde_diffusion.weights import TRAINING, read_file

QUIET = {"tensorboard": False}
TABLES = {
    "data": {"kind": "digits"},
    "held_out": {"kind": "digits", "part": "held_out"},
    "network": {"kind": "unet", "width": 8, "multipliers": [1], "blocks": 1, "classes": 10},
    "schedule": {"kind": "vp_cosine"},
    "model": {"prediction": "velocity"},
    "objective": {"drop": 0.1},
    "training": {"steps": 4, "batch_size": 16, "checkpoint_every": 2, "evaluate_every": 4} | QUIET,
    "samples": {"n": 4, "steps": 2},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(TABLES)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of one finished run, not to be changed."""
    place = tmp_path_factory.mktemp("trained")
    (place / "run.json").write_text(json.dumps(TABLES))
    assert main(["train", str(place / "run.json")]) == 0
    return place / "run"


def write(tables, name="run.json", **changes):
    merged = {**tables, **{key: {**tables.get(key, {}), **c} for key, c in changes.items()}}
    with open(name, "w") as file:
        json.dump(merged, file)


def test_train_and_sample(folder, capsys):
    assert main(["train", "run.json"]) == 0
    out = capsys.readouterr().out
    assert "step 4, loss" in out
    assert "sde-diffusion sample run" in out
    picture = Image.open(folder / "run" / "samples" / "step-000000004.png")
    assert min(picture.size) >= 16
    ask = ["sample", "run", "--n", "5", "--steps", "2", "--out", "x.npz"]
    assert main(ask) == 0
    with np.load("x.npz") as found:
        assert found["samples"].shape == (5, 1, 8, 8)
        assert found["labels"].tolist() == [0, 1, 2, 3, 4]


def test_the_checkpoint_alone_makes_the_model_again(trained):
    """The samples of the command are those of `sample` with the averaged weights."""
    out = trained.parent / "x.npz"
    ask = ["--n", "3", "--steps", "3", "--solver", "ddim eta=0.5", "--class", "7", "--seed", "5"]
    assert main(["sample", str(trained), *ask, "--out", str(out), "--average", "0.05"]) == 0
    denoiser = sd.load_denoiser(trained, 0.05)
    seeds = [(5 << 32) + i for i in range(3)]
    x = sd.sample(
        denoiser.given(torch.full((3,), 7)),
        (3, 1, 8, 8),
        solver="ddim",
        eta=0.5,
        steps=3,
        seed=seeds,
    )
    torch.testing.assert_close(torch.from_numpy(np.load(out)["samples"]), x)
    tensors, header = read_file(latest(trained), TRAINING)
    weights = denoiser.network.state_dict()
    which = header["averages"].index("sigma_rel 0.05")
    assert torch.equal(weights["enter.weight"], tensors[f"average.{which}.network.enter.weight"])
    assert not torch.equal(
        weights["enter.weight"], load_model(trained).denoiser.network.enter.weight
    )


def test_a_network_within_another_objective_is_found_again(folder):
    write(TABLES, objective={"uncertainty": {"size": 8}, "importance": None})
    assert main(["train", "run.json"]) == 0
    loaded = load_model(folder / "run", 0.05).denoiser.network
    tensors, _ = read_file(latest(folder / "run"), TRAINING)
    name = "average.1.objective.network.enter.weight"
    assert torch.equal(loaded.enter.weight, tensors[name])
    assert main(["sample", "run", "--n", "2", "--steps", "2"]) == 0


def test_a_learned_schedule_comes_with_the_checkpoint(folder):
    """What is sampled with is the schedule as trained, not as it was when new."""
    learned = {"schedule": {"kind": "learned", "width": 4}, "model": {"prediction": "noise"}}
    objective = {"weighting": "likelihood", "schedule_learning_rate": 0.1}
    write({**TABLES, **learned}, objective=objective)
    assert main(["train", "run.json"]) == 0
    tensors, _ = read_file(latest(folder / "run"), TRAINING)
    schedule = sd.LearnedSchedule(width=4)
    new = schedule.frozen()
    names = {name: f"average.0.schedule.{name}" for name in "acwm"}
    schedule.load_state_dict({name: tensors[key] for name, key in names.items()}, strict=False)
    assert sd.load_denoiser(folder / "run").schedule == schedule.frozen() != new
    assert main(["sample", "run", "--n", "2", "--steps", "2"]) == 0


@pytest.mark.parametrize("shape", [(4,), (4, 8, 8), (2, 8, 8)], ids=str)
def test_what_has_no_picture_is_trained_too(folder, shape, capsys):
    """Vectors, latents, images of another number of channels: said once, then trained."""
    np.save("x.npy", np.random.default_rng(0).standard_normal((20, *shape)).astype(np.float32))
    tables = {name: TABLES[name] for name in ("schedule", "training", "samples")}
    network = {"kind": "mlp", "width": 8, "depth": 1}
    write({**tables, "data": {"kind": "numpy", "path": "x.npy"}, "network": network})
    assert main(["train", "run.json"]) == 0
    told = capsys.readouterr()
    assert told.err.count(f"no pictures are drawn as it goes: samples of shape {shape} are") == 1
    assert "sde-diffusion sample run --out samples.npz" in told.out
    assert not (folder / "run" / "samples").exists()
    assert main(["sample", "run", "--n", "3", "--steps", "2", "--out", "made.npz"]) == 0
    assert np.load("made.npz")["samples"].shape == (3, *shape)
    for out in ("made.png", "made"):
        assert main(["sample", "run", "--out", out]) == 1
        assert f"samples of shape {shape} are no pictures; give a file .npz" in (
            capsys.readouterr().err
        )


def test_one_process_speaks_for_all(folder, monkeypatch, capsys):
    """What a launcher numbers RANK 1 trains its share in silence."""
    np.save("x.npy", np.zeros((16, 4), dtype=np.float32))
    tables = {name: TABLES[name] for name in ("schedule", "training")}
    network = {"kind": "mlp", "width": 8, "depth": 1}
    write({**tables, "data": {"kind": "numpy", "path": "x.npy"}, "network": network})
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "run.json"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "no pictures" not in told.err


def test_as_many_samples_of_each_class(folder, trained):
    """The usual number is a multiple of the classes, and each class stands in its column."""
    assert main(["sample", str(trained), "--steps", "1", "--out", "x.npz"]) == 0
    labels = np.load("x.npz")["labels"]
    assert np.bincount(labels).tolist() == [6] * 10
    assert main(["sample", str(trained), "--steps", "1", "--out", "x.png"]) == 0
    width, height = Image.open("x.png").size
    assert (width // 8, height // 8) == (10 * 9 - 1, 6 * 9 - 1)
    write(TABLES, samples={"n": None}, training={"steps": 1})
    assert main(["train", "run.json"]) == 0
    assert Image.open("run/samples/step-000000001.png").size == (width, height)
    assert main(["sample", str(trained), "--steps", "1", "--class", "3,5", "--out", "x.npz"]) == 0
    assert np.load("x.npz")["labels"].tolist() == [3, 5] * 32


def test_without_a_class(folder, trained, capsys):
    """A model that never went without one is not asked to."""
    ask = ["--n", "2", "--steps", "2", "--out", "x.npz"]
    assert main(["sample", str(trained), *ask, "--class", "none"]) == 0
    with np.load("x.npz") as found:
        assert set(found) == {"samples"}

    x = sd.sample(sd.load_denoiser(trained), (2, 1, 8, 8), steps=2, seed=[0, 1])
    np.testing.assert_allclose(np.load("x.npz")["samples"], x, atol=1e-6)
    write(TABLES, objective={"drop": 0.0}, training={"steps": 1})
    assert main(["train", "run.json"]) == 0
    assert main(["sample", "run", *ask, "--class", "none"]) == 1
    assert "trained with drop = 0" in capsys.readouterr().err


def test_the_other_commands_take_a_checkpoint(folder, trained, capsys):
    ask = ["--model", str(trained), "--shape", "1,8,8", "--nfe", "4", "--out", "found"]
    assert main(["compare", *ask, "--n", "2", "--solvers", "ddim eta=0.0"]) == 0
    assert "ddim" in capsys.readouterr().out
    assert main(["compare", *ask, "--model", str(folder)]) == 1
    assert "holds no checkpoint" in capsys.readouterr().err


def test_a_sample_does_not_depend_on_the_batch(trained):
    found = []
    for n, batch in ((5, 5), (5, 2), (3, 1)):
        out = trained.parent / f"{n}-{batch}.npz"
        ask = ["--n", str(n), "--batch", str(batch), "--steps", "2", "--solver", "ddpm"]
        assert main(["sample", str(trained), *ask, "--out", str(out)]) == 0
        found.append(np.load(out)["samples"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    np.testing.assert_allclose(found[0][:3], found[2], atol=1e-5)


def test_a_folder_of_pictures_goes_on(trained, monkeypatch, capsys):
    out = trained.parent / "pictures"
    ask = ["sample", str(trained), "--n", "6", "--batch", "2", "--steps", "2", "--out", str(out)]
    assert main(ask) == 0
    whole = {file.name: file.read_bytes() for file in out.iterdir()}
    assert len(whole) == 7
    for number in (1, 4):
        (out / f"{number:06d}.png").unlink()
    kept = (out / "000000.png").stat().st_mtime_ns
    assert main(ask) == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == whole
    assert (out / "000000.png").stat().st_mtime_ns == kept
    assert Image.open(out / "000003.png").size == (8, 8)
    assert main([*ask, "--seed", "1"]) == 1
    assert "holds other samples (seed: 0 there, 1 asked)" in capsys.readouterr().err
    assert main([*ask[:-1], str(trained)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_file_that_was_stopped_is_not_there(folder, trained, monkeypatch, capsys):
    """The first batch is drawn, the second is stopped."""
    network = UNet.forward
    calls = []

    def stopping(self, *arguments):
        calls.append(len(calls))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return network(self, *arguments)

    monkeypatch.setattr(UNet, "forward", stopping)
    ask = ["sample", str(trained), "--n", "4", "--batch", "2", "--steps", "2", "--out"]
    ask += ["x.npz", "--solver", "ddim"]
    assert main(ask) == 130
    assert "nothing is written" in capsys.readouterr().out
    assert sorted(file.name for file in folder.iterdir()) == ["run.json"]


def test_pixels_of_a_picture_are_the_samples(trained):
    """One picture, enlarged: every pixel of a sample, -1 black and 1 white."""
    ask = ["sample", str(trained), "--n", "1", "--steps", "2", "--out"]
    for name in ("one.png", "one.npz"):
        assert main([*ask, str(trained.parent / name)]) == 0
    x = np.load(trained.parent / "one.npz")["samples"][0, 0]
    pixels = np.asarray(Image.open(trained.parent / "one.png"), dtype=float)
    scale = len(pixels) // 8
    np.testing.assert_allclose(
        pixels[::scale, ::scale], (np.clip(x, -1, 1) + 1) * 127.5, atol=0.5 + 1e-3
    )


def test_a_stopped_run_goes_on_to_the_same_bits(folder, trained, monkeypatch, capsys):
    """Stopped after step 2 of 4, then the same command; then more steps from there."""
    from sde_diffusion.training import DiffusionObjective

    forward, calls = DiffusionObjective.forward, []

    def stopping(self, batch, generator):
        calls.append(len(calls))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, batch, generator)

    monkeypatch.setattr(DiffusionObjective, "forward", stopping)
    assert main(["train", "run.json"]) == 130
    assert "the same command goes on" in capsys.readouterr().out
    monkeypatch.setattr(DiffusionObjective, "forward", forward)
    assert main(["train", "run.json"]) == 0
    (mine, _), (theirs, _) = (read_file(latest(f), TRAINING) for f in (folder / "run", trained))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert main(["train", "run.json", "--steps", "6"]) == 0
    assert load_model(folder / "run").step == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"kind": "digit"}}, "run.json: [data]: unknown kind 'digit'; did you"),
        ({"data": {"prat": "train"}}, "did you mean 'part'"),
        ({"data": {"part": 3}}, "part = 3: give a text in quotes"),
        ({"data": {"labels": False}}, "the network takes classes = 10, but the data have no class"),
        ({"data": {"flip": 1}}, "flip = 1: give true or false"),
        ({"network": {"kind": "unit"}}, "did you mean 'unet'"),
        ({"network": {"widht": 8}}, "run.json: [network] 'unet': unknown key 'widht'; did"),
        ({"network": {"channels": 3}}, "channels = 3"),
        ({"network": {"classes": 9}}, "labels up to 9, but the network knows classes = 9"),
        ({"network": {"classes": None}}, "the data have class labels, but the network takes none"),
        ({"network": {"multipliers": [1, 2, 2, 2, 2]}}, "multiples of 16"),
        ({"schedule": {"kind": "vp_cosin"}}, "run.json: [schedule]: unknown kind 'vp_cosin'"),
        ({"schedule": {"t_max": 2.0}}, "run.json: [schedule] 'vp_cosine': t_max = 2.0"),
        ({"model": {"prediction": "velocty"}}, "did you mean 'velocity'"),
        ({"model": {"lable": "time"}}, "did you mean 'label'"),
        ({"objective": {"dropp": 0.1}}, "did you mean 'drop'"),
        ({"objective": {"weighting": "min_sn"}}, "did you mean 'min_snr'"),
        (
            {"objective": {"weighting": {"kind": "noise", "x": 1}}},
            "[objective]: weighting 'noise': unknown key 'x'. Known: kind",
        ),
        ({"objective": {"weighting": {"gamma": 1}}}, "weighting lacks kind: one of own"),
        ({"objective": {"weighting": {"kind": "min_snr", "gama": 1.0}}}, "did you mean 'gamma'"),
        ({"objective": {"times": {"kind": "log_normal", "std": "1"}}}, "std = '1': give a number"),
        (
            {"objective": {"times": {"kind": "log_normal", "std": -1}}},
            "[objective]: times 'log_normal': mean",
        ),
        ({"objective": {"times": 3}}, 'times = 3: give a text, or a table { kind = "..."'),
        ({"objective": {"importance": True}}, "importance = True: give a text, or a table {"),
        ({"objective": {"importance": {"kind": "los"}}}, "did you mean 'loss'"),
        ({"objective": {"uncertanty": True}}, "[objective]: unknown key 'uncertanty'; did you m"),
        ({"objective": {"schedule_learning_rat": 0.1}}, "did you mean 'schedule_learning_rate'"),
        ({"objective": {"bins": {"width": 0.125}}}, 'bins needs a schedule of kind = "learned" or'),
        ({"objective": {"weight": 0.1}}, "weight needs a network with outputs = 2"),
        ({"data": {"flp": True}}, "[data] 'digits': unknown key 'flp'; did you mean 'flip'"),
        ({"schedule": {"kind": "learned"}}, "weighting='likelihood'"),
        ({"objective": {"uncertainty": 3}}, "uncertainty = 3: give true"),
        ({"objective": {"uncertainty": {"sise": 3}}}, "did you mean 'size'"),
        ({"objective": {"drop": 1.5}}, "run.json: [objective]: drop = 1.5"),
        ({"training": {"learning_rat": 1e-3}}, "did you mean 'learning_rate'"),
        ({"training": {"learning_rate": "1e-3"}}, "learning_rate = '1e-3': give a number"),
        ({"training": {"learning_rate": -1.0}}, "run.json: [training]: learning_rate = -1.0"),
        ({"training": {"folder": 3}}, "run.json: [training]: folder = 3: give a text"),
        ({"training": {"steps": 2.5}}, "steps = 2.5: give a whole number"),
        ({"training": {"ema": "0.1"}}, "ema = '0.1': give a "),
        ({"samples": {"stepz": 2}}, "did you mean 'steps'"),
        ({"samples": {"n": -1}}, "run.json: [samples]: n = -1: give at least 1"),
        ({"samples": {"n": 0}}, "run.json: [samples]: n = 0"),
        ({"samples": {"steps": 0}}, "run.json: [samples]: steps = 0"),
        ({"samples": {"seed": -1}}, "run.json: [samples]: seed -1 must"),
        ({"samples": {"solver": "dimm"}}, "[samples]: unknown solver 'dimm'; did you mean 'ddim'"),
        ({"samples": {"solver": "analytic_dpm"}}, "[samples]: analytic_dpm needs moments"),
        ({"samples": {"solver": "no.json"}}, "no.json: there is no such file of a plan"),
        ({"smaples": {"steps": 2}}, "did you mean 'samples'"),
    ],
)
def test_configurations_that_are_refused(folder, capsys, changes, message):
    write(TABLES, **changes)
    assert main(["train", "run.json"]) == 1
    assert message in capsys.readouterr().err
    assert not list(folder.glob("run/*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--example digits"),
        (["none.toml"], "no such file"),
        (["--example", "digit"], "did you mean 'digits'"),
        (["run.json", "--set", "training"], "write table.key=value"),
        (["run.json", "--steps", "0"], "steps = 0"),
        (["run.json", "--folder", "run.json"], "run.json is no folder"),
    ],
)
def test_errors_of_train(folder, capsys, arguments, message):
    assert main(["train", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "0"], "--n 0 must be at least 1"),
        (["--seed", "-1"], "--seed -1"),
        (["--class", "10"], "--class 10: the classes are 0 to 9"),
        (["--class", "three"], "numbers with commas"),
        (["--average", "0.2"], "did you mean 'sigma_rel"),
        (["--solver", "dimm"], "did you mean 'ddim'"),
        (["--solver", "ddim ets=1"], "did you mean 'eta'"),
        (["--solver", "none.json"], "none.json: there is no such file of a plan"),
        (["--solver", "analytic_dpm"], "analytic_dpm needs moments"),
        (["--solver", "torchdiffeq", "--steps", "3"], "leave out --steps; as --solver 'torchdi"),
        (["--steps", "0"], "--steps 0 must be at least 1"),
        (["--times", "unifrom"], "did you mean 'uniform'"),
        (["--out", "no/x.npz"], "there is no folder no"),
        (["--out", "x.jpg"], "give a file .npz or .png, or a folder"),
        (["--device", "cudaa"], "--device cudaa"),
    ],
)
def test_errors_of_sample(folder, trained, capsys, arguments, message):
    assert main(["sample", str(trained), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert sorted(file.name for file in folder.iterdir()) == ["run.json"]


def test_checkpoints_that_are_refused(folder, trained, capsys):
    assert main(["sample", str(folder)]) == 1
    assert "holds no checkpoint" in capsys.readouterr().err
    file = latest(trained)
    (folder / "cut.safetensors").write_bytes(file.read_bytes()[:-1])
    assert main(["sample", "cut.safetensors"]) == 1
    assert "damaged" in capsys.readouterr().err
    write(TABLES, network={"width": 16})
    before = file.read_bytes()
    assert main(["train", "run.json", "--folder", str(trained)]) == 1
    assert "is of another run: network" in capsys.readouterr().err
    assert file.read_bytes() == before
