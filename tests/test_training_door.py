"""What a run refuses before its first step, by value, reason and cure."""

import pytest
import torch
from runs import Quadratic, bits, fit, objective
from torch import nn

import sde_diffusion as sd
from sde_diffusion.networks import ResidualMLP
from sde_diffusion.training import Losses, Objective, train


@pytest.mark.parametrize(
    "name",
    [
        *("batch_size", "checkpoint_every", "keep", "log_every", "warm_up", "steps", "seed"),
        *("learning_rate", "epsilon", "weight_decay", "betas", "ema", "mixed_precision"),
    ],
)
def test_none_is_refused_where_a_value_is_needed(name):
    with pytest.raises((TypeError, ValueError), match=f"{name.replace('_', '.')}.* None"):
        fit(objective(), **{name: None})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": "1e-3"}, "learning_rate = '1e-3' must be a number"),
        ({"learning_rate": True}, "learning_rate = True must be a number"),
        ({"betas": 0.9}, r"betas = 0.9 must be two numbers in \[0, 1\), as \(0.9, 0.999\)"),
        ({"betas": ("a", 0.9)}, "betas = .* must be two numbers"),
        ({"clip": "1"}, "clip = '1' must be a number"),
        ({"ema": ["a"]}, r"ema = \['a'\].*: give sigma_rel"),
        ({"ema": [{"decay": "0.9"}]}, "ema = .*: give sigma_rel"),
        ({"ema": ()}, r"ema = \(\) leaves no weights"),
        ({"ema": [0.1, 0.1]}, "asks twice for 'sigma_rel 0.1'"),
        ({"ema": [0.1, 0.1000001]}, "asks twice for 'sigma_rel 0.1'"),
        ({"sampler": 3}, "sampler = 3 must be a function"),
        ({"device": "gpu"}, "device = 'gpu': Expected one of cpu, cuda.*; as 'cpu' or 'cuda'"),
        ({"device": "meta"}, "device = 'meta': .*; as 'cpu' or 'cuda'"),
        ({"device": f"cuda:{torch.cuda.device_count()}"}, "device = 'cuda:.*; as 'cpu' or 'cuda'"),
    ],
)
def test_values_that_are_refused(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fit(objective(), **given)


def test_another_device_than_accelerate_finds(monkeypatch):
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    with pytest.raises(ValueError, match="device = 'cpu', but accelerate is set to meta"):
        fit(objective(), device="cpu")


def test_one_gpu_for_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="'cpu:1' is one for all processes: leave it out"):
        fit(objective(), device="cpu:1")


def test_one_average_needs_no_list():
    several, alone = fit(objective(), ema=(0.1,)), fit(objective(), ema=0.1)
    assert bits(several.network) == bits(alone.network)
    assert list(fit(objective(), ema={"decay": 0.9}).averages) == ["decay 0.9"]


class Answering(Objective):
    """An objective whose answer is given."""

    def __init__(self, answer):
        super().__init__()
        self.network, self.answer = nn.Linear(1, 1), answer

    def forward(self, batch, generator):
        return self.answer(self.network(batch.x).square())


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda y: Losses(y.mean()), ValueError, r"of shape \(\): give one a sample"),
        (lambda y: Losses(y), ValueError, r"of shape \(8, 1\): give one a sample"),
        (lambda y: y.sum(1), TypeError, r"a Tensor: return Losses\(loss\)"),
        (lambda y: None, TypeError, r"a NoneType: return Losses\(loss\)"),
    ],
)
def test_answers_that_are_not_one_loss_a_sample(answer, error, message):
    with pytest.raises(error, match=message):
        fit(Answering(answer))
    assert fit(Answering(lambda y: Losses(y.sum(1))), steps=1).step == 1


def test_weights_without_a_shape():
    task = Quadratic()
    task.network.more = nn.LazyLinear(2)
    with pytest.raises(ValueError, match=r"network\.more\.weight .* call the network once"):
        fit(task)


def test_a_schedule_by_name():
    network, data = ResidualMLP((1,), 8, 1), torch.randn(8, 1)
    call = {"steps": 2, "batch_size": 4, "progress": False}
    named = train(network, data, "vp_cosine", **call)
    assert bits(named.network) == bits(train(network, data, sd.VPCosine(), **call).network)
    with pytest.raises(ValueError, match="did you mean 'vp_linear'"):
        train(network, data, "vp_linea", **call)
    with pytest.raises(TypeError, match=r"schedule = 3: give a Schedule"):
        train(network, data, 3, **call)
