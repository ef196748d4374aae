"""The steps of `Trainer` against a loop by hand, and training against the best predictor.

On data x_0 ~ N(m, v) the best predictors are linear in x_t, with V = alpha^2 v + sigma^2:

    E[eps | x_t] = sigma (x_t - alpha m)/V,      E[x_0 | x_t] = m + alpha v (x_t - alpha m)/V.
"""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from runs import (
    MEAN,
    VARIANCE,
    Dropping,
    Quadratic,
    bits,
    dropping,
    fit,
    gaussian_data,
)
from runs import objective as plain
from torch.nn.utils import clip_grad_norm_
from torch.optim.optimizer import register_optimizer_step_pre_hook

import sde_diffusion as sd
from sde_diffusion.networks import ResidualMLP
from sde_diffusion.training import Batch, train
from sde_diffusion.training.loop import OBJECTIVE
from sde_diffusion.training.order import Order
from sde_diffusion.training.random import generator_at


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_training_approaches_the_best_predictor(prediction):
    schedule, data = sd.VPLinear(), gaussian_data()
    network = ResidualMLP((1,), width=32, depth=1)
    before = bits(network)
    call = {"steps": 400, "batch_size": 128, "learning_rate": 5e-3, "progress": False}
    result = train(network, data, schedule, **call, prediction=prediction)
    assert bits(network) == before, "the network given is left as it was"
    assert result.step == len(result.losses) == 400
    assert not result.network.training

    # Mean squared distance to the best denoiser, over t and x_t (Gauss-Hermite).
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    nodes, weights = torch.tensor(nodes), torch.tensor(weights / weights.sum())

    def distance(network):
        denoiser, total = sd.NetworkDenoiser(network, schedule, prediction, label="time"), 0.0
        for time in torch.linspace(0.05, 0.95, 19, dtype=torch.float64):
            alpha_t, sigma_t = schedule(time)
            variance = alpha_t**2 * VARIANCE + sigma_t**2
            x = alpha_t * MEAN + variance.sqrt() * nodes[:, None]
            best = sigma_t * (x - alpha_t * MEAN) / variance
            with torch.no_grad():
                gap = denoiser.noise(x.float(), time.expand(len(x))).double() - best
            total += float((weights * gap[:, 0] ** 2).sum()) / 19
        return total

    assert distance(network) > 0.05
    assert distance(result.network) < 0.01


@pytest.mark.parametrize("clip", [None, 0.05])
def test_steps_are_those_of_a_loop_by_hand(clip):
    task, data, seed = plain(), gaussian_data(64), 3
    options = {"learning_rate": 3e-3, "betas": (0.8, 0.95), "weight_decay": 0.1, "epsilon": 1e-6}
    result = fit(task, data, clip=clip, seed=seed, warm_up=6, **options)

    mine = copy.deepcopy(task)
    adam = torch.optim.AdamW(
        mine.parameters(), lr=3e-3, betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6, fused=True
    )
    order, losses, clipped = Order(64, 8, seed), [], 0
    for n in range(24):
        batch = Batch(data[order.indices(n)])
        loss = mine(batch, generator_at(seed, OBJECTIVE, n, 0)).loss
        (loss.sum() / 8).backward()
        if clip is not None:
            clipped += float(clip_grad_norm_(mine.parameters(), clip)) > clip
        adam.param_groups[0]["lr"] = 3e-3 * min(1, (n + 1) / 6)
        adam.step()
        adam.zero_grad()
        losses.append(float(loss.detach().mean()))
    assert bits(result.objective) == bits(mine)
    assert result.losses.tolist() == losses
    assert clip is None or clipped > 4


def test_parts_of_a_batch_add_up_and_have_their_own_randomness():
    whole, *parts = (fit(Quadratic(1), accumulate=parts) for parts in (1, 2, 8))
    for part in parts:
        torch.testing.assert_close(part.losses, whole.losses, rtol=1e-5, atol=0)
        torch.testing.assert_close(part.network.weight, whole.network.weight, rtol=1e-5, atol=0)
    noisy = [fit(plain(), steps=2, accumulate=parts).losses[0] for parts in (1, 2)]
    assert noisy[0] != noisy[1]
    with pytest.raises(ValueError, match="batch_size = 8 in accumulate = 3 parts on 1 process:"):
        fit(plain(), accumulate=3)


def test_batches_are_epochs_and_a_function_of_the_step():
    order = Order(10, 4, seed=0)
    drawn = torch.cat([order.indices(step) for step in range(15)]).reshape(6, 10)
    assert torch.equal(drawn.sort(1)[0], torch.arange(10).expand(6, 10))
    assert len({tuple(epoch) for epoch in drawn.tolist()}) == 6
    for step in (14, 2, 7, 0):
        again = Order(10, 4, seed=0).indices(step)
        assert torch.equal(again, drawn.flatten()[4 * step : 4 * step + 4])
    assert not torch.equal(Order(10, 4, seed=1).indices(0), drawn[0, :4])
    assert sorted(Order(3, 8, seed=0).indices(2).bincount().tolist()) == [2, 3, 3]


def test_global_random_state_is_neither_read_nor_moved():
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        results.append(fit(dropping()))
        assert torch.equal(state, torch.get_rng_state())
    assert bits(results[0].network) == bits(results[1].network)
    other = fit(dropping(), seed=1)
    assert not torch.equal(other.losses, results[0].losses)
    still = fit(plain(ResidualMLP((1,), 8, 2)))
    assert not torch.equal(still.losses, fit(plain(Dropping((1,), 8, 2))).losses)


