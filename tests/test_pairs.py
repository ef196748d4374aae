"""Images made from images: what they are, and the way from a configuration to samples of them."""

import json

import numpy as np
import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.cli import main
from sde_diffusion.training import (
    Configuration,
    Erased,
    Flipped,
    Outline,
    Pairs,
    Smaller,
    TensorData,
    digits,
    load_model,
    trainer_of,
)
from sde_diffusion.training.pairs import CONDITIONS
from sde_diffusion.training.sources import data_of

X = torch.rand(5, 2, 4, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
EVERY = torch.arange(5)
SOME = {"smaller": {"factor": 2}, "erased": {"top": 0, "left": 3, "height": 4, "width": 3}}


def test_smaller_is_the_mean_of_squares():
    y = Smaller(2)(X)
    assert y.shape == (5, 2, 2, 3)
    torch.testing.assert_close(y[:, :, 1, 2], X[:, :, 2:, 4:].mean((2, 3)))


def test_what_is_erased_does_not_show_and_is_marked():
    rectangle = Erased(top=1, left=2, height=2, width=3)
    y, other = rectangle(X), X.clone()
    other[:, :, 1:3, 2:5] = torch.rand(5, 2, 2, 3)
    assert torch.equal(rectangle(other), y)
    hole = torch.full((4, 6), -1.0)
    hole[1:3, 2:5] = 1
    assert torch.equal(y[:, 2], hole.expand(5, -1, -1))
    assert torch.equal(y[:, :2, hole < 0], X[:, :, hole < 0])


def test_an_outline_is_the_rise_to_the_brightest_neighbour():
    x = -torch.ones(1, 1, 5, 5)
    x[0, 0, 2, 2] = 0.5
    around = -torch.ones(5, 5)
    around[1:4, 1:4] = 0.5
    around[2, 2] = -1
    assert torch.equal(Outline()(x)[0, 0], around)


@pytest.mark.parametrize("kind", CONDITIONS)
def test_pairs_are_samples_and_what_is_made_of_each(kind):
    condition = CONDITIONS[kind](**SOME.get(kind, {}))
    data = TensorData(X, torch.tensor([0, 1, 2, 3, 4]), (-1, 1))
    pairs = Pairs(data, condition)
    x, context = pairs.batch(torch.tensor([3, 1]))
    assert torch.equal(x, X[[3, 1]])
    assert torch.equal(context, condition(X)[[3, 1]])
    assert (len(pairs), pairs.event_shape, pairs.range, pairs.classes) == (
        5,
        (2, 4, 6),
        (-1, 1),
        None,
    )


def test_pairs_of_flipped_samples_belong_together_and_so_do_flipped_pairs():
    left = Erased(0, 0, 4, 3)
    generator = torch.Generator().manual_seed(1)
    x, y = Pairs(Flipped(TensorData(X)), left).batch(EVERY, generator)
    assert torch.equal(y, left(x))
    flipped = ~(x == X).flatten(1).all(1)
    assert 0 < flipped.sum() < 5, "some, one chance in sixteen of none or all; the seed is fixed"
    x, y = Flipped(Pairs(TensorData(X), left)).batch(EVERY, torch.Generator().manual_seed(1))
    assert torch.equal(x[flipped], X[flipped].flip(-1))
    assert torch.equal(y[flipped], left(X)[flipped].flip(-1))
    assert torch.equal(y[~flipped], left(X)[~flipped])


def test_the_description_tells_data_and_conditions_apart():
    data = TensorData(X)
    said = {
        Pairs(data, Smaller(2)).describe(),
        Pairs(data, Smaller(1)).describe(),
        Pairs(TensorData(X / 2), Smaller(2)).describe(),
        *(Pairs(data, lambda x, k=k: k * x).describe() for k in (1.0, 2.0)),
    }
    assert len(said) == 5
    assert Pairs(TensorData(X), Smaller(2)).describe() in said
    assert " at 0x" not in "".join(said)


@pytest.mark.parametrize(
    ("condition", "error", "said"),
    [
        (lambda x: x.long(), TypeError, "makes torch.int64 of samples"),
        (lambda x: None, TypeError, "makes NoneType"),
        (lambda x: x[:1], ValueError, "1 conditions for 2 samples"),
        (lambda x: x.flatten(1), TypeError, "images, .n, channels, rows"),
        (lambda x: x / 0, ValueError, "conditions must be finite"),
        (lambda x: x - x.mean(0), ValueError, "must go sample by sample"),
        (lambda x: x / x.abs().max(), ValueError, "must go sample by sample"),
        (2, TypeError, "condition = 2: give a function"),
        (Smaller(4), ValueError, "factor = 4 does not divide images of 4 x 6"),
        (Erased(0, 4, 4, 3), ValueError, "reaches beyond images of 4 x 6"),
    ],
)
def test_conditions_that_cannot_be_are_refused(condition, error, said):
    with pytest.raises(error, match=said):
        Pairs(TensorData(X), condition)


def test_data_and_factors_that_cannot_be_are_refused():
    with pytest.raises(TypeError, match=r"data is Tensor: give a data set, as TensorData"):
        Pairs(X, Smaller(2))
    for factor in (0, 2.0, True, "2"):
        with pytest.raises(ValueError, match=f"factor = {factor!r} must be an integer"):
            Smaller(factor)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_condition_may_be_drawn_and_may_centre_each_sample(noise):
    generator = torch.Generator().manual_seed(0)
    drawn = lambda x: (
        x - x.mean((1, 2, 3), keepdim=True) + noise * torch.randn(x.shape, generator=generator)
    )
    assert len(Pairs(TensorData(X), drawn)) == 5


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("smaller", "data condition = 'smaller': give a table with its kind"),
        ({"kind": "smalller", "factor": 2}, "did you mean 'smaller'"),
        ({"kind": "smaller"}, "data condition 'smaller' lacks factor"),
        ({"kind": "smaller", "factor": 0}, "factor = 0"),
        ({"kind": "smaller", "factor": 3}, "data condition: factor = 3 does not divide"),
        ({"kind": "erased", "top": -1, "left": 0, "height": 1, "width": 1}, "at least 0"),
    ],
)
def test_tables_of_conditions_that_cannot_be_are_refused(table, said):
    with pytest.raises(ValueError, match=said):
        data_of({"kind": "digits", "condition": table})


