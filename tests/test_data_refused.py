"""Data that are damaged or ambiguous: named by file and number, and in time."""

import traceback

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from runs import Quadratic, fit

from sde_diffusion.training import HuggingFaceData, ImageFolder, NumpyData
from sde_diffusion.training.order import Order

N = 12


class Flat(Quadratic):
    """Of pictures, as rows of numbers."""

    def forward(self, batch, generator):
        return super().forward(batch._replace(x=batch.x.flatten(1)), generator)


@pytest.fixture
def folder(tmp_path):
    """Noise, which does not compress: a cut file lacks pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i:02d}.{'png' if i % 2 else 'jpg'}")
    return tmp_path


def cut(file, part=0.9):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    return whole


def test_all_pictures_are_looked_at_before_a_run(folder):
    (folder / "05.png").write_bytes(b"no picture")
    cut(folder / "03.png")
    cut(folder / "08.jpg", 0.05)
    with pytest.raises(
        ValueError, match=r"03\.png is no picture.* \(and 2 more: 05\.png, 08\.jpg\)"
    ):
        ImageFolder(folder, 8)
    (folder / "03.png").unlink()
    (folder / "08.jpg").unlink()
    with pytest.raises(ValueError, match=r"05\.png is no picture.*; remove it"):
        ImageFolder(folder, 8)


def test_a_run_goes_on_when_a_bad_picture_is_replaced(folder, tmp_path_factory):
    """A cut JPEG has a good header: it shows in mid-run, and what the error says then works."""
    indices = [int(i) for step in range(1, 6) for i in Order(N, 2, 0).indices(step)]
    bad = f"{next(i for i in indices if i % 2 == 0):02d}.jpg"
    cut(folder / bad, 0.99)
    kept = tmp_path_factory.mktemp("run")
    task, how = Flat(3 * 8 * 8), {"steps": 6, "batch_size": 2, "checkpoint_every": 1, "keep": 9}

    def train():
        return fit(task, ImageFolder(folder, 8), folder=kept, **how)

    with pytest.raises(ValueError, match=rf"{bad} is no picture.*same name in its place"):
        train()
    before = set(kept.glob("step-*.safetensors"))
    Image.new("RGB", (9, 8), "red").save(folder / bad)
    assert train().step == 6
    assert 0 < len(before) < len(set(kept.glob("step-*.safetensors"))) == 6


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_shows_white(tmp_path, mode, channels):
    """Black under a mask whose left half is clear; half clear it is grey."""
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    clear[:, 4:, 3] = 255
    image = Image.fromarray(clear)
    if mode == "P":
        palette = Image.fromarray((clear[..., 3] == 255).astype(np.uint8), "L").convert("P")
        palette.putpalette([0, 0, 0, 1, 1, 1])
        palette.save(tmp_path / "x.png", transparency=0)
    elif mode in ("RGB", "L"):  # one colour stands for none
        values = np.where(clear[..., 3:] == 255, 1, 0).astype(np.uint8).repeat(3, -1)
        flat = Image.fromarray(values).convert(mode)
        flat.save(tmp_path / "x.png", transparency=0 if mode == "L" else (0, 0, 0))
    else:
        image.convert(mode).save(tmp_path / "x.png")
    x = ImageFolder(tmp_path, 8, channels).batch(torch.tensor([0])).x
    assert bool((x[..., :4] == 1).all())
    assert bool((x[..., 4:] < -0.98).all())


def test_half_transparent_is_half_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 51)).save(tmp_path / "x.png")  # a fifth black
    x = ImageFolder(tmp_path, 8).batch(torch.tensor([0])).x
    torch.testing.assert_close((x + 1) / 2, torch.full_like(x, 0.8), atol=0.5 / 255, rtol=0)


@pytest.mark.parametrize("threads", [0, -1, 2.0, True])
def test_no_threads(folder, threads):
    with pytest.raises(ValueError, match=r"threads = .*at least 1"):
        ImageFolder(folder, 8, threads=threads)


def test_channels_last_must_be_said_where_it_looks_so(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((2, 6, 5, 3), dtype=np.float32))
    with pytest.raises(ValueError, match=r"6 channels of 5 x 3 pixels.*channels_last = true"):
        NumpyData(path)
    assert NumpyData(path, channels_last=True).event_shape == (3, 6, 5)
    assert NumpyData(path, channels_last=False).event_shape == (6, 5, 3)
    for shape in ((2, 3, 6, 6), (2, 4, 8, 8), (2, 1, 4, 3), (2, 6, 3), (2, 16, 8, 8)):
        np.save(path, np.zeros(shape, dtype=np.float32))
        assert NumpyData(path).event_shape == shape[1:]


def test_the_number_of_a_bad_sample_is_its_place_in_the_data(tmp_path):
    x = np.zeros((20, 2), dtype=np.float32)
    x[17, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    table = datasets.Dataset.from_dict({"x": x.tolist()})
    for data in (NumpyData(tmp_path / "x.npy"), HuggingFaceData(table, "x")):
        data.batch(torch.tensor([3, 16]))
        with pytest.raises(ValueError, match=r"sample 17 is not"):
            data.batch(torch.tensor([3, 4, 17]))


@pytest.mark.parametrize("kind", ["text", "cut", "objects", "archive", "empty"])
def test_a_damaged_file_is_never_one_to_unpickle(tmp_path, kind):
    path = tmp_path / ("x.npz" if kind == "archive" else "x.npy")
    if kind == "archive":
        np.savez(path, x=np.array([{}], dtype=object))
    elif kind == "cut":
        np.save(path, np.zeros((20, 2)))
        cut(path)
    elif kind == "objects":
        np.save(path, np.array([{}], dtype=object))
    else:
        path.write_bytes(b"" if kind == "empty" else b"no numbers")
    with pytest.raises(ValueError, match=r"damaged, or holds objects.*np\.save\(path") as caught:
        NumpyData(path)
    shown = "".join(traceback.format_exception(caught.value))
    assert "pickle" not in str(caught.value)
    assert "allow_pickle=" not in shown.replace("allow_pickle=False", "")
