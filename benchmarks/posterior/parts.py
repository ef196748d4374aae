"""Parts of a run that need nothing of each other, tasks and particles: several at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from sde_diffusion.store import Store

from . import azula, ours, particles, pictures
from .measure import measure
from .problems import Task, tasks

PARTICLES = "particles"
Part = tuple[dict[str, Any], dict[str, Any] | None]
"""What is measured, and what a picture of it needs."""


def each(one: Callable[[str], Part], names: list[str], processes: int) -> list[tuple[str, Part]]:
    """All parts, in so many processes of one thread each."""
    if processes == 1:
        return [(name, one(name)) for name in names]
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        return list(zip(names, pool.map(one, names, chunksize=1), strict=True))


def part(name: str, kept: Path, methods: Sequence[str], quick: bool) -> Part:
    """One task by its name, or the particle methods.

    Args:
        name: of a task, or PARTICLES.
        kept: folder of cells; each part has a file of its own, so that parts may run at once.
        methods: to measure; all if empty.
        quick: few samples and calls.
    """
    letters = "".join(c if c.isalnum() else "-" for c in name)
    store = Store(kept / f"cells-{letters}.json")
    try:
        if name == PARTICLES:
            return particles.convergence(store, quick), None
        task = next(task for task in tasks(quick) if task.name == name)
        settings = [*ours.settings(), *azula.settings()]
        if methods:
            settings = [s for s in settings if s.method in methods or s.library == "exact"]
        found = measure(task, settings, store, quick)
        return {**_described(task), **found}, pictures.of(task, settings, found["cells"])
    finally:
        store.save()


def _described(task: Task) -> dict[str, Any]:
    return {
        "dimension": task.dimension,
        "measured": len(task.matrix),
        "noise": task.noise,
        "schedule": type(task.schedule).__name__,
        "count": task.count,
        "samples": task.samples,
    }
