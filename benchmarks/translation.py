"""Digits from smaller ones, from halves and from outlines: networks conditioned on an image.

python -m benchmarks.translation [exact] [digits] [--quick] [--output DIR]

`exact`: images are drawn from a mixture of Gaussians fitted to the digits, whose law given a
smaller or halved image is a mixture too, in closed form. Samples given new conditions are held
against it by mean, covariance and sliced Wasserstein distance, next to those of the exact
conditional denoiser with the same solver (what the solver costs), of a network that was told
nothing, and of the law itself (what so few samples cost).

`digits`: scikit-learn's digits. Given the conditions of held-out ones, samples must agree with
their condition; and as the digit itself is one more draw from the law that is sought, two samples
must lie as far from each other as each from that digit.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import sde_diffusion as sd
from sde_diffusion.digit_mixture import digit_mixture
from sde_diffusion.extras import optional
from sde_diffusion.networks import ResidualMLP
from sde_diffusion.problems import GaussianMixture
from sde_diffusion.training import (
    Batch,
    Data,
    DiffusionObjective,
    Erased,
    Outline,
    Pairs,
    Smaller,
    digits,
)

from .latent import train
from .metrics import moments, sliced_wasserstein
from .parts import Pictures, Row, run

SCHEDULE = sd.VPCosine()
STEPS = 20  # of the default solver
EVENT = (1, 8, 8)


class Task(NamedTuple):
    """What is told of an image.

    Attributes:
        condition: image -> image.
        told: how many numbers of it tell something.
    """

    condition: Callable[[Tensor], Tensor]
    told: int


LINEAR = {
    "4 x 4 pixels": Task(Smaller(2), 16),
    "2 x 2 pixels": Task(Smaller(4), 4),
    "left half": Task(Erased(top=0, left=4, height=8, width=4), 32),
}
TASKS = {**LINEAR, "outline": Task(Outline(), 64)}


class Drawn(Data):
    """Images drawn anew from a law each time they are asked for."""

    event_shape = EVENT

    def __init__(self, law: GaussianMixture) -> None:
        self.law = law

    def __len__(self) -> int:
        return 2**20

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        if generator is None:
            generator = torch.Generator().manual_seed(int(indices[0]))
        return Batch(self.law.sample(len(indices), generator).reshape(-1, *EVENT).float())

    def describe(self) -> str:
        return "drawn from a mixture fitted to digits"


def conditional(task: Task, data: Data, steps: int, width: int) -> tuple[sd.NetworkDenoiser, Row]:
    """A denoiser trained with the condition, a tenth of the time without."""
    channels = task.condition(torch.zeros(1, *EVENT)).shape[1]
    network = ResidualMLP(EVENT, width=width, depth=3, condition_channels=channels)
    read_as = lambda made: sd.NetworkDenoiser(made, SCHEDULE, "velocity", "time")
    objective = DiffusionObjective(read_as(network), drop=0.1)
    made, spent = train(objective, Pairs(data, task.condition), steps, 256, 2e-3)
    return read_as(made), spent


def given(denoiser: sd.NetworkDenoiser, condition: Tensor | None, count: int, seed: int) -> Tensor:
    """Samples, (count, 1, 8, 8), given one condition each or one for all; None: none."""
    if condition is not None:
        denoiser = denoiser.given(condition.float().expand(count, -1, -1, -1))
    with torch.no_grad():
        return sd.sample(denoiser, (count, *EVENT), steps=STEPS, seed=seed)


def measure_exact(quick: bool) -> tuple[Row, Pictures]:
    """Against the exact law given the condition."""
    law = digit_mixture().law
    asked, count = (2, 100) if quick else (16, 1000)
    new = law.sample(asked, torch.Generator().manual_seed(1)).reshape(-1, *EVENT)
    result: Row = {"conditions": asked, "samples of each": count}
    pictures: Pictures = {}
    for name, task in LINEAR.items():
        denoiser, spent = conditional(task, Drawn(law), 50 if quick else 4000, 256)
        matrix = _matrix(task)
        rows = [_against(task, denoiser, law, matrix, x[None], count) for x in new]
        result[name] = {"network": spent} | {
            source: {
                key: statistics.mean(row[source][key] for row in rows) for key in rows[0][source]
            }
            for source in rows[0]
        }
        y = task.condition(new[:1])
        posterior = law.posterior(matrix, _told(task, y), 0.0)
        pictures[f"exact law given {name}"] = posterior.sample(
            10, torch.Generator().manual_seed(2)
        ).reshape(-1, *EVENT)
        pictures[f"network given {name}"] = given(denoiser, y, 10, seed=2)
    return result, pictures


def _matrix(task: Task) -> Tensor:
    """A of the numbers that are told, (told, 64)."""
    return _told(task, task.condition(torch.eye(64, dtype=torch.float64).reshape(-1, *EVENT))).T


def _told(task: Task, condition: Tensor) -> Tensor:
    """The numbers of a condition that tell something, (batch, told)."""
    if isinstance(task.condition, Erased):
        return condition[:, 0][condition[:, 1] < 0].reshape(len(condition), task.told)
    return condition.flatten(1)


def _against(
    task: Task,
    denoiser: sd.NetworkDenoiser,
    law: GaussianMixture,
    matrix: Tensor,
    x: Tensor,
    count: int,
) -> dict[str, dict[str, float]]:
    """Distances to the exact law given the condition of x."""
    y = task.condition(x)
    posterior = law.posterior(matrix, _told(task, y), 0.0)
    draw = lambda seed: posterior.sample(count, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        solved = sd.sample(posterior.denoiser(SCHEDULE), (count, 64), steps=STEPS, seed=0)
    sources = {
        "conditional network": given(denoiser, y, count, seed=0),
        "exact denoiser": solved,
        "network told nothing": given(denoiser, None, count, seed=0),
        "exact law": draw(0),
    }
    truth, covariance = draw(1), posterior.data_covariance()
    found = {}
    for name, samples in sources.items():
        flat = samples.flatten(1).double()
        mean, spread = moments(flat)
        found[name] = {
            "mean": float((mean - posterior.mean).norm() / covariance.trace().sqrt()),
            "variance": float(spread.trace() / covariance.trace()),
            "covariance": float((spread - covariance).norm() / covariance.norm()),
            "sliced": sliced_wasserstein(flat, truth),
            "condition": _disagreement(task, flat.reshape(-1, *EVENT), y),
        }
    return found


def _disagreement(task: Task, samples: Tensor, y: Tensor) -> float:
    """Root mean square of what a sample's own condition misses that of y by."""
    return _told(task, task.condition(samples)).sub(_told(task, y)).square().mean().sqrt().item()


