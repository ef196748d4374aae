"""How long a step takes, of every recipe, and of the trainer beside a bare PyTorch loop.

A step is the processor time from one batch to the next, asked of the data. What is compared takes
turns, and the least of the rounds' medians counts, since other work on the machine only adds.

The bare loop is what one would write for one purpose: weights in float32, a clipped gradient,
AdamW, one average of the weights; no checkpoints, no repeatable order, no losses kept. Network,
data, loss and optimiser are the same.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

import sde_diffusion as sd
from sde_diffusion.networks import ResidualMLP, UNet, count_parameters
from sde_diffusion.training import Batch, DiffusionObjective, TensorData, Trainer

from ..data import digits
from .measure import trainer_of
from .recipes import BASE, SEED, TABLES, Recipe
from .sizes import Sizes

BATCH = TABLES["training"]["batch_size"]
ROUNDS = 3
RATE = TABLES["training"]["learning_rate"]


class Clocked(TensorData):
    """Data that note the processor time at every batch."""

    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        self.times: list[float] = []

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        self.times.append(time.process_time())
        return super().batch(indices, generator)

    def step(self) -> float:
        """The median of the seconds between two batches, the first few left out."""
        gaps = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
        return statistics.median(gaps[len(gaps) // 4 :])


def loss(network: nn.Module, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Flow matching, written out."""
    at = t.reshape(-1, *[1] * (x_0.ndim - 1))
    output = network((1 - at) * x_0 + at * eps, t)
    return (output - (eps - x_0)).square().mean()


def bare(network: nn.Module, steps: int, data: Clocked) -> None:
    """The loop."""
    network = copy.deepcopy(network)
    average = copy.deepcopy(network)
    weights: list[Tensor] = list(network.parameters())
    averaged: list[Tensor] = list(average.parameters())
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0)
    for _ in range(steps):
        x_0, _ = data.batch(torch.randint(len(data), (BATCH,)))
        loss(network, x_0, torch.rand(BATCH), torch.randn_like(x_0)).backward()
        clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, 0.01)


def denoiser_of(network: nn.Module) -> sd.NetworkDenoiser:
    """What is trained by the loss."""
    return sd.NetworkDenoiser(network, sd.FlowMatching(), "flow", "time")


def trained(network: nn.Module, steps: int, data: Clocked) -> None:
    """The same by the trainer, without a folder."""
    how: dict[str, Any] = {"progress": False, "device": "cpu", "ema": (0.1,)}
    how |= {"batch_size": BATCH, "learning_rate": RATE}
    Trainer(DiffusionObjective(denoiser_of(network)), data, steps=steps, **how).train()


def of_recipes(sizes: Sizes, recipes: Sequence[Recipe]) -> dict[str, float]:
    """Recipe -> seconds of a step; seeds of one recipe share theirs."""
    images = digits()[0]

    def step(recipe: Recipe, data: Clocked) -> None:
        trainer_of(recipe, sizes.overhead // 2 + 1, sizes, None, data).train()

    calls = {r.name: partial(step, r) for r in recipes if r.group != SEED}
    found = fastest(calls, images)
    return {recipe.name: found.get(recipe.name, found[BASE]) for recipe in recipes}


def fastest(calls: Mapping[str, Callable[[Clocked], None]], images: Tensor) -> dict[str, float]:
    """Name -> the least of the rounds' medians of a step, in seconds."""
    best = dict.fromkeys(calls, math.inf)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            data = Clocked(images)
            call(data)
            best[name] = min(best[name], data.step())
    return best


def overhead(sizes: Sizes) -> list[dict[str, Any]]:
    """Milliseconds of a step of both, and their ratio, for an MLP and for the U-Net."""
    images, steps = digits()[0], sizes.overhead + 1
    unet = {k: v for k, v in TABLES["network"].items() if k != "kind"} | dict(sizes.network)
    networks = {
        "MLP": ResidualMLP((1, 8, 8), width=128, depth=2),
        "U-Net": UNet(1, **unet),
    }
    rows = []
    for name, network in networks.items():
        best = fastest(
            {
                "trainer": partial(trained, network, steps),
                "bare loop": partial(bare, network, steps),
            },
            images,
        )
        rows.append(
            {
                "network": name,
                "parameters": count_parameters(network),
                "batch": BATCH,
                "milliseconds": {loop: 1e3 * seconds for loop, seconds in best.items()},
                "ratio": best["trainer"] / best["bare loop"],
            }
        )
    return rows
