"""Train a recipe so far, and say how good the model is."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sde_diffusion as sd
from sde_diffusion.bounds import best_end
from sde_diffusion.files import write_atomic
from sde_diffusion.likelihood import bits_per_dimension
from sde_diffusion.training import Data, Trainer
from sde_diffusion.training.build import denoiser_of
from sde_diffusion.training.digits import digits
from sde_diffusion.training.objectives import objective_of

from ..data import digit_labels
from ..data import digits as images_of
from ..metrics import Judge, classifier_features
from .recipes import Recipe
from .sizes import Sizes

LEVELS = 17  # grey levels of the digits
BINS = sd.Bins(2 / (LEVELS - 1))
DISTANCES = ("frechet", "sliced")
Cell = dict[str, Any]


def cell(recipe: Recipe, steps: int, sizes: Sizes, kept: Path) -> Cell:
    """What was kept of a recipe after so many steps; or else train, measure and keep it."""
    path = kept / recipe.folder / f"{steps}.json"
    asked = {"recipe": recipe.configuration(steps).tables(), "sizes": asdict(sizes)}
    asked = json.loads(json.dumps(asked))
    if path.exists():
        found: Cell = json.loads(path.read_text())
        if found["asked"] == asked:
            return found["found"]
    seconds = train(recipe, steps, sizes, kept)
    denoiser = sd.load_denoiser(kept / recipe.folder)
    found = {"processor seconds": seconds, "steps": steps}
    with_flow = steps == sizes.steps[-1]
    found |= measure(denoiser, sizes, with_flow)
    write_atomic(path, json.dumps({"asked": asked, "found": found}, indent=1).encode())
    return found


def train(recipe: Recipe, steps: int, sizes: Sizes, kept: Path) -> float:
    """Train on to so many steps; processor seconds of the whole run, also where it was stopped."""
    folder = kept / recipe.folder
    folder.mkdir(parents=True, exist_ok=True)
    clock = folder / "seconds.json"
    before = json.loads(clock.read_text()) if clock.exists() else 0.0
    trainer = trainer_of(recipe, steps, sizes, folder)
    began = time.process_time()
    try:
        trainer.train()
    finally:
        spent = before + time.process_time() - began
        write_atomic(clock, json.dumps(spent).encode())
    return spent


def trainer_of(
    recipe: Recipe, steps: int, sizes: Sizes, folder: Path | None, data: Data | None = None
) -> Trainer:
    """The trainer of a recipe, on the training digits, without samples as it goes."""
    configuration = recipe.configuration(steps)
    configuration.network.update(sizes.network)
    data = data or digits("train", labels=False)
    denoiser = denoiser_of(configuration, data)
    objective = objective_of(configuration.objective, denoiser)
    how: dict[str, Any] = {"tensorboard": False, "progress": False, "device": "cpu"}
    return Trainer(objective, data, folder=folder, **configuration.training, **how)


def measure(denoiser: sd.NetworkDenoiser, sizes: Sizes, with_flow: bool) -> Cell:
    """Distances of samples to held-out digits, and how many bits per dimension these take."""
    train_images, held_out = images_of()
    shape = (sizes.images, *held_out.shape[1:])
    sets = [
        sd.sample(denoiser, shape, steps=sizes.sampling_steps, seed=seed)
        for seed in range(sizes.seeds)
    ]
    end = best_end(denoiser, train_images[: sizes.chosen], bins=BINS, levels=sizes.levels)
    bound = sd.continuous_bound(
        denoiser,
        held_out[: sizes.images],
        points=sizes.points,
        t_end=end.t,
        decoder=end.variance,
        bins=BINS,
    )
    assert isinstance(denoiser.network, torch.nn.Module)
    bits = bound.per_sample / (bound.dimension * math.log(2))
    rho = float(denoiser.schedule.rho(end.t))
    found = {
        "parameters": sum(weights.numel() for weights in denoiser.network.parameters()),
        **judged(sets),
        "bound": mean_and_error(bits),
        "end": {"t": end.t, "sigma/alpha": rho, "variance": end.variance},
    }
    if with_flow:
        found["flow"] = of_the_flow(denoiser, end.t, bits, sizes)
    return found


def of_the_flow(denoiser: sd.NetworkDenoiser, t_end: float, bound: Tensor, sizes: Sizes) -> Cell:
    """Bits per dimension of held-out digits along the flow to t_end, and less than their bound."""
    found = bits_per_dimension(
        denoiser,
        images_of()[1][: sizes.flow],
        levels=LEVELS,
        dequantisation="truncated_normal",
        seed=0,
        steps=sizes.flow_steps,
        t_end=t_end,
        probes=sizes.probes,
    )
    return {
        **mean_and_error(found.bits),
        "less the bound": mean_and_error(found.bits - bound[: sizes.flow]),
        "solver": float(found.tolerance_error.mean()),
        "images": sizes.flow,
    }


def floor(sizes: Sizes, draws: int = 8) -> Cell:
    """The same distances of training digits, drawn at random."""
    images = images_of()[0]
    order = (
        torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        for seed in range(draws)
    )
    return judged([images[chosen[: sizes.images]] for chosen in order])


def judged(sets: list[Tensor]) -> Cell:
    """Metric -> mean and standard error over sets of images."""
    rows = [judge()(images) for images in sets]
    return {metric: mean_and_error([row[metric] for row in rows]) for metric in DISTANCES}


def mean_and_error(values: list[float] | Tensor) -> dict[str, float]:
    """Mean of independent values and its standard error; NaN for one."""
    x = torch.as_tensor(values, dtype=torch.float64)
    return {"mean": float(x.mean()), "standard error": float(x.std()) / math.sqrt(len(x))}


@cache
def judge() -> Judge:
    """Against the held-out digits."""
    train_images, held_out = images_of()
    return Judge(held_out, classifier_features(train_images, digit_labels()[0]))
