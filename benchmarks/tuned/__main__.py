"""Tables fitted to closed-form models at 4 to 10 network calls, against samplers that are not.

python -m benchmarks.tuned [--model NAME ...] [--range NAME ...] [--nfe N ...] [--known] [--grow]
                           [--again] [--seed N] [--quality FILE] [--output DIR] [--kept DIR]

From 512 fixed starting points, none of them fitted on, to sigma = 0: RMS and median of
|x - x*|/|x*| against the exact end, and how many of them end elsewhere, off by more than 0.3: one
such sample is an RMS of 0.02 to 0.04, so that the RMS of good plans is a count of very few.

Writes the figures, a picture and the plans themselves into the output folder and prints, for each
model and range of noise, the tuned plan beside the best sampler of any library that quality.json
knows. The fits of vp begin with the plans of edm, those of edm with first guesses. What was
measured before stays: remove a cell's two files to fit it anew, or go on with the fit (`--again`)
from its plan or from that of the other range, whichever is better on the validation starts.

--known fits tables to a denoiser that knows mean and covariance of the data, and so answers at the
noisy end for nothing (`guidance.gaussian_start`): as many calls of the network, and one row more.
The tables on file that know the moments, but for 4 calls, are made with --grow.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import SOLVERS, Plan, run
from sde_diffusion.denoise import Denoiser
from sde_diffusion.few_steps import default_plan
from sde_diffusion.files import write_atomic
from sde_diffusion.progress import Progress
from sde_diffusion.times import default
from sde_diffusion.tuning.base import Base
from sde_diffusion.tuning.family import Family
from sde_diffusion.tuning.fit import Fit
from sde_diffusion.tuning.grow import grown
from sde_diffusion.tuning.kept import probe
from sde_diffusion.tuning.least_squares import least_squares
from sde_diffusion.tuning.loss import balanced, endpoint, robust
from sde_diffusion.tuning.measure import measure
from sde_diffusion.tuning.restarts import first_guesses, restarts
from sde_diffusion.tuning.resume import Keeper
from sde_diffusion.tuning.table import table

from ..about import where_and_when
from ..quality.models import PROBLEMS, TITLES, load
from .data import sets
from .figure import draw
from .job import Job
from .many import markdown, measured

NFES = (4, 5, 6, 8, 10)
_LONGEST, _USUAL, _FTOL = 40, 1e-3, 1e-4  # of a fit; its ftol, and that of one that goes on
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
    known = "mean and covariance of the data, in place of a call at the noisy end"
    parser.add_argument("--known", action="store_true", help=known)
    grow = "begin with the plan of one call less, where there is one (`tuning.grown`)"
    parser.add_argument("--grow", action="store_true", help=grow)
    again = "go on with the fits of the cells named; the best on validation starts is kept"
    parser.add_argument("--again", action="store_true", help=again)
    signs = "of the signs in fits that go on: another one may find another minimum"
    parser.add_argument("--seed", type=int, default=0, help=signs)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # weights of far digits: products with these take twice as long
    best = json.loads(asked.quality.read_text())["cells"]
    for model in asked.model:
        for range_ in asked.range:
            name = f"{model} {range_}"
            for nfe in sorted(asked.nfe):
                job = Job(model, range_, nfe, asked.known)
                path = job.cell(asked.output)
                if asked.again or not path.exists():
                    how = (asked.again, asked.seed, asked.grow)
                    cell = _measure(job, asked.output, asked.kept, *how)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomic(path, json.dumps(cell, indent=1).encode())
                    print(f"{name}, {nfe} calls: {cell['test']}", file=sys.stderr, flush=True)
            cells = _cells(asked.output, model, range_, asked.known)
            ending = ", moments known" * asked.known
            print(table_of(f"{TITLES[model]}, {range_}{ending}", best[name], cells))
            measured(best, model, range_, asked.output, asked.kept)
    text = markdown(asked.output, {"rms": SHARE, "median": dict.fromkeys(NFES, 1 / 3)})
    write_atomic(asked.output / "many.md", text.encode())
    print(f"\n4,096 other starts\n\n{text}")
    tuned = {f"{m} {r}": _cells(asked.output, m, r) for m in asked.model for r in asked.range}
    print(f"\npicture: {draw(best, tuned, asked.output / 'tuned.png')}")
    return 0


def _measure(
    job: Job, output: Path, kept: Path, again: bool, seed: int = 0, grow: bool = False
) -> dict[str, Any]:
    """Fit one plan and test it."""
    case, given = load(kept, job.model, job.range), sets(kept, job.model, job.range)
    denoiser = job.denoiser(given.train)
    times = default(case.schedule, job.calls, t_start=case.t_start)
    base = SOLVERS["angular"](case.schedule, times)
    usual = default_plan(case.schedule, job.calls, case.t_start)
    errors = measure(usual, denoiser, endpoint(), given.validation)
    begun = _begun(job, output, again)
    loss = robust(errors) if again else balanced(errors)
    task = (denoiser, loss, given.train, given.validation)
    began, cpu = time.monotonic(), time.process_time()
    family = _table(first_guesses(base, case.schedule, job.known)[0], job)
    found = lambda v: measure(family.plan(v), denoiser, loss, given.validation).loss
    losses = {name: found(numbers) for name, numbers in begun.items()}
    chosen = min(losses, key=lambda name: losses[name]) if losses else "first guesses"
    smaller = job.fewer().plan(output) if grow and not begun else None
    if smaller is not None and smaller.exists():
        chosen = "the plan of one call less"
    else:
        smaller = None

    def fitted(**going: Any) -> tuple[Plan, Fit]:
        if not begun:
            beginning = Base(base, case.schedule, base.times, known=job.known)
            if smaller is None:
                return restarts(beginning, *task, **going)
            plans = grown(Plan.load(smaller), case.schedule)
            return restarts(beginning, *task, **going, guesses=plans, usual=False, tries=1)
        best = replace(family, start=begun[chosen])
        ftol = _FTOL if again else _USUAL
        go_on = partial(least_squares, max_iterations=_LONGEST, ftol=ftol, seed=seed)
        fit = go_on(best, *task, **going)
        return best.plan(fit.numbers), fit

    file = kept / "fits" / f"{job.model}-{job.range}-{job.key}{'-again' * again}.npz"
    plan, fit, before = _resumed(file, probe(denoiser, task[2].starts, case.t_start, 0.0), fitted)
    if again and (cell := job.cell(output)).exists():
        before += json.loads(cell.read_text())["processor seconds"]
    seconds = time.monotonic() - began
    plan.save(job.plan(output))
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
        "begun with": chosen,
        "validation losses before": losses,
        "seconds": seconds,
        "processor seconds": before + time.process_time() - cpu,
    }


def _table(plan: Plan, job: Job) -> Family:
    return table(plan, job.schedule, first_call=not job.known)


def _begun(job: Job, output: Path, again: bool) -> dict[str, Tensor]:
    """Tables to begin with: for vp that of edm; of both ranges if the cell is fitted `again`."""
    found = {}
    other = "vp" if job.range == "edm" else "edm"
    known = (
        (job, "its own plan", again),
        (job.on(other), f"the plan of {other}", again or other == "edm"),
    )
    for of, name, asked in known:
        if asked and (path := of.plan(output)).exists():
            found[name] = _table(Plan.load(path), of).start
    return found


def _resumed(
    file: Path, answers: Tensor, fitted: Callable[..., tuple[Plan, Fit]]
) -> tuple[Plan, Fit, float]:
    """(plan, its fit, processor seconds before a break); a fit that was stopped goes on."""
    spent, cpu = file.with_suffix(".json"), time.process_time()
    file.parent.mkdir(parents=True, exist_ok=True)
    before = float(json.loads(spent.read_text())) if spent.exists() else 0.0
    with Progress(0, True) as telling:
        keeper = Keeper(file, answers, file.stem, telling)
        try:
            plan, fit = fitted(state=keeper.state, watch=keeper)
        except KeyboardInterrupt:
            keeper.save()
            write_atomic(spent, json.dumps(before + time.process_time() - cpu).encode())
            raise
    for path in (file, spent):
        path.unlink(missing_ok=True)
    return plan, fit, before


def _errors(plan: Plan, denoiser: Denoiser, start: Tensor, end: Tensor) -> dict[str, float]:
    """RMS and median of the relative error, and how many samples are off by more than 0.3."""
    x = run(plan, denoiser, start).double().flatten(1)
    off = (x - end).norm(dim=1) / end.norm(dim=1)
    return {
        "rms": float(off.square().mean().sqrt()),
        "median": float(off.quantile(0.5)),
        "elsewhere": int((off > 0.3).sum()),
    }


def untuned(cell: dict[str, Any], nfe: int) -> dict[str, float]:
    """The least RMS and the least median of any sampler that is not fitted, the default too."""
    figures = [cell[library][str(nfe)] for library in LIBRARIES if library in cell]
    usual = cell["default"][str(nfe)]
    return {
        metric: min(usual[metric], *(f[metric][metric] for f in figures))
        for metric in ("rms", "median")
    }


def _cells(output: Path, model: str, range_: str, known: bool = False) -> dict[int, dict[str, Any]]:
    paths = {nfe: Job(model, range_, nfe, known).cell(output) for nfe in NFES}
    return {nfe: json.loads(path.read_text()) for nfe, path in paths.items() if path.exists()}


def table_of(title: str, quality: dict[str, Any], cells: dict[int, dict[str, Any]]) -> str:
    """A markdown table of one model and range."""
    head = (
        "| NFE | untuned | tuned | of the untuned | float32 | other seed | numbers | CPU seconds |"
    )
    rule = "|---|---|---|---|---|---|---|---|"
    return "\n".join(
        [
            f"\n{title} (RMS/median)\n",
            head,
            rule,
            *(row(n, c, untuned(quality, n)) for n, c in cells.items()),
        ]
    )


def row(nfe: int, cell: dict[str, Any], rival: dict[str, float]) -> str:
    """One line of it; a share in bold is within the bar."""
    pair = lambda figures: f"{figures['rms']:.3g}/{figures['median']:.2g}"
    shares = []
    for metric, bar in (("rms", SHARE.get(nfe, 1.0)), ("median", 1 / 3)):
        share = cell["test"][metric] / rival[metric]
        shares.append(f"**{share:.2f}**" if share <= bar else f"{share:.2f}")
    texts = [
        str(nfe),
        *(pair(figures) for figures in (rival, cell["test"])),
        "/".join(shares),
        *(pair(cell[key]) for key in ("float32", "other seed")),
        str(cell["numbers"]),
        f"{cell['processor seconds']:.0f}",
    ]
    return "| " + " | ".join(texts) + " |"


if __name__ == "__main__":
    sys.exit(main())
