"""What a run tells as it goes: lines of losses, samples, held-out losses, TensorBoard."""

import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from runs import Quadratic, fit, gaussian_data
from runs import objective as plain

from sde_diffusion.training import Losses
from sde_diffusion.training.pictures import columns, has_picture, picture, usual_count
from sde_diffusion.training.record import NAMES, Record


def lines(folder):
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def test_the_log_has_the_mean_losses_once(tmp_path):
    result = fit(plain(), folder=tmp_path)
    told = lines(tmp_path)
    assert [line["step"] for line in told] == [4, 8, 12, 16, 20, 24]
    means = result.losses.reshape(6, 4).mean(1)
    torch.testing.assert_close(torch.tensor([line["loss"] for line in told]).double(), means)
    for line in told:
        assert line["learning_rate"] == pytest.approx(1e-5 * line["step"])
    for line in told:
        assert set(line["by_lambda"]) <= set(NAMES)
    # Broken off after its last checkpoint, in the middle of a line.
    before = (tmp_path / "losses.jsonl").read_bytes()
    (tmp_path / "step-000000024.safetensors").unlink()
    fit(plain(), folder=tmp_path / "b", steps=20)
    (tmp_path / "b" / "losses.jsonl").write_bytes(before + b'{"step": 28, "lo')
    fit(plain(), folder=tmp_path / "b")
    assert (tmp_path / "b" / "losses.jsonl").read_bytes() == before


def test_errors_are_told_by_lambda():
    record = Record()
    for step in range(3):
        lambda_ = torch.tensor([-7.0, -6.0, -0.1, 0.0, 5.9, 6.0, 60.0]).double()
        error = torch.arange(7.0) + 10 * step
        record.note([Losses(error, lambda_, error), Losses(error, lambda_ * 0 + 1, error)])
    record.read(lambda values: values)
    got = record.by_lambda(begin_anew=True)
    assert got["< -6"] == 10
    assert got["-6..-4"] == 11
    assert got["-2..0"] == 12
    assert got["0..2"] == pytest.approx((13 + 7 * 13) / 8)
    assert got["4..6"] == 14
    assert got["> 6"] == pytest.approx(15.5)
    assert "2..4" not in got
    assert record.losses == [3.0, 13.0, 23.0]
    assert record.by_lambda(begin_anew=True) == {}


def test_processes_share_the_parts_in_their_order():
    # Two processes with one part each are one process with two.
    one, two = Record(), Record()
    parts = [[Losses(torch.full((2,), 10.0 * s + p)) for p in (1, 2)] for s in range(3)]
    for step in parts:
        one.note(step)
        two.note(step[:1])
    one.read(lambda values: values)
    two.read(lambda values: torch.cat([values, values + 1]))
    assert one.losses == two.losses == [1.5, 11.5, 21.5]


def test_held_out_loss_is_that_of_the_averaged_weights(tmp_path):
    data, held_out = gaussian_data(64), gaussian_data(20) + 1
    result = fit(Quadratic(1), data, held_out=held_out, evaluate_every=12, folder=tmp_path)
    told = [line for line in lines(tmp_path) if "held_out" in line]
    assert [line["step"] for line in told] == [12, 24]
    expected = (result.network.weight[0] - held_out).square().mean()
    assert told[-1]["held_out"] == pytest.approx(float(expected), rel=1e-6)
    whole = fit(Quadratic(1), data)
    assert torch.equal(result.losses, whole.losses), "looking changes nothing"


def test_samples_are_drawn_from_the_averaged_network(tmp_path):
    seen = []

    def sampler(network):
        seen.append(network)
        torch.rand(3)  # a sampler may use the global generator
        return torch.full((5, 1, 2, 3), float(network.weight)).detach()

    result = fit(Quadratic(1), sampler=sampler, sample_every=10, folder=tmp_path, tensorboard=True)
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == [f"step-{step:09d}.png" for step in (0, 10, 20, 24)]
    assert torch.equal(seen[-1].weight, result.network.weight)
    assert not seen[-1].training
    assert torch.equal(result.losses, fit(Quadratic(1)).losses)
    assert [p for p in (tmp_path / "tensorboard").iterdir() if p.stat().st_size > 1000]


def test_a_grid_shows_every_pixel_once():
    x = torch.linspace(-1, 1, 5 * 3 * 64 * 70).reshape(5, 3, 64, 70)
    drawn = np.asarray(Image.open(io.BytesIO(picture(x, (-1, 1)))))
    assert drawn.shape == (2 * 64 + 1, 3 * 70 + 2, 3)
    expected = ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(drawn[:64, 71:141], expected[1])
    assert np.array_equal(drawn[65:, :70], expected[3])
    assert not drawn[64].any()
    assert not drawn[65:, 142:].any()
    small = np.asarray(Image.open(io.BytesIO(picture(torch.tensor([[[[0.0, 1.0]]]])))))
    assert small.shape == (32, 64)
    assert set(small.ravel()) == {0, 255}
    points = np.asarray(Image.open(io.BytesIO(picture(torch.randn(50, 2)))))
    assert points.std() > 0


@pytest.mark.parametrize(
    ("count", "classes", "shape"),
    [(9, None, (3, 3)), (60, 10, (6, 10)), (64, 2, (8, 8)), (63, 3, (7, 9)), (5, 10, (2, 3))],
)
def test_classes_stand_in_columns(count, classes, shape):
    """Sample i is as bright as its class: where rows are whole, each column has one brightness."""
    x = torch.arange(count) % (classes or count)
    x = (x / x.max() * 2 - 1)[:, None, None, None].expand(-1, 1, 64, 64)
    drawn = np.asarray(Image.open(io.BytesIO(picture(x, (-1, 1), classes))))
    places = drawn[32::65, 32::65]
    assert places.shape == shape
    one = bool((places == places[0]).all())
    assert one == (classes is not None and 2 * classes <= count)
    assert classes is None or columns(usual_count(classes), classes) % classes == 0


def test_what_has_no_picture_is_refused():
    for x in (torch.zeros(4), torch.zeros(4, 3), torch.zeros(2, 2, 8, 8), torch.zeros(0, 2)):
        assert not (len(x) and has_picture(x.shape[1:]))
        with pytest.raises(ValueError, match=r"have no picture: give images"):
            picture(x)


def test_a_sampler_is_tried_before_the_first_step(tmp_path, capsys):
    with pytest.raises(ValueError, match="have no picture"):
        fit(Quadratic(1), sampler=lambda network: torch.zeros(4, 3), folder=tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    fit(Quadratic(1), sampler=lambda network: torch.full((4, 2), float("nan")), folder=tmp_path)
    assert "samples of step 0 are not finite: not drawn" in capsys.readouterr().err


def test_progress_tells_the_step_the_loss_and_its_parts(capsys, monkeypatch):
    monkeypatch.setattr("sde_diffusion.progress.EVERY", 0.0)
    fit(plain(), progress=True)
    told = capsys.readouterr().err
    assert "step 20, loss " in told
    assert "by lambda" in told
    assert "left" in told
    first = told.splitlines()[0]
    assert re.fullmatch(r"  4%(, \d:\d\d left)?", first), "no loss is known yet: nothing follows"
