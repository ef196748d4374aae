"""Cells: settings on tasks at several numbers of network calls, kept as they come.

Every setting is run at 10, 20 and 50 calls under one seed. Of the nearest few of each method the
nearest under two seeds is chosen at each, and what is chosen at 50 serves at 100.
What is told of the chosen is measured under other seeds, so that luck in the choice is no part of
the figure: under as many for every pair of ours and azula's, once, whichever is nearer; under fewer
where a method is of one library alone, and for defaults.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sde_diffusion
from sde_diffusion.progress import Progress
from sde_diffusion.store import Cell, Store, digest

from ..about import version
from .asks import Counted, Setting, ask
from .compare import distance, together
from .distances import NAMES, Posterior
from .problems import Task

SWEPT, CHOSEN, MANY, FEW = 20, (10, 20, 50), 100, 2
"""NFE of the defaults and of a quick run; those at which every setting is run and one is chosen;
that at which the last of these serves; and how many are chosen from."""
CHOICE, SEEDS, ALONE = range(2), range(2, 6), 2
"""Seeds of the choice; of what is told of the chosen; and how many of these without a pair."""
RULE = (
    f"All settings are run at {', '.join(map(str, CHOSEN))} calls under one seed; of the {FEW} "
    f"nearest of a method the nearest under {len(CHOICE)} seeds is chosen at each, the last "
    f"for {MANY} too. What is told is measured once under {len(SEEDS)} other seeds, the same for "
    f"both libraries, whichever is nearer; under {ALONE} where there is nothing to compare with."
)
Job = tuple[Setting, int, int]
"""Setting, NFE, seed."""


class Bench:
    """Runs settings on one task.

    Args:
        task: the problem.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.judges = [Posterior.of(law) for law in task.posteriors]
        self.exact = cache(task.exact)

    def floor(self, repeats: int = 8) -> dict[str, list[float]]:
        """Mean and standard deviation of the distances of exact samples, by metric."""
        rows = [self.distances(self.task.exact(1000 + r), r) for r in range(repeats)]
        by_metric = {m: torch.tensor([_mean(row[m]) for row in rows]) for m in NAMES}
        return {m: [float(v.mean()), float(v.std())] for m, v in by_metric.items()}

    def distances(self, x: Tensor, seed: int) -> dict[str, list[float]]:
        """Of samples (count, samples, D) to the exact ones of a seed, for each measurement."""
        exact = self.exact(seed)
        rows = [j.distances(a, b) for j, a, b in zip(self.judges, x, exact, strict=True)]
        return {m: [row[m] for row in rows] for m in NAMES}

    def samples(self, setting: Setting, nfe: int, seed: int) -> tuple[Tensor, Counted, float]:
        """(samples (count, samples, D), what was counted, seconds of one thread)."""
        counted = Counted(self.task.prior.denoiser(self.task.schedule))
        asked = ask(self.task, counted, setting, nfe, seed)
        before = time.process_time()
        # azula draws from the global generator: a cell must not depend on those before it.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            x = setting.solve(asked).detach()
        took = time.process_time() - before
        return x.unflatten(0, (self.task.count, self.task.samples)), counted, took

    def cell(self, setting: Setting, nfe: int, seed: int) -> Cell:
        """Distances, sliced ones of each measurement too, and costs; or why there are none."""
        try:
            x, counted, took = self.samples(setting, nfe, seed)
        except (FloatingPointError, torch.linalg.LinAlgError) as error:
            return {"error": str(error)}
        if not bool(x.isfinite().all()):
            return {"error": "samples are not finite"}
        found = self.distances(x, seed)
        means = {m: _mean(v) if math.isfinite(_mean(v)) else None for m, v in found.items()}
        costs = {"calls": counted.calls, "gradients": counted.gradients, "seconds": round(took, 4)}
        return {**means, **costs, "each": found["sliced"]}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


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


