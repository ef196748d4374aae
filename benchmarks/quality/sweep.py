"""Screening and measuring: many settings on few points, then the best of them on all.

Every setting is first run on the first SCREEN points in float32, at NFE 4 and 10 (FULL); at the
other NFE the better third there by RMS and the better third by median go on (never fewer than
POOL of each, nor more than MOST). Of each group (a library) and each cell (model, range of noise,
NFE) the KEEP best by RMS and the KEEP best by median are then run on all points in float64, and
only those figures count; the NEXT settings after the best are named beside it. At LONG, the largest
NFE, the candidates are the best at the NFE before it. Screened figures are kept on disk by the
setting's name, so that only new settings cost time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sde_diffusion.files import write_atomic

from .models import Case

NFES = (4, 5, 6, 8, 10, 15, 20, 50)
LONG = 50
FULL = (4, 10)
SCREEN, POOL, MOST, KEEP, KEEP_LONG, NEXT = 128, 40, 300, 8, 6, 3
METRICS = ("rms", "median")


class Setting(Protocol):
    """One sampler under one choice of everything; see `peers.Setting`, `ours.Setting`."""

    @property
    def peer(self) -> str: ...

    @property
    def name(self) -> str: ...

    def run(self, case: Case, nfe: int, dtype: torch.dtype = ...) -> Tensor | None: ...


class Kept:
    """Figures on disk: (model, range, seed, peer, setting, NFE, points) -> [rms, median]."""

    def __init__(self, path: Path, every: float = 20.0) -> None:
        self.path, self.every, self.saved = path, every, time.monotonic()
        self.cells: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}

    def figures(
        self, case: Case, setting: Setting, nfe: int, points: int, quick: bool = False
    ) -> list[float]:
        """[rms, median] of a setting, from disk if they are there; float32 on few points."""
        run = (case.model, case.range, f"seed {case.seed}", setting.peer, setting.name)
        key = "|".join((*run, f"{nfe}", f"{points}"))
        if key not in self.cells:
            self.cells[key] = measure(
                case.small(points), setting, nfe, quick or points < len(case.start)
            )
            if time.monotonic() - self.saved > self.every:
                self.save()
        return self.cells[key]

    def save(self) -> None:
        """Write all figures."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, json.dumps(self.cells).encode())
        self.saved = time.monotonic()


def measure(case: Case, setting: Setting, nfe: int, quick: bool = False) -> list[float]:
    """[rms, median] of one setting; infinite where it fails or cannot be had at this NFE."""
    try:
        y = setting.run(case, nfe, torch.float32 if quick else torch.float64)
    except (ValueError, RuntimeError, ArithmeticError, IndexError, AssertionError, TypeError):
        y = None  # a sampler that is singular on this grid is out of the running
    if y is None:
        return [float("inf"), float("inf")]
    found = case.errors(y)
    return [found[metric] for metric in METRICS]


def best(
    case: Case,
    settings: Sequence[Setting],
    kept: Kept,
    nfes: Iterable[int] = NFES,
    say: Callable[[str], None] = print,
) -> dict[int, dict[str, dict[str, Any]]]:
    """NFE -> metric -> the best setting and both its figures, on all points."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    pools = {nfe: _screened(case, settings, nfe, kept) for nfe in FULL}
    third = min(max(POOL, len(settings) // 3), MOST)
    few, many = (_ahead(pools[nfe], third) for nfe in FULL)
    ranked: list[list[Setting]] = []
    for nfe in nfes:
        before = time.monotonic()
        if nfe != LONG or not ranked:
            pool = list({s.name: s for s in (few + many if nfe < FULL[1] else many)}.values())
            ranked = pools.get(nfe) or _screened(case, pool, nfe, kept)
        count = KEEP_LONG if nfe == LONG else KEEP
        finalists = {s.name: s for order in ranked for s in order[:count]}
        figures = {
            name: kept.figures(case, s, nfe, len(case.start)) for name, s in finalists.items()
        }
        found[nfe] = {}
        for i, metric in enumerate(METRICS):
            name, *others = sorted(figures, key=lambda n: figures[n][i])
            found[nfe][metric] = {
                "setting": name,
                **dict(zip(METRICS, figures[name], strict=True)),
                "next": others[:NEXT],
            }
        line = ", ".join(f"{found[nfe][m][m]:.3g} ({found[nfe][m]['setting']})" for m in METRICS)
        say(f"{case.model} {case.range} NFE {nfe}: {line}  [{time.monotonic() - before:.0f} s]")
    kept.save()
    return found


def _screened(case: Case, pool: Sequence[Setting], nfe: int, kept: Kept) -> list[list[Setting]]:
    """The pool in order of RMS and in order of median, on the first points."""
    scores = [kept.figures(case, s, nfe, SCREEN) for s in pool]
    return [_ranked(pool, scores, i) for i in (0, 1)]


def _ahead(ranked: list[list[Setting]], count: int) -> list[Setting]:
    """Those among the first `count` by RMS or by median."""
    return list({s.name: s for order in ranked for s in order[:count]}.values())


def _ranked(settings: Sequence[Setting], scores: list[list[float]], i: int) -> list[Setting]:
    order = sorted(range(len(settings)), key=lambda j: (scores[j][i], j))
    return [settings[j] for j in order]
