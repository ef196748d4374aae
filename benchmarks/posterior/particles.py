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
from typing import Any

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
COUNTS = {2: (16, 64, 256, 1024), 64: (8, 32, 128, 512)}
"""Dimension -> numbers of particles."""
STEPS, POPULATIONS, DRAWS = 100, 12, 512
MEASUREMENTS = 2


def convergence(store: Store, quick: bool = False) -> dict[str, Any]:
    """Rows of every task, method and number of particles, and the slopes."""
    rows = []
    known = {task.name: task for task in tasks()}
    steps, populations = (10, 2) if quick else (STEPS, POPULATIONS)
    jobs = [
        (known[name], method, k)
        for name in ("ring, one row, 2-D", "digits, mask, 64-D")
        for method in METHODS
        for k in COUNTS[known[name].dimension][: 2 if quick else None]
    ]
    with Progress(sum(k for _, _, k in jobs)) as progress:
        for task, method, k in jobs:
            key = digest([task.name, method, k, steps, populations, code("ours"), "particles"])
            cell = store.get(key)
            if cell is None:
                cell = errors(task, METHODS[method], k, steps, populations)
                store.put(key, cell)
            rows.append({"task": task.name, "method": method, "particles": k, **cell})
            progress.advance(k, f"{task.name}: {method}, {k} particles")
    return {"rows": rows, "slopes": list(slopes(rows)), "steps": steps, "populations": populations}


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
    task: Task, i: int, k: int, steps: int, populations: int, twist: str = "isotropic"
) -> Population:
    """The twisted diffusion sampler on the i-th measurement."""
    plan = SOLVERS["ddim"](task.schedule, times.default(task.schedule, steps), eta=1.0)
    given = measurement(task, task.y[i].float())
    shape = (populations, k, task.dimension)
    denoiser = task.prior.denoiser(task.schedule)
    return particles.twisted(plan, denoiser, given, shape, twist=twist, seed=11 + i)


def steered(task: Task, i: int, k: int, steps: int, populations: int) -> Population:
    """Feynman-Kac steering by the log-likelihood."""
    plan = SOLVERS["ddim"](task.schedule, times.default(task.schedule, steps), eta=1.0)
    reward = measurement(task, task.y[i].float()).log_likelihood
    shape = (populations, k, task.dimension)
    return particles.steer(plan, task.prior.denoiser(task.schedule), reward, shape, seed=11 + i)


METHODS: dict[str, Solve] = {
    "TDS, isotropic": twisted,
    "TDS, tweedie": partial(twisted, twist="tweedie"),
    "steering": steered,
}