def measure(task: Task, settings: Sequence[Setting], store: Store, quick: bool) -> dict[str, Any]:
    """Floor, sweep, choice and figures of a task.

    Returns:
        floor: of exact samples.
        sweep: sliced distances of all settings at CHOSEN.
        tried: those of the settings that were chosen from.
        cells: figures of what was chosen, and of the defaults at SWEPT, under other seeds.
    """
    bench = Bench(task)
    swept = [s for s in settings if s.fits(task, SWEPT)]
    first = usual(swept) if quick else settings
    at = (SWEPT,) if quick else CHOSEN
    sweep = _cells(bench, [(s, n, CHOICE[0]) for n in at for s in first], store)
    if quick:
        tried, chosen = sweep, _best(settings, sweep)
    else:
        near = [(s, n) for n in CHOSEN for s in nearest(settings, sweep, task, n)]
        tried = list(_rows(bench, near, CHOICE, store).values())
        chosen = _best(settings, tried)
        chosen += [(s, MANY) for s, n in chosen if n == CHOSEN[-1]]
    defaults = [(s, SWEPT) for s in swept if s.default and (s, SWEPT) not in chosen]
    paired, alone = _paired(chosen)
    rows = _rows(bench, paired, SEEDS[: ALONE if quick else None], store)
    rows |= _rows(bench, [*alone, *defaults], SEEDS[:ALONE], store)
    for (s, nfe), row in rows.items():
        row["chosen"] = (s, nfe) in chosen
    told = ("library", "method", "name", "nfe", "sliced")
    brief = lambda found: [{k: row.get(k) for k in told} for row in found]
    parts = {"sweep": brief(sweep), "tried": brief(tried), "cells": list(rows.values())}
    return {"floor": bench.floor(), **parts}


def usual(settings: Sequence[Setting]) -> list[Setting]:
    """One setting a method of a library: its default, or the first where it has none."""
    chosen: dict[tuple[str, str], Setting] = {}
    for s in settings:
        key = (s.library, s.method)
        if key not in chosen or (s.default and not chosen[key].default):
            chosen[key] = s
    return list(chosen.values())


def nearest(
    settings: Sequence[Setting], sweep: Sequence[Cell], task: Task, nfe: int
) -> list[Setting]:
    """Of every method of every library the FEW nearest at so many calls."""
    at = {row["name"]: distance(row) for row in sweep if row["nfe"] == nfe}
    found: list[Setting] = []
    for key in dict.fromkeys((s.library, s.method) for s in settings):
        own = [s for s in settings if (s.library, s.method) == key and s.name in at]
        own = [s for s in own if s.fits(task, nfe) and at[s.name] < math.inf]
        found += sorted(own, key=lambda s: at[s.name])[:FEW]
    return found


def _best(settings: Sequence[Setting], tried: Sequence[Cell]) -> list[tuple[Setting, int]]:
    """Of every method of every library the nearest at each NFE."""
    by_name = {s.name: s for s in settings}
    best: dict[tuple[str, str, int], Cell] = {}
    for row in tried:
        key = (row["library"], row["method"], row["nfe"])
        if distance(row) < distance(best.get(key, {})):
            best[key] = row
    return [(by_name[row["name"]], row["nfe"]) for row in best.values()]


Rows = dict[tuple[Setting, int], Cell]


def _paired(chosen: Sequence[tuple[Setting, int]]) -> tuple[list[tuple[Setting, int]], ...]:
    """Those of a method and NFE that both libraries have, and the others."""
    at = {(s.library, s.method, nfe) for s, nfe in chosen}
    parts: tuple[list[tuple[Setting, int]], ...] = [], []
    for s, nfe in chosen:
        parts[not {("ours", s.method, nfe), ("azula", s.method, nfe)} <= at].append((s, nfe))
    return parts


def _rows(
    bench: Bench,
    wanted: Sequence[tuple[Setting, int]],
    seeds: Sequence[int],
    store: Store,
) -> Rows:
    """One row for each setting and NFE, of all seeds together."""
    cells = iter(_cells(bench, [(s, nfe, seed) for s, nfe in wanted for seed in seeds], store))
    return {
        (s, nfe): {**_about(s, nfe), "seeds": len(seeds)} | together([next(cells) for _ in seeds])
        for s, nfe in wanted
    }


def _cells(bench: Bench, jobs: Iterable[Job], store: Store) -> list[Cell]:
    rows: list[Cell] = []
    fitting = [job for job in jobs if job[0].fits(bench.task, job[1])]
    known = {library: code(library) for library in {s.library for s, _, _ in fitting}}
    task = bench.task
    with Progress(sum(nfe for _, nfe, _ in fitting)) as progress:
        for setting, nfe, seed in fitting:
            sizes = [task.name, task.count, task.samples]
            key = digest([*sizes, setting.name, nfe, seed, known[setting.library]])
            cell = store.get(key)
            if cell is None:
                cell = bench.cell(setting, nfe, seed)
                store.put(key, cell)
            rows.append({**_about(setting, nfe), **cell})
            progress.advance(nfe, f"{task.name}: {setting.name}, NFE {nfe}, seed {seed}")
    return rows


def _about(setting: Setting, nfe: int) -> dict[str, Any]:
    return {
        "library": setting.library,
        "method": setting.method,
        "name": setting.name,
        "default": setting.default,
        "nfe": nfe,
    }
