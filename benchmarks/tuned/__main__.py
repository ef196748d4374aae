"""Tables fitted to closed-form models at 4 to 10 network calls, against samplers that are not.

python -m benchmarks.tuned [--model NAME ...] [--range NAME ...] [--nfe N ...]
                           [--quality FILE] [--output DIR] [--kept DIR]

From 512 fixed starting points, none of them fitted on, to sigma = 0: RMS and median of
|x - x*|/|x*| against the exact end. Writes the figures and the plans themselves into the
output folder and prints, for each model and range of noise, the tuned plan beside the best sampler
of any library that quality.json knows. What was measured before stays: remove a cell's two files
to fit it anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import SOLVERS, Plan, Schedule, run
from sde_diffusion.denoise import Denoiser
from sde_diffusion.files import write_atomic
from sde_diffusion.times import default
from sde_diffusion.transform import analytic_first_step
from sde_diffusion.tuning.choices import Base
from sde_diffusion.tuning.growth import grow
from sde_diffusion.tuning.loss import endpoint
from sde_diffusion.tuning.table import table

from ..about import where_and_when
from ..quality.models import PROBLEMS, SCHEDULES, TITLES, load
from .data import sets

NFES = (4, 5, 6, 8, 10)
LIBRARIES = ("sde_diffusion", "k-diffusion", "azula", "diffusers")
SHARE = {4: 0.5, 5: 0.5, 6: 0.5, 8: 0.65, 10: 0.8}  # of the best RMS that a tuned plan may have


def main(arguments: list[str] | None = None) -> int:
    """Fit, measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuned", description=__doc__)
    parser.add_argument("--model", nargs="+", choices=list(PROBLEMS), default=["mixture", "digits"])
    parser.add_argument("--range", nargs="+", choices=["edm", "vp"], default=["edm", "vp"])
    parser.add_argument("--nfe", nargs="+", type=int, default=list(NFES))
    quality = Path("benchmarks/results/quality/quality.json")
    parser.add_argument("--quality", type=Path, default=quality)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/tuned"))
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/output/tuned"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    best = json.loads(asked.quality.read_text())["cells"]
    for model in asked.model:
        for range_ in asked.range:
            name = f"{model} {range_}"
            for nfe in sorted(asked.nfe):
                path = asked.output / "cells" / f"{model}-{range_}-{nfe}.json"
                if not path.exists():
                    found = _measure(model, range_, nfe, asked.output, asked.kept)
                    found["untuned"] = untuned(best[name], nfe)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomic(path, json.dumps(found, indent=1).encode())
                    print(row(nfe, found), file=sys.stderr, flush=True)
            print(table_of(f"{TITLES[model]}, {range_}", _cells(asked.output, model, range_)))
    return 0


def _measure(model: str, range_: str, nfe: int, output: Path, kept: Path) -> dict[str, Any]:
    """Fit one plan, growing it from the last one that was kept, and test it."""
    case, given = load(kept, model, range_), sets(kept, model, range_)
    denoiser = case.problem.denoiser(case.schedule)
    base = _base(case.schedule, case.t_start, nfe)
    first, spent, origin = _first(model, range_, nfe, case.schedule, case.t_start, output)
    began, cpu = time.monotonic(), time.process_time()
    plan, fit = grow(
        Base(base, case.schedule, base.times),
        denoiser,
        endpoint(),
        given.train,
        given.validation,
        first=first,
    )
    seconds = time.monotonic() - began
    plan.save(_plan_path(output, model, range_, nfe))
    start = (case.start * case.schedule.alpha(case.t_start)).reshape(-1, *case.problem.event_shape)
    other = given.other
    return {
        "about": where_and_when("benchmarks.tuned"),
        "test": _errors(plan, denoiser, start, case.end),
        "float32": _errors(plan, denoiser, start.float(), case.end),
        "other seed": _errors(plan, denoiser, other.starts, other.ends.flatten(1)),
        "train loss": fit.train,
        "validation loss": fit.validation,
        "numbers": len(fit.numbers),
        "iterations": fit.iterations,
        "stopped": fit.stopped,
        "grown from": origin,
        "seconds": seconds,
        "seconds from one call": seconds + spent,
        "processor seconds": time.process_time() - cpu,
    }


