"""sde-diffusion sample --guidance: classifier-free guidance of a trained model."""

import json

import numpy as np
import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.cli import main
from sde_diffusion.guidance import classifier_free, limited_interval

TABLES = {
    "data": {"kind": "digits"},
    "network": {"kind": "mlp", "width": 8, "depth": 1, "classes": 10},
    "schedule": {"kind": "vp_cosine"},
    "model": {"prediction": "velocity"},
    "objective": {"drop": 0.1},
    "training": {"steps": 2, "batch_size": 16, "checkpoint_every": 2, "tensorboard": False},
    "samples": {"n": None},
}
ASK = ["--n", "3", "--steps", "3", "--solver", "ddim", "--class", "7", "--guidance", "3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Models that learned to go with and without a class, always with one, and never."""
    place = tmp_path_factory.mktemp("trained")
    for name, network, objective, data in (
        ("with", {}, {}, {}),
        ("always", {}, {"drop": 0.0}, {}),
        ("never", {"classes": None}, {}, {"labels": False}),
    ):
        changes = {"network": network, "objective": objective, "data": data}
        tables = {k: v | changes.get(k, {}) for k, v in TABLES.items()}
        (place / f"{name}.json").write_text(json.dumps(tables))
        assert main(["train", str(place / f"{name}.json")]) == 0
    return place


def test_samples_are_those_of_classifier_free_guidance(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = str(trained / "with")
    conditional = sd.load_denoiser(trained / "with").given(torch.full((3,), 7))
    guided = classifier_free(conditional, scale=3.0)
    for more, denoiser in (
        ([], guided),
        (["--interval", "0.2,5"], limited_interval(guided, 0.2, 5.0)),
    ):
        assert main(["sample", run, *ASK, *more, "--out", "x.npz"]) == 0
        right = sd.sample(denoiser, (3, 1, 8, 8), solver="ddim", steps=3, seed=[0, 1, 2])
        torch.testing.assert_close(torch.from_numpy(np.load("x.npz")["samples"]), right)
    assert main(["sample", run, *ASK, "--out", "one", "--batch", "1"]) == 0
    assert main(["sample", run, *ASK, "--out", "one", "--batch", "1"]) == 0


def test_a_folder_is_gone_on_with_under_the_same_guidance_alone(
    trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    run = str(trained / "with")
    assert main(["sample", run, *ASK, "--out", "some"]) == 0
    assert main(["sample", run, *ASK, "--out", "some", "--interval", "0.2,5"]) == 1
    assert "interval: None there, 0.2,5 asked" in capsys.readouterr().err
    assert main(["sample", run, *ASK[:-2], "--out", "some"]) == 1
    assert "guidance: 3.0 there, None asked" in capsys.readouterr().err


def test_scale_1_is_the_conditional_model_though_it_always_has_a_class(
    trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = str(trained / "always")
    assert main(["sample", run, *ASK[:-1], "1", "--out", "x.npz"]) == 0
    conditional = sd.load_denoiser(trained / "always").given(torch.full((3,), 7))
    right = sd.sample(conditional, (3, 1, 8, 8), solver="ddim", steps=3, seed=[0, 1, 2])
    torch.testing.assert_close(torch.from_numpy(np.load("x.npz")["samples"]), right)


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        ("never", ["--guidance", "3"], "--guidance 3 needs a condition"),
        ("with", ["--guidance", "3", "--class", "none"], "--guidance 3 needs a condition"),
        ("always", ["--guidance", "3"], "trained with drop = 0"),
        ("with", ["--guidance", "nan"], "--guidance nan must be a finite number"),
        ("with", ["--interval", "1,2"], "--interval 1,2 limits guidance"),
        ("with", ["--guidance", "3", "--interval", "2,1"], "--interval 2,1: 0 <= LOW < HIGH"),
        ("with", ["--guidance", "3", "--interval=-1,2"], "--interval -1,2: 0 <= LOW < HIGH"),
        ("with", ["--guidance", "3", "--interval", "2"], "--interval 2: give two noise levels"),
    ],
)
def test_what_is_refused(trained, tmp_path, monkeypatch, capsys, run, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", str(trained / run), "--steps", "1", *arguments]) == 1
    assert message in capsys.readouterr().err
