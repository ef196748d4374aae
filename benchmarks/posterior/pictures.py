"""Samples kept for pictures: of one measurement of a task, of every method's chosen setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sde_diffusion.store import Cell

from .asks import Setting
from .measure import SEEDS, Bench
from .problems import Task

NFE = 50
POINTS, IMAGES = 256, 3
SHOWN = ("ring, one row, 2-D", "digits, mask, 64-D", "fields, blur, 256-D")
"""One task of each dimension."""


def of(task: Task, settings: Sequence[Setting], cells: Sequence[Cell]) -> dict[str, Any] | None:
    """What a picture of the task needs, in numbers of three decimals; None for other tasks."""
    if task.name not in SHOWN:
        return None
    nfe = max(row["nfe"] for row in cells if row["nfe"] <= NFE)
    bench, k = Bench(task), _undecided(task)
    draw = lambda x: _kept(x[k], task)
    rows = [{"library": "exact", "method": "posterior", **draw(task.exact(0))}]
    by_name = {s.name: s for s in settings}
    for key in dict.fromkeys((row["library"], row["method"]) for row in cells):
        own = [r for r in cells if (r["library"], r["method"], r["nfe"]) == (*key, nfe)]
        found = next((r for r in own if r["chosen"] and "error" not in r), None)
        if found is not None:
            x, _, _ = bench.samples(by_name[found["name"]], nfe, SEEDS[0])
            rows.append({"library": key[0], "method": key[1], **draw(x)})
    seen = torch.linalg.pinv(task.matrix) @ task.y[k]
    return {
        "dimension": task.dimension,
        "side": task.side,
        "nfe": nfe,
        "row": _numbers(task.matrix[0]) if task.dimension == 2 else None,
        "noise": task.noise,
        "y": _numbers(task.y[k]),
        "kept": None if task.kept is None else task.kept.int().tolist(),
        "truth": _numbers(task.truth[k]),
        "seen": _numbers(seen),
        "rows": rows,
    }


def _undecided(task: Task) -> int:
    """The measurement that leaves the most components open."""
    entropy = [-float(torch.xlogy(p.weights, p.weights).sum()) for p in task.posteriors]
    return entropy.index(max(entropy))


def _kept(x: Tensor, task: Task) -> dict[str, Any]:
    if task.dimension == 2:
        return {"samples": _numbers(x[:POINTS])}
    few = {"mean": _numbers(x.mean(0)), "deviation": _numbers(x.std(0))}
    return {**few, "samples": _numbers(x[:IMAGES])}


def _numbers(x: Tensor) -> Any:
    return [round(v, 3) for v in x.tolist()] if x.ndim == 1 else [_numbers(row) for row in x]