def measure_digits(quick: bool) -> tuple[Row, Pictures]:
    """Held-out digits."""
    data, held_out = digits("train"), digits("held_out")
    x, labels = held_out.x, held_out.context
    assert labels is not None
    assert data.context is not None
    reader = optional("sklearn.svm", "reading digits").SVC(gamma=0.02)
    reader.fit(data.x.flatten(1).numpy(), data.context.numpy())
    read = lambda images: torch.from_numpy(reader.predict(images.flatten(1).numpy()))
    right = lambda images: float((read(images) == labels).double().mean())
    result: Row = {"held-out digits": len(x), "read right": right(x)}
    pictures: Pictures = {"held-out digits": x[:10]}
    rms = lambda gap: gap.square().mean().sqrt().item()
    for name, task in TASKS.items():
        denoiser, spent = conditional(task, data, 50 if quick else 2500, 256)
        y = task.condition(x)
        draws = torch.stack([given(denoiser, y, len(x), seed) for seed in range(2 if quick else 8)])
        result[name] = {
            "network": spent,
            "condition": rms(
                torch.stack([_told(task, task.condition(d)) - _told(task, y) for d in draws])
            ),
            "sample to the digit": rms(draws - x),
            "sample to sample": rms(draws[1:] - draws[:-1]),
            "mean of samples to the digit": rms(draws.mean(0) - x),
            "read right": statistics.mean(right(d) for d in draws),
        }
        pictures[f"given: {name}"] = interpolate(y[:10, :1], size=EVENT[1:])
        for number, time in enumerate(("first", "second")):
            pictures[f"drawn from it, {time} time: {name}"] = draws[number][:10]
    return result, pictures


PARTS: dict[str, Callable[[bool], tuple[Row, Pictures]]] = {
    "exact": measure_exact,
    "digits": measure_digits,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, print, write."""
    return run("translation", __doc__, PARTS, arguments)


if __name__ == "__main__":
    sys.exit(main())