def test_precisions_follow_each_other_in_one_process():
    class Seeing(ResidualMLP):
        seen: list = []  # noqa: RUF012

        def forward(self, x, t):
            Seeing.seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(x, t)

    before = dict(AcceleratorState._shared_state)
    first = fit(plain(Seeing((1,), 8, 2)))
    half = fit(plain(Seeing((1,), 8, 2)), mixed_precision="bf16")
    again = fit(plain(Seeing((1,), 8, 2)))
    assert Seeing.seen == [False] * 24 + [True] * 24 + [False] * 24
    assert bits(first.network) == bits(again.network)
    assert half.network.enter.weight.dtype == torch.float32
    assert 0 < float((half.losses - first.losses).abs().max()) < 0.1
    assert AcceleratorState._shared_state == before
    assert not torch.is_autocast_enabled("cpu")
    out = half.objective(Batch(gaussian_data(8)), torch.Generator().manual_seed(0))
    assert out.loss.dtype == torch.float32, "what accelerate put around it is taken off"
    with pytest.raises(ValueError, match=r"fp16.* GPU"):
        fit(plain(), mixed_precision="fp16", device="cpu")


def test_parameter_groups_have_rates_of_their_own():
    rates = []

    class Grouped(Quadratic):
        def parameter_groups(self):
            return [{"params": [self.network.weight]}, {"params": [self.extra], "lr": 0.5}]

        def forward(self, batch, generator):
            losses = super().forward(batch, generator)
            return losses._replace(loss=losses.loss + self.extra**2)

    task = Grouped(1)
    task.extra = torch.nn.Parameter(torch.ones(()))
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, args, kwargs: rates.append([g["lr"] for g in optimizer.param_groups])
    )
    try:
        result = fit(task, warm_up=4, steps=6, learning_rate=0.01)
    finally:
        hook.remove()
    rise = torch.tensor([0.25, 0.5, 0.75, 1, 1, 1])
    torch.testing.assert_close(torch.tensor(rates), rise[:, None] * torch.tensor([0.01, 0.5]))
    assert float(result.objective.extra.detach()) != 1


def test_training_inside_inference_mode_and_in_float64():
    with torch.inference_mode():
        inside = fit(plain())
    assert bits(inside.network) == bits(fit(plain()).network)
    double = fit(plain(ResidualMLP((1,), 8, 2).double()))
    torch.testing.assert_close(double.losses, inside.losses, rtol=0.05, atol=0)
    assert double.network.enter.weight.dtype == torch.float64


def test_tied_and_frozen_weights():
    class Tied(ResidualMLP):
        def __init__(self):
            super().__init__((1,), width=8, depth=2)
            self.blocks[1].expand.weight = self.blocks[0].expand.weight
            self.enter.weight.requires_grad_(False)

    result, start = fit(plain(Tied())), Tied()
    assert torch.equal(result.network.enter.weight, start.enter.weight)
    assert not torch.equal(result.network.enter.bias, start.enter.bias)
    first, second = (block.expand.weight for block in result.network.blocks)
    assert first is second
    assert not torch.equal(first, start.blocks[0].expand.weight)


# Bad input


def test_bad_arguments_say_what_to_write():
    for bad in (
        *({"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}),
        *({"warm_up": -1}, {"clip": 0.0}, {"accumulate": 0}, {"keep": 0}, {"log_every": 1.5}),
        *({"betas": (0.9, 1.0)}, {"weight_decay": -1.0}, {"ema": ()}, {"seed": -1}),
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            fit(plain(), **bad)
    with pytest.raises(ValueError, match="did you mean 'bf16'"):
        fit(plain(), mixed_precision="bf1")
    with pytest.raises(TypeError, match=r"call sde_diffusion\.train"):
        fit(ResidualMLP((1,), 4, 1))
    network, data = ResidualMLP((1,), 4, 1), gaussian_data(8)
    with pytest.raises(TypeError, match="learning_rat"):
        train(network, data, sd.VPLinear(), steps=1, learning_rat=1)
    with pytest.raises(ValueError, match="did you mean 'velocity'"):
        train(network, data, sd.VPLinear(), steps=1, prediction="velocty")
    with pytest.raises(TypeError, match=r"torch.uint8.*\.float\(\)"):
        fit(plain(), torch.zeros(4, 1, dtype=torch.uint8))
    with pytest.raises(ValueError, match="finite"):
        fit(plain(), torch.tensor([[1.0], [float("nan")]]))
    with pytest.raises(ValueError, match=r"built for \(batch, \*\(1,\)\)"):
        fit(plain(), torch.zeros(8, 2))
    with pytest.raises(ValueError, match="need a folder"):
        fit(plain(), sampler=lambda network: torch.zeros(1, 2))
    frozen = plain(ResidualMLP((1,), 4, 1).requires_grad_(False))
    with pytest.raises(ValueError, match="no weights to train"):
        fit(frozen)


def test_optional_packages_are_imported_late_and_missed_politely(tmp_path):
    program = """
import sys
import sde_diffusion as sd, torch
slow = {"accelerate", "safetensors", "rich", "matplotlib", "PIL", "tensorboard"}
assert not slow & set(sys.modules)
def missed(name, **extra):
    sys.modules[name] = None
    try:
        sd.train(sd.networks.ResidualMLP((1,), 4, 1), torch.zeros(2, 1), sd.VPLinear(), steps=1,
                 **extra)
    except ImportError as error:
        assert "pip install" in str(error) and name in str(error), error
    else:
        raise AssertionError(name)
    del sys.modules[name]
missed("safetensors", folder="never-written")
missed("tensorboard", folder="never-written", tensorboard=True)
missed("accelerate")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=tmp_path)
    assert not list(tmp_path.iterdir())  # nothing is begun that cannot be done