# From a configuration to samples

SMALLER = {"kind": "smaller", "factor": 2}
TABLES = {
    "data": {"kind": "digits", "condition": SMALLER},
    "held_out": {"kind": "digits", "part": "held_out", "condition": SMALLER},
    "network": {"kind": "unet", "width": 8, "multipliers": [1], "blocks": 1}
    | {"condition_channels": 1},
    "schedule": {"kind": "vp_cosine"},
    "model": {"prediction": "velocity"},
    "training": {"steps": 4, "batch_size": 16, "checkpoint_every": 4, "tensorboard": False},
    "samples": {"n": 4, "steps": 2},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("trained")
    (place / "run.json").write_text(json.dumps(TABLES))
    assert main(["train", str(place / "run.json")]) == 0
    np.save(place / "y.npy", Smaller(2)(digits("held_out").x[:3]).numpy())
    return place


def test_the_command_samples_given_images_that_take_turns(trained):
    out, y = trained / "x.npz", torch.from_numpy(np.load(trained / "y.npy"))
    ask = ["sample", str(trained / "run"), "--steps", "2", "--context", str(trained / "y.npy")]
    assert main([*ask, "--n", "5", "--out", str(out), "--batch", "2"]) == 0
    found = torch.from_numpy(np.load(out)["samples"])
    denoiser = load_model(trained / "run").denoiser.given(y[[0, 1, 2, 0, 1]])
    expected = sd.sample(denoiser, (5, 1, 8, 8), steps=2, seed=list(range(5)))
    torch.testing.assert_close(found, expected)
    other = sd.sample(denoiser.given(y[[2, 1, 2, 0, 1]]), (5, 1, 8, 8), steps=2, seed=[*range(5)])
    assert not torch.allclose(found[0], other[0])
    assert main([*ask, "--out", str(out)]) == 0
    assert len(np.load(out)["samples"]) == 3, "as many as there are conditions"


def test_a_folder_of_samples_knows_its_conditions(trained, capsys):
    ask = ["sample", str(trained / "run"), "--steps", "2", "--out", str(trained / "pictures")]
    np.save(trained / "other.npy", np.zeros((3, 1, 4, 4), dtype=np.float32))
    assert main([*ask, "--context", str(trained / "y.npy")]) == 0
    assert main([*ask, "--context", str(trained / "other.npy")]) != 0
    assert "context" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (None, "trained with images as conditions and drop = 0"),
        (np.zeros((2, 3, 4, 4), np.float32), "need images of shape (2, 1, rows, columns)"),
        (np.zeros((2, 1, 3, 4), np.float32), "rows that divide 8"),
        (np.full((2, 1, 4, 4), np.nan, np.float32), "must be finite, but sample 0 is not: remove"),
        (np.full((2, 1, 4, 4), 255, np.float32), "from 255 to 255, as bytes have: save them as"),
    ],
)
def test_the_command_refuses_conditions_that_do_not_fit(trained, context, said, capsys):
    ask = ["sample", str(trained / "run"), "--steps", "2", "--out", str(trained / "none.npz")]
    if context is not None:
        np.save(trained / "wrong.npy", context)
        ask += ["--context", str(trained / "wrong.npy")]
    assert main(ask) != 0
    assert said in capsys.readouterr().err
    assert not (trained / "none.npz").exists()


def test_a_class_beside_conditions_is_refused_not_ignored(trained, capsys):
    ask = ["sample", str(trained / "run"), "--steps", "2", "--out", str(trained / "both.npz")]
    assert main([*ask, "--context", str(trained / "y.npy"), "--class", "none"]) != 0
    assert "--class none beside --context" in capsys.readouterr().err
    assert not (trained / "both.npz").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"data": {"kind": "digits", "labels": False}},
            "condition_channels = 1, but the data have",
        ),
        ({"data": {"kind": "digits"}}, "takes images, but the data have class labels"),
        ({"network": {"kind": "mlp"}}, "images of 1 channels, but the network takes no images"),
        (
            {"held_out": {"kind": "digits", "condition": {"kind": "smaller", "factor": 4}}},
            r"held_out has images of shape \(1, 2, 2\) as conditions, the data have images of",
        ),
    ],
)
def test_networks_and_data_that_do_not_fit_are_refused(changes, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        trainer_of(Configuration.of({**TABLES, **changes}), tmp_path)
