"""Data to train on: real files, pictures and data sets; what is refused, and with what cure."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from sde_diffusion.training import (
    Flipped,
    HuggingFaceData,
    ImageFolder,
    NumpyData,
    TensorData,
    as_data,
    digits,
)

N = 12


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (N, 3, 8, 8), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, pixels):
    """Two classes of pictures, "b" before "a" in time; classes are numbered by name."""
    for i, image in enumerate(pixels):
        place = tmp_path / "pictures" / ("b" if i % 2 == 0 else "a")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{i:02d}.png")
    return tmp_path / "pictures"


def unit(pixels):
    return torch.from_numpy(pixels).float() / 127.5 - 1


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_digits_are_those_of_scikit_learn_once_each():
    train, held_out, every = (digits(part) for part in ("train", "held_out", "all"))
    assert (len(train), len(held_out), train.event_shape) == (1198, 599, (1, 8, 8))
    assert (train.classes, train.range) == (10, (-1.0, 1.0))
    torch.testing.assert_close(torch.cat([train.x, held_out.x]), every.x)
    bunch = load_digits()
    ours = sorted(map(tuple, torch.cat([every.x.flatten(1), every.context[:, None]], 1).tolist()))
    theirs = np.concatenate([bunch.images.reshape(-1, 64) / 8 - 1, bunch.target[:, None]], 1)
    assert ours == sorted(map(tuple, theirs.tolist()))
    with pytest.raises(ValueError, match="did you mean 'train'"):
        digits("trian")


def test_tensors_pairs_and_arrays():
    x, labels = torch.randn(N, 2), torch.arange(N)
    batch = as_data((x, labels)).batch(torch.tensor([3, 1]))
    assert torch.equal(batch.x, x[[3, 1]])
    assert batch.context.tolist() == [3, 1]
    assert as_data(x).batch(torch.tensor([0])).context is None
    assert as_data((x, labels)).classes == N
    assert as_data((x, torch.randn(N, 4, 3))).classes is None
    assert torch.equal(as_data(x.numpy()).x, x)
    own = digits()
    assert as_data(own) is own
    assert as_data(x).describe() != as_data(x + 1).describe() != as_data((x, labels)).describe()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([[1.0]], TypeError, "give a tensor, a pair"),
        ("pictures/", TypeError, "ImageFolder"),
        ((torch.ones(2, 1), [0, 1]), TypeError, r"\(Tensor, list\)"),
        (torch.zeros(2, 1, dtype=torch.uint8), TypeError, r"uint8.*data\.float\(\) / 127\.5 - 1"),
        (torch.zeros(0, 3), ValueError, "at least one sample"),
        (torch.tensor([[0.0], [torch.nan]]), ValueError, "sample 1 is not"),
        ((torch.ones(3, 1), torch.arange(2)), ValueError, "2 conditions for 3 samples"),
        ((torch.ones(2, 1), torch.tensor([0, -1])), ValueError, "a class label is -1"),
        ((torch.ones(2, 1), torch.tensor([0, 10**12])), ValueError, "fewer than 1,000,000; number"),
        ((torch.ones(2, 1), torch.tensor([0.0, 1.0])), TypeError, "integers of shape"),
        ((torch.ones(2, 1), torch.ones(2, 3).long()), TypeError, "integers of shape"),
        ((torch.ones(2, 1), torch.tensor([True, False])), TypeError, "torch.bool"),
        (
            (torch.ones(1, 1), torch.full((1, 2, 2), torch.inf)),
            ValueError,
            "conditions must be finite",
        ),
    ],
)
def test_what_is_no_data(data, error, message):
    with pytest.raises(error, match=message):
        as_data(data)


@pytest.mark.parametrize(
    ("values", "range", "message"),
    [
        (
            (0.0, 255.0),
            (-1, 1),
            r"holds 255, outside the stated range.*data / 127\.5 - 1",
        ),
        ((0.0, 1.01), (-1, 1), r"holds 1\.01.*2 \* data - 1"),
        ((-3.0, 5.0), (-1, 1), r"2 \* \(data - -3\) / 8 - 1, or state range=\(-3, 5\)"),
        (
            (-1.0, 0.0),
            (0, 1),
            r"outside the stated range \[0, 1\].*state range=\(-1, 0\)",
        ),
        ((0.0, 1.0), (1, 1), "lowest must be below"),
        ((0.0, 1.0), "ab", "lowest, highest"),
    ],
)
def test_values_outside_the_stated_range(values, range, message):
    with pytest.raises(ValueError, match=message):
        as_data(torch.tensor([values]), range)


def test_rounding_at_the_ends_is_no_error():
    as_data(torch.tensor([[-1.0 - 1e-6, 1.0 + 1e-6]]), (-1, 1))
    with pytest.raises(ValueError, match="leave it out"):
        as_data(digits(), (0, 1))


@pytest.mark.parametrize("form", ["npy", "npz"])
@pytest.mark.parametrize("kind", ["uint8", "float64"])
@pytest.mark.parametrize("last", [False, True])
def test_numpy_files(tmp_path, pixels, form, kind, last):
    x = pixels if kind == "uint8" else unit(pixels).double().numpy()
    stored, labels, path = x.transpose(0, 2, 3, 1) if last else x, np.arange(N), tmp_path / "x.npz"
    if form == "npz":
        np.savez(path, images=stored, labels=labels)
        data = NumpyData(path, "images", "labels", channels_last=last)
    else:
        path = tmp_path / "x.npy"
        np.save(path, stored)
        np.save(tmp_path / "labels.npy", labels)
        data = NumpyData(path, labels=tmp_path / "labels.npy", channels_last=last)
        assert isinstance(data._x, np.memmap)
    assert (len(data), data.event_shape, data.classes) == (N, (3, 8, 8), N)
    batch = data.batch(torch.tensor([5, 0, 5]))
    torch.testing.assert_close(batch.x, unit(pixels)[[5, 0, 5]])
    assert batch.context.tolist() == [5, 0, 5]
    other = data.describe()
    np.save(tmp_path / "y.npy", np.roll(stored, 1, axis=0))
    assert NumpyData(tmp_path / "y.npy", channels_last=last).describe() != other


def test_numpy_files_that_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", images=np.ones((2, 3)), labels=np.arange(2))
    np.save(tmp_path / "whole.npy", np.ones((2, 3), dtype=np.int32))
    np.save(tmp_path / "bytes.npy", np.array([[0.0, 255.0]]))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "text.npy").write_text("no numbers")
    for arguments, error, message in (
        (("none.npy",), FileNotFoundError, "no such file"),
        (("two.csv",), ValueError, "npy or .npz"),
        (("two.npz",), ValueError, "say which are the samples"),
        (("two.npz", "image"), ValueError, "did you mean 'images'"),
        (("two.npz", "images", "label"), ValueError, "did you mean 'labels'"),
        (("whole.npy",), TypeError, "int32"),
        (("whole.npy", "images"), ValueError, "leave out x"),
        (("objects.npy",), ValueError, "holds objects"),
        (("text.npy",), ValueError, "damaged"),
    ):
        with pytest.raises(error, match=message):
            NumpyData(tmp_path / arguments[0], *arguments[1:])
    with pytest.raises(ValueError, match=r"holds 255.*127\.5"):
        NumpyData(tmp_path / "bytes.npy", range=(-1, 1)).batch(torch.tensor([0]))


def test_a_folder_of_pictures(folder, pixels):
    data = ImageFolder(folder, 8, labels=True)
    assert (len(data), data.names, data.classes) == (N, ("a", "b"), 2)
    order = [*range(1, N, 2), *range(0, N, 2)]  # class a first
    for _ in range(2):  # read, then from memory
        batch = data.batch(torch.arange(N))
        torch.testing.assert_close(batch.x, unit(pixels)[order])
        assert batch.context.tolist() == [0] * (N // 2) + [1] * (N // 2)
    data._held = None
    torch.testing.assert_close(data.batch(torch.tensor([2, 2])).x, unit(pixels)[[5, 5]])
    assert ImageFolder(folder, 8).batch(torch.tensor([0])).context is None
    before = data.describe()
    (folder / "a" / "01.png").unlink()
    assert ImageFolder(folder, 8, labels=True).describe() != before


def test_pictures_are_read_once(folder):
    data, every = ImageFolder(folder, 8), torch.arange(N)
    first = data.batch(every).x
    for file in data.files:
        file.unlink()
    assert torch.equal(data.batch(every).x, first)


def test_pictures_are_resized_cut_and_turned_grey(tmp_path):
    """A wide picture, left half black, right half white: its middle square has both halves."""
    wide = np.zeros((40, 80), dtype=np.uint8)
    wide[:, 40:] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide).convert("RGB").save(tmp_path / "wide.bmp")
    for file in ("wide.png", "wide.bmp"):
        for channels in (1, 3):
            data = ImageFolder(tmp_path, 10, channels)
            data.files = [tmp_path / file]
            x = data.batch(torch.tensor([0])).x
            assert x.shape == (1, channels, 10, 10)
            assert (x[..., :4] < -0.95).all()
            assert (x[..., 6:] > 0.95).all()


def test_folders_that_are_refused(folder, tmp_path):
    with pytest.raises(NotADirectoryError, match="no such folder"):
        ImageFolder(tmp_path / "nowhere", 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        ImageFolder(tmp_path / "empty", 8)
    with pytest.raises(ValueError, match="channels = 4"):
        ImageFolder(folder, 8, 4)
    (folder / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png is in no subfolder"):
        ImageFolder(folder, 8, labels=True)
    with pytest.raises(ValueError, match=r"broken\.png is no picture to train on"):
        ImageFolder(folder, 8).batch(torch.arange(N + 1))
    Image.fromarray(np.ones((8, 8), dtype=np.uint16) * 40000).save(folder / "broken.png")
    with pytest.raises(ValueError, match="more than a byte each"):
        ImageFolder(folder, 8).batch(torch.arange(N + 1))


def test_a_data_set_of_hugging_face(pixels):
    import datasets  # takes seconds, here in one process alone

    images = [Image.fromarray(image.transpose(1, 2, 0)) for image in pixels]
    columns = {"picture": images, "digit": list(range(N)), "point": [[i, -i] for i in range(N)]}
    dataset = datasets.Dataset.from_dict(columns)
    data = HuggingFaceData(dataset, "picture", "digit", size=8)
    batch = data.batch(torch.tensor([4, 0]))
    torch.testing.assert_close(batch.x, unit(pixels)[[4, 0]])
    assert (batch.context.tolist(), data.classes, data.event_shape) == ([4, 0], N, (3, 8, 8))
    points = HuggingFaceData(dataset.with_format("torch"), "point")
    assert points.batch(torch.tensor([2])).x.tolist() == [[2.0, -2.0]]
    assert points.describe() != HuggingFaceData(dataset.select([1, 0]), "point").describe()
    with pytest.raises(ValueError, match="did you mean 'picture'"):
        HuggingFaceData(dataset, "pictures", size=8)
    with pytest.raises(ValueError, match="size=32"):
        HuggingFaceData(dataset, "picture")
    with pytest.raises(ValueError, match=r"holds -11, outside the stated range"):
        HuggingFaceData(dataset, "point", range=(0, 100)).batch(torch.tensor([11]))
    with pytest.raises(TypeError, match="give one of them, train"):
        HuggingFaceData(datasets.DatasetDict(train=dataset), "picture")
    with pytest.raises(TypeError, match="stream must"):
        HuggingFaceData(dataset.to_iterable_dataset(), "point")


def test_flips_mirror_half_and_are_drawn_from_the_generator():
    """1,024 coins: fewer than 432 or more than 592 heads has probability below 1e-6."""
    x = torch.arange(1024 * 6.0).reshape(1024, 1, 2, 3)
    data, every = Flipped(TensorData(x, torch.arange(1024))), torch.arange(1024)
    assert torch.equal(data.batch(every).x, x)
    once, again, other = (data.batch(every, generator(seed)).x for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    mirrored = (once == x.flip(-1)).flatten(1).all(1)
    kept = (once == x).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert 432 <= int(mirrored.sum()) <= 592
    assert data.classes == 1024
    with pytest.raises(ValueError, match="only images"):
        Flipped(TensorData(torch.zeros(2, 3)))
