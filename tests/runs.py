"""Small training runs, in a module of their own so that other processes can import them."""

import os
import signal
import time

import torch
from torch import nn
from torch.nn.functional import dropout

from sde_diffusion import LearnedSchedule, NetworkDenoiser, VPLinear
from sde_diffusion.networks import ResidualMLP
from sde_diffusion.training import (
    DiffusionObjective,
    Importance,
    LearnedScheduleObjective,
    LearnedUncertainty,
    Losses,
    Objective,
    Trainer,
)

CALL = {"steps": 24, "batch_size": 8, "checkpoint_every": 5, "log_every": 4, "progress": False}
MEAN, VARIANCE = 0.7, 0.3


class Dropping(ResidualMLP):
    """A network with randomness of its own, from torch's global generator."""

    def forward(self, x, t):
        return super().forward(dropout(x, 0.2, self.training), t)


class Remembering(DiffusionObjective):
    """An objective that remembers: how many steps there were, and the sum of the errors."""

    def __init__(self, denoiser):
        super().__init__(denoiser)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("errors", torch.zeros(()))

    def forward(self, batch, generator):
        losses = super().forward(batch, generator)
        self.errors += losses.error.sum()
        return losses._replace(loss=losses.loss * (1 + 0.1 * torch.tanh(self.errors / 1000)))

    def after_step(self):
        self.steps += 1


class Quadratic(Objective):
    """|w - x|^2 for each sample, with nothing random: gradients by hand."""

    def __init__(self, size=3):
        super().__init__()
        self.network = nn.Linear(size, 1, bias=False)
        nn.init.constant_(self.network.weight, 0.5)

    def forward(self, batch, generator):
        return Losses((self.network.weight[0] - batch.x).square().sum(1))


def gaussian_data(n=1024):
    """The n quantiles of N(MEAN, VARIANCE) at (i + 1/2)/n, shape (n, 1)."""
    p = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (MEAN + VARIANCE**0.5 * torch.special.ndtri(p)).float()[:, None]


def objective(network=None, kind=DiffusionObjective):
    network = ResidualMLP((1,), width=8, depth=2) if network is None else network
    return kind(NetworkDenoiser(network, VPLinear(), label="time"))


def dropping():
    return objective(Dropping((1,), width=8, depth=2), Remembering)


def important():
    """Times drawn by importance, which is known after some steps."""
    kind = lambda denoiser: DiffusionObjective(denoiser, importance=Importance(cells=4, memory=30))
    return objective(kind=kind)


def uncertain():
    return LearnedUncertainty(dropping(), size=8)


def scheduling():
    schedule = LearnedSchedule(4.0, -4.0, width=8)
    denoiser = NetworkDenoiser(ResidualMLP((1,), 8, 2), schedule, label="log_snr")
    return LearnedScheduleObjective(DiffusionObjective(denoiser, weighting="likelihood"))


MORE = {"importance": important, "uncertainty": uncertain, "schedule": scheduling}


def fit(objective, data=None, **options):
    return Trainer(objective, gaussian_data(64) if data is None else data, **CALL | options).train()


def bits(module):
    return [value.numpy().tobytes() for value in module.state_dict().values()]


def contents(folder):
    """The checkpoints and the log of a run, by name."""
    names = [n for n in sorted(os.listdir(folder)) if n.endswith((".safetensors", ".jsonl"))]
    return {name: (folder / name).read_bytes() for name in names}


def begin(folder, options):
    """What a process of its own does: the run of `dropping`."""
    torch.set_num_threads(1)
    fit(dropping(), folder=folder, **options)


def die_within(process, seconds):
    """Kill a process after so many seconds, unless it ended; whether it was killed."""
    time.sleep(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def begin_as_one_of(rank, processes, port, folder, options):
    """What one of several processes does that train together."""
    together = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in together.items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.set_num_threads(1)
    fit(important(), folder=folder, device="cpu", **options)
    torch.distributed.destroy_process_group()
