"""Data by name, as a configuration asks for them: the same data, and errors with the place."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from sde_diffusion.training import Flipped, digits
from sde_diffusion.training.sources import SOURCES, data_of

N = 6


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The same six pictures as a file, a folder and a data set."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (N, 1, 8, 8), dtype=np.uint8)
    images = [Image.fromarray(image[0]) for image in pixels]
    np.savez("x.npz", images=pixels, labels=np.arange(N))
    for i, image in enumerate(images):
        (tmp_path / "folder" / str(i)).mkdir(parents=True)
        image.save(tmp_path / "folder" / str(i) / "picture.png")
    split = datasets.Dataset.from_dict({"image": images, "label": list(range(N))})
    split.save_to_disk("one")
    datasets.DatasetDict(train=split, test=split.select([0])).save_to_disk("splits")
    return torch.from_numpy(pixels).float() / 127.5 - 1


TABLES = {
    "numpy": {"path": "x.npz", "x": "images", "labels": "labels"},
    "folder": {"path": "folder", "size": 8, "channels": 1, "labels": True},
    "datasets": {"path": "one", "labels": "label", "size": 8, "channels": 1},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_is_what_it_says(made, kind):
    data = data_of({"kind": kind, **TABLES.get(kind, {})})
    if kind == "digits":
        assert data.describe() == digits().describe()
        return
    batch = data.batch(torch.arange(N))
    torch.testing.assert_close(batch.x, made)
    assert batch.context.tolist() == list(range(N))
    assert (data.range, data.classes) == ((-1.0, 1.0), N)


def test_splits_and_flips(made):
    table = {"kind": "datasets", "path": "splits", "size": 8, "channels": 1}
    assert len(data_of({**table, "split": "test"})) == 1
    flipped = data_of({**table, "split": "train", "flip": True})
    assert isinstance(flipped, Flipped)
    torch.testing.assert_close(flipped.batch(torch.arange(N)).x, made)
    with pytest.raises(ValueError, match="give one of them, train, test"):
        data_of(table)
    with pytest.raises(ValueError, match="did you mean 'train'"):
        data_of({**table, "split": "trian"})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "run lacks kind: one of digits"),
        ({"kind": "foldr"}, "run: unknown kind 'foldr'; did you mean 'folder'"),
        ({"kind": "folder", "path": "folder"}, "run 'folder' lacks size; it knows path, size"),
        (
            {"kind": "folder", "path": "folder", "size": "8"},
            "run 'folder': size = '8': give a whole number",
        ),
        ({"kind": "folder", "path": "nowhere", "size": 8}, "nowhere: there is no such folder"),
        ({"kind": "numpy", "path": "x.npz", "x": "image"}, "run 'numpy': .*did you mean 'images'"),
        ({"kind": "numpy", "path": "x.npz", "x": "images", "range": [0, 300.5, 1]}, "range ="),
        ({"kind": "digits", "flip": "yes"}, "run: flip = 'yes': give true or false"),
    ],
)
def test_tables_that_are_refused(made, table, message):
    with pytest.raises((ValueError, OSError), match=message):
        data_of(table, "run")
