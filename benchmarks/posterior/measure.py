"""Cells: every setting on every task at several numbers of network calls, kept as they come."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sde_diffusion
from sde_diffusion.progress import Progress
from sde_diffusion.store import Cell, Store, digest

from ..about import version
from .asks import Counted, Setting, ask
from .distances import NAMES, Posterior
from .problems import Task

SWEPT, FEW, MANY = 20, (10, 50), 100
"""NFE at which every setting is run, at which the best and the default of every method are, and at
which the best alone is."""


class Bench:
    """Runs settings on one task.

    Args:
        task: the problem.
        seed: of the runs.
    """

    def __init__(self, task: Task, seed: int = 0) -> None:
        self.task, self.seed = task, seed
        self.judges = [Posterior.of(law) for law in task.posteriors]
        self.exact = task.exact(0)

    def floor(self, repeats: int = 8) -> dict[str, list[float]]:
        """Mean and standard deviation of the distances of exact samples, by metric."""
        rows = [self.distances(self.task.exact(1 + r)) for r in range(repeats)]
        by_metric = {m: torch.tensor([row[m] for row in rows]) for m in NAMES}
        return {m: [float(v.mean()), float(v.std())] for m, v in by_metric.items()}

    def distances(self, x: Tensor) -> dict[str, float]:
        """Of samples (count, samples, D): the mean over the measurements."""
        rows = [j.distances(a, b) for j, a, b in zip(self.judges, x, self.exact, strict=True)]
        return {m: sum(row[m] for row in rows) / len(rows) for m in NAMES}

    def samples(self, setting: Setting, nfe: int) -> tuple[Tensor, Counted, float]:
        """(samples (count, samples, D), what was counted, seconds of one thread)."""
        counted = Counted(self.task.prior.denoiser(self.task.schedule))
        asked = ask(self.task, counted, setting, nfe, self.seed)
        before = time.process_time()
        # azula draws from the global generator: a cell must not depend on those before it.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            torch.manual_seed(self.seed)
            x = setting.solve(asked).detach()
        took = time.process_time() - before
        return x.unflatten(0, (self.task.count, self.task.samples)), counted, took

    def cell(self, setting: Setting, nfe: int) -> Cell:
        """Distances and costs; or why there are none."""
        try:
            x, counted, took = self.samples(setting, nfe)
        except (FloatingPointError, torch.linalg.LinAlgError) as error:
            return {"error": str(error)}
        if not bool(x.isfinite().all()):
            return {"error": "samples are not finite"}
        found = {m: v if math.isfinite(v) else None for m, v in self.distances(x).items()}
        costs = {"calls": counted.calls, "gradients": counted.gradients, "seconds": round(took, 4)}
        return {**found, **costs}


def code(library: str) -> str:
    """A fingerprint of what is measured and how, so that changed code is measured anew.

    Of all of `sde_diffusion`, which gives azula too its denoisers, schedules and grids; of the
    metrics; of what is here for this library; and of the version of azula, for its cells.
    """
    here = Path(__file__).parent
    own = "azula" if library == "azula" else "ours"
    files = [here / f"{name}.py" for name in ("asks", "distances", "measure", "problems", own)]
    files += [here.parent / "metrics.py"]
    files += sorted(Path(sde_diffusion.__file__).parent.rglob("*.py"))
    texts = _texts(files)
    return digest([*texts, version("azula")] if library == "azula" else texts)


def _texts(files: Sequence[Path]) -> list[str]:
    return [file.read_text() for file in files]


def measure(task: Task, settings: Sequence[Setting], store: Store, quick: bool) -> list[Cell]:
    """All cells of a task: everything at SWEPT, what was promising there at the other numbers."""
    bench, rows = Bench(task), list[Cell]()
    fitting = [s for s in settings if s.fits(task, SWEPT)]
    rows += _cells(bench, [(s, SWEPT) for s in (usual(fitting) if quick else fitting)], store)
    if not quick:
        rows += _cells(bench, [(s, n) for n in FEW for s in promising(settings, rows)], store)
        best = promising(settings, rows, defaults=False)
        rows += _cells(bench, [(s, MANY) for s in best], store)
    return rows


def usual(settings: Sequence[Setting]) -> list[Setting]:
    """One setting a method of a library: its default, or the first where it has none."""
    chosen: dict[tuple[str, str], Setting] = {}
    for s in settings:
        key = (s.library, s.method)
        if key not in chosen or (s.default and not chosen[key].default):
            chosen[key] = s
    return list(chosen.values())


def promising(
    settings: Sequence[Setting], rows: list[Cell], defaults: bool = True
) -> list[Setting]:
    """Of every method of every library the nearest at SWEPT, and the default too where asked."""
    at = {row["name"]: row for row in rows if row["nfe"] == SWEPT}
    chosen: list[Setting] = []
    for key in dict.fromkeys((s.library, s.method) for s in settings):
        own = [s for s in settings if (s.library, s.method) == key and s.name in at]
        own.sort(key=lambda s: distance(at[s.name]))
        chosen += [s for i, s in enumerate(own) if i == 0 or (defaults and s.default)]
    return chosen


def distance(row: Cell) -> float:
    """Sliced distance of a row, infinite where a run failed."""
    value = row.get("sliced")
    return math.inf if value is None else float(value)


def _cells(bench: Bench, jobs: Iterable[tuple[Setting, int]], store: Store) -> list[Cell]:
    rows: list[Cell] = []
    fitting = [(s, nfe) for s, nfe in jobs if s.fits(bench.task, nfe)]
    known = {library: code(library) for library in {s.library for s, _ in fitting}}
    task = bench.task
    with Progress(sum(nfe for _, nfe in fitting)) as progress:
        for setting, nfe in fitting:
            sizes = [task.name, task.count, task.samples]
            key = digest([*sizes, setting.name, nfe, bench.seed, known[setting.library]])
            cell = store.get(key)
            if cell is None:
                cell = bench.cell(setting, nfe)
                store.put(key, cell)
            rows.append({**_about(setting, nfe), **cell})
            progress.advance(nfe, f"{task.name}: {setting.name}, NFE {nfe}")
    return rows


def _about(setting: Setting, nfe: int) -> dict[str, Any]:
    return {
        "library": setting.library,
        "method": setting.method,
        "name": setting.name,
        "default": setting.default,
        "nfe": nfe,
    }
