r"""Tuned plans and the best that are not, on 4,096 starts that none of them was chosen on.

The RMS of good plans is a count of the few samples that end in another mode, and on 512 starts it
is known to a quarter; shares are told with the errors of `quality.shares`. The untuned: the
settings of this library, the default too, that are best on the 512 starts at so many calls, on
either range of noise; the least of these here.
(By both figures the best of other libraries is behind them on the 512 starts.)
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import Plan
from sde_diffusion.files import write_atomic
from sde_diffusion.store import digest

from ..quality import ours
from ..quality.models import PROBLEMS, Case
from ..quality.shares import figures, share_of
from .data import many

RANGES = ("edm", "vp")
METRICS = ("rms", "median")


def measured(
    quality: dict[str, Any], model: str, range_: str, output: Path, kept: Path
) -> dict[str, dict[str, Any]]:
    """NFE -> figures of the tuned plan and of the best untuned; those on file are not run again.

    Args:
        quality: the cells of quality.json.
        model, range_: which.
        output: where the plans are, and `many.json`.
        kept: where starts and ends are.
    """
    file = output / "many.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    found = known.setdefault(f"{model} {range_}", {})
    paths = {p.stem.rsplit("-", 1)[1]: p for p in output.glob(f"plans/{model}-{range_}-*.json")}
    for nfe in sorted(paths, key=int):
        plan, names = Plan.load(paths[nfe]), rivals(quality, model, nfe)
        of = digest([plan.matrix().tolist(), plan.asked_at, sorted(names)])
        if found.get(nfe, {}).get("of") != of:
            found[nfe] = {"of": of, **_figures(_case(kept, model, range_), plan, names)}
            write_atomic(file, json.dumps(known, indent=1).encode())
    return {nfe: found[nfe] for nfe in sorted(paths, key=int)}


def rivals(quality: dict[str, Any], model: str, nfe: str) -> list[str]:
    """The default, and the settings of this library that are best on the 512 starts."""
    best = [quality[f"{model} {range_}"][ours.DEFAULT.peer][nfe] for range_ in RANGES]
    return sorted({ours.DEFAULT.name, *(cell[m]["setting"] for cell in best for m in METRICS)})


def _case(kept: Path, model: str, range_: str) -> Case:
    pairs, problem = many(kept, model, range_), PROBLEMS[model]()
    case = Case(model, range_, problem, pairs.starts.flatten(1), pairs.ends.flatten(1))
    alpha = float(case.schedule.alpha(case.t_start))
    return Case(model, range_, problem, case.start / alpha, case.end)


def _figures(case: Case, plan: Plan, names: list[str]) -> dict[str, Any]:
    tuned = _off(case, ours.follow(plan, case.schedule, case, torch.float32))
    found: dict[str, Any] = {"points": len(tuned), "tuned": figures(tuned)}
    offs = {}
    for name in names:
        y = _settings()[name].run(case, plan.nfe, torch.float32)
        if y is not None and bool(torch.isfinite(y).all()):
            offs[name] = _off(case, y)
    for metric in METRICS:
        name = min(offs, key=lambda n: figures(offs[n])[metric])
        share = share_of[metric](tuned, offs[name])
        found[metric] = {"setting": name, **figures(offs[name]), "share": share}
    return found


@cache
def _settings() -> dict[str, Any]:
    return {setting.name: setting for setting in (ours.DEFAULT, *ours.settings())}


def _off(case: Case, y: Tensor) -> Tensor:
    """|y - y*|/|y*|, (n,)."""
    return (y.double() - case.end).norm(dim=1) / case.end.norm(dim=1)


def markdown(output: Path, titles: dict[str, str], bars: dict[str, dict[int, float]]) -> str:
    """A markdown table of all that is on file; a share in bold is within the bar."""
    known: dict[str, Any] = json.loads((output / "many.json").read_text())
    lines = [
        "| model | NFE | RMS untuned | tuned | share | median untuned | tuned | share "
        "| elsewhere |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, cells in sorted(known.items()):
        model, range_ = name.rsplit(" ", 1)
        for nfe in sorted(cells, key=int):
            lines.append(_row([f"{titles[model]}, {range_.upper()}", nfe], cells[nfe], bars))
    return "\n".join(lines) + "\n"


def _row(texts: list[str], cell: dict[str, Any], bars: dict[str, dict[int, float]]) -> str:
    for metric in METRICS:
        for plan in (cell[metric], cell["tuned"]):
            value, error = plan[metric], plan[f"{metric} error"]
            digits = 1 - math.floor(math.log10(error))  # two of the error
            texts.append(f"{value:.{digits}f} ± {error:.{digits}f}")
        share, error = cell[metric]["share"]
        bold = "**" if share <= bars[metric].get(int(texts[1]), 0.0) else ""
        texts.append(f"{bold}{share:.2f}{bold} ± {error:.2f}")
    texts.append(f"{cell['rms']['elsewhere']}, tuned {cell['tuned']['elsewhere']}")
    return "| " + " | ".join(texts) + " |"
