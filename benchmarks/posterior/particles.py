"""Particle methods against their number: errors of log Z, of the mean, and of the law.

A population of K particles says log Z, to be log p(y), and weighted samples, to be p(x_0 | y). Over
populations of other seeds and several y: the RMS of log Z - log p(y), the RMS distance of the
weighted mean to the exact one, in units of sqrt(tr C), and the sliced distance of as many draws as
there are exact samples. The first two fall as K^{-1/2} where the plan's steps no longer matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sde_diffusion import particles, times
from sde_diffusion.particles import Population
from sde_diffusion.progress import Progress
from sde_diffusion.solvers import SOLVERS
from sde_diffusion.store import Cell, Store, digest

from ..metrics import sliced_wasserstein
from .measure import code
from .ours import measurement
from .problems import Task, tasks

Solve = Callable[[Task, int, int, int, int], Population]
DRAWS, MEASUREMENTS = 512, 2


class Size(NamedTuple):
    """Of the runs of one dimension: numbers of particles, steps, populations, methods."""

    counts: tuple[int, ...]
    steps: int
    populations: int
    methods: tuple[str, ...]


SIZES = {
    "ring, one row, 2-D": Size(
        (16, 64, 256, 1024),
        100,
        24,
        ("TDS", "TDS, isotropic", "TDS, tweedie", "steering", "steering, tempered"),
    ),
    "digits, mask, 64-D": Size(
        (8, 32, 128, 512), 50, 8, ("TDS", "TDS, isotropic", "steering", "steering, tempered")
    ),
}


def convergence(store: Store, quick: bool = False) -> dict[str, Any]:
    """Rows of every task, method and number of particles, and the slopes."""
    rows, fingerprint = [], digest([Path(__file__).read_text(), code("ours")])
    known = {task.name: task for task in tasks()}
    sizes = {n: s._replace(steps=10, populations=2) if quick else s for n, s in SIZES.items()}
    jobs = [
        (known[name], method, k)
        for name, size in sizes.items()
        for method in size.methods
        for k in size.counts[: 2 if quick else None]
    ]
    with Progress(sum(k for _, _, k in jobs)) as progress:
        for task, method, k in jobs:
            size = sizes[task.name]
            key = digest([task.name, method, k, size.steps, size.populations, fingerprint])
            cell = store.get(key)
            if cell is None:
                cell = errors(task, METHODS[method], k, size.steps, size.populations)
                store.put(key, cell)
            rows.append({"task": task.name, "method": method, "particles": k, **cell})
            progress.advance(k, f"{task.name}: {method}, {k} particles")
    told = {name: {"steps": s.steps, "populations": s.populations} for name, s in sizes.items()}
    return {"rows": rows, "slopes": list(slopes(rows)), "sizes": told}


def errors(task: Task, solve: Solve, k: int, steps: int, populations: int) -> Cell:
    """Of populations of k particles on the task's first measurements."""
    logs, means, sliced = [], [], []
    for i in range(min(MEASUREMENTS, task.count)):
        law, evidence = task.posteriors[i], task.evidence[i]
        found = solve(task, i, k, steps, populations)
        logs.append(found.log_evidence - evidence)
        scale = math.sqrt(float(law.data_covariance().trace()))
        means.append((found.expect().double() - law.mean).norm(dim=1) / scale)
        exact = law.sample(DRAWS, torch.Generator().manual_seed(7))
        drawn = found.draw(DRAWS, seed=3)
        sliced += [sliced_wasserstein(x, exact) for x in drawn]
    return {
        "log_evidence": float(torch.cat(logs).square().mean().sqrt()),
        "bias": float(torch.cat(logs).exp().mean() - 1),
        "mean": float(torch.cat(means).square().mean().sqrt()),
        "sliced": sum(sliced) / len(sliced),
    }


def slopes(rows: list[Cell]) -> Iterator[dict[str, Any]]:
    """Least squares of log error against log K."""
    for key in dict.fromkeys((row["task"], row["method"]) for row in rows):
        own = [row for row in rows if (row["task"], row["method"]) == key]
        fitted = {name: slope(own, name) for name in ("log_evidence", "mean")}
        yield {"task": key[0], "method": key[1], **fitted}


def slope(rows: list[Cell], name: str) -> float:
    """Of one error, over all numbers of particles."""
    x = torch.tensor([math.log(row["particles"]) for row in rows], dtype=torch.float64)
    y = torch.tensor([math.log(row[name]) for row in rows], dtype=torch.float64)
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())


def twisted(
    task: Task, i: int, k: int, steps: int, populations: int, twist: str | None = None
) -> Population:
    """The twisted diffusion sampler on the i-th measurement."""
    plan = SOLVERS["ddim"](task.schedule, times.default(task.schedule, steps), eta=1.0)
    given = measurement(task, task.y[i].float())
    shape = (populations, k, task.dimension)
    denoiser = task.prior.denoiser(task.schedule)
    return particles.twisted(plan, denoiser, given, shape, twist=twist, seed=11 + i)


def steered(
    task: Task, i: int, k: int, steps: int, populations: int, tempered: bool = False
) -> Population:
    """Feynman-Kac steering by the log-likelihood, whose curvature is 1/sigma^2."""
    plan = SOLVERS["ddim"](task.schedule, times.default(task.schedule, steps), eta=1.0)
    reward = measurement(task, task.y[i].float()).log_likelihood
    shape = (populations, k, task.dimension)
    curvature = 1 / task.noise**2 if tempered else 0.0
    denoiser = task.prior.denoiser(task.schedule)
    return particles.steer(plan, denoiser, reward, shape, curvature=curvature, seed=11 + i)


METHODS: dict[str, Solve] = {
    "TDS": twisted,
    "TDS, isotropic": partial(twisted, twist="isotropic"),
    "TDS, tweedie": partial(twisted, twist="tweedie"),
    "steering": steered,
    "steering, tempered": partial(steered, tempered=True),
}
