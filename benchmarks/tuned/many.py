r"""Tuned plans and the best that are not, on 4,096 starts that none of them was chosen on.

The RMS of good plans is a count of the few samples that end in another mode, and on 512 starts it
is known to a quarter; shares are told with the errors of `quality.shares`. The untuned: the
settings of this library, the default too, that are best on the 512 starts at so many calls, on
either range of noise; the least of these here.
(By both figures the best of other libraries is behind them on the 512 starts.)

Tables that know mean and covariance of the data have more rivals: these settings with them known,
too, and so with one step more, where they begin with a call at the noisy end.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import Plan, run
from sde_diffusion.denoise import Denoiser
from sde_diffusion.files import write_atomic
from sde_diffusion.grid import time_of_rho
from sde_diffusion.store import digest

from ..quality import ours
from ..quality.models import PROBLEMS, Case
from ..quality.shares import figures, share_of
from .data import many, sets
from .job import Job

RANGES = ("edm", "vp")
METRICS = ("rms", "median")
UNITS = {"rms": 1.0, "median": 1000.0}  # what a figure is multiplied by in the tables
HEAD = "| model | NFE | RMS | tuned | share | median, 0.001 | tuned | share | off |"
TABLES = {
    "": "Tables of the model alone",
    "-known": "Tables that know mean and covariance of the data",
}  # end of a cell's key


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
    stems = [p.stem.removeprefix(f"{model}-{range_}-") for p in output.glob("plans/*.json")]
    of_calls = quality[f"{model} {range_}"][ours.DEFAULT.peer]
    for key in sorted(stem for stem in stems if stem.removesuffix("-known") in of_calls):
        nfe = key.removesuffix("-known")
        job = Job(model, range_, int(nfe), known=key != nfe)
        plan, names = Plan.load(job.plan(output)), rivals(quality, model, nfe)
        of = digest([plan.matrix().tolist(), plan.asked_at, sorted(names)])
        if found.get(key, {}).get("of") != of:
            found[key] = {"of": of, **_figures(_case(kept, model, range_), job, plan, names, kept)}
            write_atomic(file, json.dumps(known, indent=1).encode())
    return found


def rivals(quality: dict[str, Any], model: str, nfe: str) -> list[str]:
    """The default, and the settings of this library that are best on the 512 starts."""
    best = [quality[f"{model} {range_}"][ours.DEFAULT.peer][nfe] for range_ in RANGES]
    return sorted({ours.DEFAULT.name, *(cell[m]["setting"] for cell in best for m in METRICS)})


def _case(kept: Path, model: str, range_: str) -> Case:
    pairs, problem = many(kept, model, range_), PROBLEMS[model]()
    case = Case(model, range_, problem, pairs.starts.flatten(1), pairs.ends.flatten(1))
    alpha = float(case.schedule.alpha(case.t_start))
    return Case(model, range_, problem, case.start / alpha, case.end)


def _figures(case: Case, job: Job, plan: Plan, names: list[str], kept: Path) -> dict[str, Any]:
    denoiser = job.denoiser(sets(kept, job.model, job.range).train)
    start = (case.start * float(case.schedule.alpha(case.t_start))).float()
    y = run(plan, denoiser, start.reshape(-1, *case.problem.event_shape))
    tuned = _off(case, y.flatten(1))
    found: dict[str, Any] = {"points": len(tuned), "tuned": figures(tuned)}
    settings = [_settings()[name] for name in names]
    tried = [(case, setting, job.nfe) for setting in settings]
    if job.known:
        known = {f.name: getattr(case, f.name) for f in fields(Case)}
        asked = (s for s in settings if getattr(s, "start", "asked") == "asked")
        tried += [(_Known(**known, denoiser=denoiser), setting, job.calls) for setting in asked]
    offs = {}
    for of, setting, calls in tried:
        y = setting.run(of, calls, torch.float32)
        if y is not None and bool(torch.isfinite(y).all()):
            offs[setting.name + ", moments known" * (of is not case)] = _off(case, y)
    for metric in METRICS:
        name = min(offs, key=lambda n: figures(offs[n])[metric])
        share = share_of[metric](tuned, offs[name])
        found[metric] = {"setting": name, **figures(offs[name]), "share": share}
    return found


@dataclass(frozen=True)
class _Known(Case):
    """A case whose network is another denoiser of its schedule."""

    denoiser: Denoiser = field(kw_only=True)

    def denoised(self, y: Tensor, rho: float) -> Tensor:
        t = time_of_rho(self.schedule, rho)
        x = (y * float(self.schedule.alpha(t))).reshape(-1, *self.problem.event_shape)
        return self.denoiser(x, t).reshape(y.shape)


@cache
def _settings() -> dict[str, Any]:
    return {setting.name: setting for setting in (ours.DEFAULT, *ours.settings())}


def _off(case: Case, y: Tensor) -> Tensor:
    """|y - y*|/|y*|, (n,)."""
    return (y.double() - case.end).norm(dim=1) / case.end.norm(dim=1)


def markdown(output: Path, bars: dict[str, dict[int, float]]) -> str:
    """Markdown tables of all that is on file; a share in bold is within the bar.

    0.123(4) is 0.123 with a standard error of 0.004.
    """
    known: dict[str, Any] = json.loads((output / "many.json").read_text())
    parts = []
    for ending, title in TABLES.items():
        lines = [f"{title}:\n", HEAD, "|---" * HEAD.count(" | ") + "|---|"]
        for name, cells in sorted(known.items()):
            model, range_ = name.rsplit(" ", 1)
            keys = [k for k in cells if k.removesuffix("-known") + ending == k]
            for key in sorted(keys, key=lambda k: int(k.removesuffix("-known"))):
                texts = [f"{model}, {range_.upper()}", key.removesuffix("-known")]
                lines.append(_row(texts, cells[key], bars))
        parts += ["\n".join(lines)] * (len(lines) > 3)
    return "\n\n".join(parts) + "\n"


def _row(texts: list[str], cell: dict[str, Any], bars: dict[str, dict[int, float]]) -> str:
    for metric in METRICS:
        for plan in (cell[metric], cell["tuned"]):
            value, error = (UNITS[metric] * plan[key] for key in (metric, f"{metric} error"))
            digits = -math.floor(math.log10(error))  # one of the error
            texts.append(f"{value:.{digits}f}({error * 10**digits:.0f})")
        share, error = cell[metric]["share"]
        bold = "**" if share <= bars[metric].get(int(texts[1]), 0.0) else ""
        texts.append(f"{bold}{share:.2f}{bold}({100 * error:.0f})")
    texts.append(f"{cell['rms']['elsewhere']}, {cell['tuned']['elsewhere']}")
    return "| " + " | ".join(texts) + " |"
