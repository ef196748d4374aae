"""Whether objective, network, data and held-out data fit each other: seen before the first step."""

import pytest
import torch
from runs import Quadratic, fit, scheduling
from torch import nn

import sde_diffusion as sd
from sde_diffusion.networks import DiT, ResidualMLP, UNet
from sde_diffusion.training import (
    DiffusionObjective,
    LearnedScheduleObjective,
    LearnedUncertainty,
    LearnedVarianceObjective,
    as_data,
    train,
)
from sde_diffusion.training.build import Samples, sampler_of
from sde_diffusion.training.random import generator_at

X, IMAGES = torch.linspace(-1, 1, 16)[:, None], torch.zeros(4, 1, 8, 8)
LABELS, TOKENS = torch.arange(16) % 4, torch.zeros(16, 3, 4)
CALL = {"steps": 1, "batch_size": 4, "progress": False}


class Own(nn.Module):
    """A network of a user's own, with a condition and without `drop`."""

    def __init__(self):
        super().__init__()
        self.linear, self.table, self.asked = nn.Linear(1, 1), nn.Embedding(4, 1), 0

    def forward(self, x, t, c=None):
        self.asked += 1
        return self.linear(x) + (0 if c is None else self.table(c))


def mlp(**more):
    return ResidualMLP((1,), 8, 1, **more)


def counting(monkeypatch):
    """Steps that a run begins."""
    steps = []
    step = sd.training.loop.Loop._step
    monkeypatch.setattr(
        "sde_diffusion.training.loop.Loop._step", lambda self: (steps.append(1), step(self))
    )
    return steps


@pytest.mark.parametrize(
    ("network", "data", "message"),
    [
        (mlp(token_size=4), X, "token_size = 4, but the data have no tokens"),
        (mlp(), (X, TOKENS), "tokens of 4 numbers, but the network takes no tokens"),
        (mlp(token_size=5), (X, TOKENS), "takes token_size = 5: give it token_size = 4"),
        (mlp(classes=4), (X, TOKENS), "the data have no class labels"),
        (mlp(token_size=4), (X, LABELS), "takes tokens, but the data have class labels"),
        (mlp(classes=3), (X, LABELS), "labels up to 3, but the network knows classes = 3"),
        (mlp(), torch.zeros(4, 2), r"built for \(batch, \*\(1,\)\)"),
        (UNet(1, width=8, multipliers=[1, 1, 1, 1, 1]), IMAGES, "multiples of 16"),
        (UNet(3, width=8), IMAGES, "images of 3 channels"),
        (DiT(1, patch=3, width=16, depth=1, heads=2), IMAGES, "multiples of 3"),
        (mlp(outputs=2), X, r"outputs=2.*LearnedVarianceObjective\(denoiser\)"),
    ],
)
def test_a_network_and_data_that_do_not_fit(monkeypatch, network, data, message):
    steps = counting(monkeypatch)
    with pytest.raises(ValueError, match=message):
        train(network, data, sd.VPLinear(), **CALL)
    assert not steps


@pytest.mark.parametrize(
    ("network", "data"),
    [
        (mlp(token_size=4), (X, TOKENS)),
        (mlp(classes=9), (X, LABELS)),
        (UNet(1, width=8, multipliers=[1, 1], token_size=4), (IMAGES, TOKENS[:4])),
        (DiT(1, patch=4, width=16, depth=1, heads=2, classes=4), (IMAGES, LABELS[:4])),
        (ResidualMLP((), 8, 1), X[:, 0]),
    ],
)
def test_what_fits_is_trained(network, data):
    assert train(network, data, sd.VPLinear(), **CALL).step == 1


@pytest.mark.parametrize(
    ("network", "data", "held_out", "message"),
    [
        (mlp(), X, torch.zeros(4, 2), r"held_out has samples of shape \(2,\), the data .*\(1,\)"),
        (mlp(classes=4), (X, LABELS), (X, LABELS + 1), "held_out has labels up to 4, .* 0 to 3"),
        (Own(), (X, LABELS), (X, LABELS + 1), "held_out has labels up to 4, .* 0 to 3"),
        (mlp(classes=4), (X, LABELS), X, "held_out has no conditions, the data .* class labels"),
        (mlp(token_size=4), (X, TOKENS), (X, TOKENS[..., :2]), "held_out has tokens of 2 numbers"),
        (mlp(), as_data(X, (-1, 1)), as_data(X, (-2, 2)), r"values in \(-2.0, 2.0\), the data in"),
        (mlp(), as_data(X, (-1, 1)), 3 * X, r"held_out: .*outside the stated range \[-1, 1\]"),
        (mlp(), X, "X", "held_out: data is the str"),
    ],
)
def test_held_out_data_of_another_kind(tmp_path, monkeypatch, network, data, held_out, message):
    steps = counting(monkeypatch)
    with pytest.raises((TypeError, ValueError), match=message):
        train(network, data, sd.VPLinear(), held_out=held_out, folder=tmp_path, **CALL)
    assert not steps


