"""Runs the jobs in order, within a time budget, keeping every finished cell."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sde_diffusion.store import Store

from .jobs import Job


class Budget:
    """Seconds left, and a guess of what a job takes from the last one like it.

    Args:
        seconds: for all jobs; None is no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.end = None if seconds is None else time.monotonic() + seconds
        self._rate: dict[tuple[str, str], float] = {}

    def learn(self, job: Job, nfe: int, seconds: float) -> None:
        """Note what a job took."""
        if nfe:
            self._rate[job.kind, job.case] = seconds / nfe

    def allows(self, job: Job) -> bool:
        """Whether the job is likely to fit; adaptive ones are taken for 100 evaluations."""
        if self.end is None:
            return True
        guess = self._rate.get((job.kind, job.case), 0.0) * (job.nfe or 100)
        return time.monotonic() + guess < self.end


def run_jobs(
    jobs: Sequence[Job],
    keys: dict[Job, str],
    compute: Callable[[Job], dict[str, Any]],
    store: Store,
    budget: Budget,
    console: Console,
) -> dict[Job, dict[str, Any]]:
    """Job -> its cell, from the store where it was computed before.

    Jobs that do not fit the budget are left out. The store is saved whatever happens.
    """
    cells: dict[Job, dict[str, Any]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
    progress = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    try:
        with progress:
            task = progress.add_task("", total=len(jobs))
            for job in jobs:
                progress.update(task, description=job.title)
                cell = store.get(keys[job])
                if cell is None and budget.allows(job):
                    before = time.monotonic()
                    cell = compute(job)
                    budget.learn(job, cell["nfe"], time.monotonic() - before)
                    store.put(keys[job], cell)
                if cell is not None:
                    cells[job] = cell
                progress.advance(task)
    finally:
        store.save()
    return cells


def best_threads(call: Callable[[], Any], tries: int = 9) -> int:
    """One thread, or all that torch has, whichever makes the call faster just now.

    On a machine with other work, threads that wait for each other can be ten times slower.
    """
    every = torch.get_num_threads()
    median: dict[int, float] = {}
    for threads in (every, 1):
        torch.set_num_threads(threads)
        call()
        spent = []
        for _ in range(tries):
            before = time.perf_counter()
            call()
            spent.append(time.perf_counter() - before)
        median[threads] = statistics.median(spent)
    best = min(median, key=lambda threads: median[threads])
    torch.set_num_threads(best)
    return best