def _base(schedule: Schedule, t_start: float, nfe: int) -> Plan:
    """The default sampler's plan with an analytic first step."""
    times = default(schedule, nfe + 1, t_start=t_start)
    return analytic_first_step(SOLVERS["angular"](schedule, times), schedule)


def _first(
    model: str, range_: str, nfe: int, schedule: Schedule, t_start: float, output: Path
) -> tuple[Plan | None, float, str]:
    """What to grow from: EDM's plan of as many calls, else the longest shorter one; its time."""
    of_edm = _plan_path(output, model, "edm", nfe)
    if range_ != "edm" and of_edm.exists():
        edm = SCHEDULES["edm"][0]
        numbers = table(Plan.load(of_edm), edm).start
        plan = table(_base(schedule, t_start, nfe), schedule).plan(numbers)
        return plan, _spent(output, model, "edm", nfe), f"edm, {nfe} calls"
    for fewer in range(nfe - 1, 0, -1):
        path = _plan_path(output, model, range_, fewer)
        if path.exists():
            return Plan.load(path), _spent(output, model, range_, fewer), f"{fewer} calls"
    return None, 0.0, "one call"


def _plan_path(output: Path, model: str, range_: str, nfe: int) -> Path:
    path = output / "plans" / f"{model}-{range_}-{nfe}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _spent(output: Path, model: str, range_: str, nfe: int) -> float:
    path = output / "cells" / f"{model}-{range_}-{nfe}.json"
    return float(json.loads(path.read_text())["seconds from one call"]) if path.exists() else 0.0


def _errors(plan: Plan, denoiser: Denoiser, start: Tensor, end: Tensor) -> dict[str, float]:
    """RMS and median of the relative error."""
    x = run(plan, denoiser, start).double().flatten(1)
    off = (x - end).norm(dim=1) / end.norm(dim=1)
    return {"rms": float(off.square().mean().sqrt()), "median": float(off.quantile(0.5))}


def untuned(cell: dict[str, Any], nfe: int) -> dict[str, float]:
    """The least RMS and the least median of any library's sampler that is not fitted."""
    figures = [cell[library][str(nfe)] for library in LIBRARIES if library in cell]
    return {metric: min(f[metric][metric] for f in figures) for metric in ("rms", "median")}


def _cells(output: Path, model: str, range_: str) -> dict[int, dict[str, Any]]:
    paths = {nfe: output / "cells" / f"{model}-{range_}-{nfe}.json" for nfe in NFES}
    return {nfe: json.loads(path.read_text()) for nfe, path in paths.items() if path.exists()}


def table_of(title: str, cells: dict[int, dict[str, Any]]) -> str:
    """A markdown table of one model and range."""
    head = "| NFE | untuned | tuned | of the untuned | float32 | other seed | numbers | seconds |"
    rule = "|---|---|---|---|---|---|---|---|"
    return "\n".join(
        [f"\n{title} (RMS/median)\n", head, rule, *(row(n, c) for n, c in cells.items())]
    )


def row(nfe: int, cell: dict[str, Any]) -> str:
    """One line of it; a share in bold is within the bar."""
    pair = lambda figures: f"{figures['rms']:.3g}/{figures['median']:.2g}"
    shares = []
    for metric, bar in (("rms", SHARE.get(nfe, 1.0)), ("median", 1 / 3)):
        share = cell["test"][metric] / cell["untuned"][metric]
        shares.append(f"**{share:.2f}**" if share <= bar else f"{share:.2f}")
    texts = [
        str(nfe),
        *(pair(cell[key]) for key in ("untuned", "test")),
        "/".join(shares),
        *(pair(cell[key]) for key in ("float32", "other seed")),
        str(cell["numbers"]),
        f"{cell['seconds from one call']:.0f}",
    ]
    return "| " + " | ".join(texts) + " |"


if __name__ == "__main__":
    sys.exit(main())