def test_held_out_data_may_hold_fewer_and_more_classes(tmp_path):
    """The network says what it knows, not the largest label of the data."""
    for shown, held_out in ((LABELS, LABELS.clamp(max=1)), (LABELS.clamp(max=1), LABELS)):
        call = {**CALL, "folder": tmp_path / str(int(shown.max()))}
        train(mlp(classes=4), (X, shown), sd.VPLinear(), held_out=(X, held_out), **call)


def test_a_network_of_ones_own_needs_drop_only_to_withhold():
    network = Own()
    assert train(network, (X, LABELS), sd.VPLinear(), **CALL).step == 1
    assert network.asked == 0, "it is left as it was"
    message = r"Own\.forward\(x, t, c=None\).*forward\(x, t, context, drop\).*drop = 0\.1"
    with pytest.raises(ValueError, match=message):
        train(network, (X, LABELS), sd.VPLinear(), drop=0.1, **CALL)
    denoiser = sd.NetworkDenoiser(network, sd.VPLinear())
    with pytest.raises(ValueError, match=message):
        fit(LearnedUncertainty(DiffusionObjective(denoiser, drop=0.1)), (X, LABELS))
    with pytest.raises(ValueError, match=r"Linear\.forward\(input.*as forward\(x, t\)"):
        train(nn.Linear(1, 1), X, sd.VPLinear(), **CALL)


def test_nothing_is_withheld_in_evaluation():
    """The held-out loss is of the network with its conditions, drop or no drop."""
    torch.manual_seed(0)
    network, wide = mlp(classes=4), sd.NetworkDenoiser(mlp(classes=4, outputs=2), sd.VPLinear())
    for parameter in (*network.parameters(), *wide.network.parameters()):
        nn.init.normal_(parameter, std=0.3)
    batch = as_data((X, LABELS)).batch(torch.arange(16))
    make = lambda drop: DiffusionObjective(sd.NetworkDenoiser(network, sd.VPLinear()), drop=drop)
    loss = lambda task: task(batch, generator_at(0, 0)).loss
    assert torch.equal(loss(make(0.5).eval()), loss(make(0.0)))
    assert not torch.equal(loss(make(0.5)), loss(make(0.0)))
    both = lambda drop: LearnedVarianceObjective(wide, drop=drop)
    assert torch.equal(loss(both(0.5).eval()), loss(both(0.0)))
    assert not torch.equal(loss(both(0.5)), loss(both(0.0)))


def test_a_schedule_that_nothing_would_train():
    denoiser = sd.NetworkDenoiser(mlp(), sd.LearnedSchedule(), label="edm")
    plain = DiffusionObjective(denoiser, weighting="likelihood")
    for task in (plain, LearnedUncertainty(plain)):
        with pytest.raises(ValueError, match=r"take LearnedScheduleObjective\(objective\)"):
            fit(task, X)
    assert fit(LearnedScheduleObjective(plain), X, steps=1).step == 1
    on = denoiser.on(denoiser.schedule.frozen())
    assert fit(DiffusionObjective(on), X, steps=1).step == 1


def test_a_learned_schedule_refuses_labels_and_weights_in_few_words():
    for label in ("time", "timestep"):
        denoiser = sd.NetworkDenoiser(mlp(), sd.LearnedSchedule(), label=label, timesteps=10)
        with pytest.raises(ValueError, match=f"label = '{label}' .* take label='edm'"):
            LearnedScheduleObjective(DiffusionObjective(denoiser, weighting="likelihood"))
    denoiser = sd.NetworkDenoiser(mlp(), sd.LearnedSchedule(), label="edm")
    for options in ({}, {"weighting": "likelihood", "importance": "loss"}):
        with pytest.raises(ValueError, match=r"weighting = .* times = .* importance = ") as found:
            LearnedScheduleObjective(DiffusionObjective(denoiser, **options))
        assert len(str(found.value)) < 450
        assert "ResidualMLP" not in str(found.value)


def test_samples_are_drawn_on_the_schedule_as_it_is_by_then(tmp_path):
    seen = []

    def sampler(network, schedule):
        seen.append(schedule)
        return torch.zeros(1, 2)

    fit(scheduling(), X, folder=tmp_path / "a", sampler=sampler, sample_every=12)
    task = scheduling()
    assert seen[0] == task.schedule.frozen()
    assert len({repr(schedule) for schedule in seen}) == 3
    assert seen[2] == sd.load_denoiser(tmp_path / "a").schedule
    with pytest.raises(ValueError, match=r"sampler\(network\) takes .* write sampler"):
        fit(task, X, folder=tmp_path / "b", sampler=lambda network: torch.zeros(1, 2))

    draw = sampler_of(task.denoiser, as_data(X), Samples(n=4, steps=2))
    nn.init.normal_(task.network.leave.weight)
    narrow = sd.LearnedSchedule(2.0, -2.0).frozen()
    drawn = draw(task.network, narrow)
    assert torch.equal(drawn, sd.sample(task.denoiser.on(narrow), (4, 1), steps=2, seed=0))
    assert not torch.equal(drawn, draw(task.network))


def test_an_objective_without_a_denoiser_is_not_asked():
    assert fit(Quadratic(1), (X, LABELS), steps=1).step == 1
