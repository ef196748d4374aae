"""Several processes do the steps of one; a loss that is scaled goes on where it was."""

import multiprocessing
import socket

import torch
from runs import CALL, begin_as_one_of, bits, dropping, fit, gaussian_data, important

from sde_diffusion.networks import ResidualMLP
from sde_diffusion.training import Trainer, latest
from sde_diffusion.training.loop import Loop
from sde_diffusion.training.processes import accelerated
from sde_diffusion.weights import TRAINING, load_weights, read_file


def test_two_processes_do_the_steps_of_one(tmp_path):
    options = {"accumulate": 4, "tensorboard": False}
    alone = fit(important(), folder=tmp_path / "one", **options)
    context = multiprocessing.get_context("forkserver")
    slow = ["torch._dynamo", "accelerate", "sde_diffusion", "safetensors.torch"]
    context.set_forkserver_preload(slow)
    for steps in (11, 24):  # and resumed
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = (port, tmp_path / "two", options | {"steps": steps})
        both = [context.Process(target=begin_as_one_of, args=(r, 2, *arguments)) for r in (0, 1)]
        for process in both:
            process.start()
        for process in both:
            process.join(60)
        assert [process.exitcode for process in both] == [0, 0]
    network = ResidualMLP((1,), 8, 2, seed=5)
    load_weights(network, latest(tmp_path / "two"))
    for mine, theirs in zip(network.parameters(), alone.network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    losses = read_file(latest(tmp_path / "two"), TRAINING)[0]["losses"]
    torch.testing.assert_close(losses, alone.losses, rtol=1e-5, atol=0)
    assert alone.objective.importance.density().std() > 0.01, "it was used"
    header = [read_file(latest(tmp_path / n), TRAINING)[1] for n in ("one", "two")]
    assert header[0] == header[1], "a run on two may go on alone"


def scaled(folder, steps):
    """A run with a loss scaled by a factor that grows every 3 steps until it overflows."""
    trainer = Trainer(dropping(), gaussian_data(64), folder=folder, **CALL | {"steps": steps})
    with accelerated("no", "cpu") as accelerator:
        accelerator.scaler = torch.amp.GradScaler("cpu", 2.0**120, growth_interval=3)
        state = Loop(trainer.options, accelerator).run()
        return state, accelerator.scaler.state_dict()


def test_the_scale_of_the_loss_is_kept(tmp_path):
    whole, scale = scaled(tmp_path / "whole", 24)
    scaled(tmp_path / "parts", 11)
    parts, again = scaled(tmp_path / "parts", 24)
    assert scale == again
    assert 2.0**120 != scale["scale"] < 2.0**127, "it overflowed, was left out, and lowered"
    assert bits(parts.objective) == bits(whole.objective)
    assert parts.record.losses == whole.record.losses
    assert latest(tmp_path / "parts").read_bytes() == latest(tmp_path / "whole").read_bytes()
