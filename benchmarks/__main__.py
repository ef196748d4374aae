"""The main job: one network, every solver, steps against quality.

python -m benchmarks            full run, under five minutes on two cores, training included
python -m benchmarks --quick    under one minute
python -m benchmarks --help     all options

A run that is stopped (Ctrl-C) keeps what is finished; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from sde_diffusion import SOLVERS, NetworkDenoiser
from sde_diffusion.store import Store, digest

from . import gallery
from .about import where_and_when
from .cases import make_cases
from .claim import Comparison, compare, sentence, verdict
from .data import digit_labels, digits
from .entries import BLACK_BOXES, END_GRIDS, Entry
from .figures import all_figures
from .jobs import Job, Workbench, workload
from .metrics import METRICS, Judge, classifier_features
from .model import SCHEDULE, digits_network
from .report import write_report
from .results import Results
from .runner import Budget, best_threads, run_jobs
from .settings import ROOT, Settings, code_digest, describe, quick_settings
from .tables import all_tables

OUTPUT = ROOT / "output"
SECONDS, QUICK_SECONDS = 285, 56
REPORTING = (22.0, 12.0)  # seconds kept for pictures and the report: full, quick
GALLERY_NFE = (5, 10, 20, 50, 200)
GALLERY = ("ddim eta=0", "ddpm variance=beta", "dpm_solver_pp_2m", "heun variable=rho")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    try:
        _run(options, console)
    except KeyboardInterrupt:
        console.print("Stopped. Finished results are kept; the same command goes on from there.")
        return 130
    except (ImportError, OSError, ValueError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
    return 0


def _run(options: argparse.Namespace, console: Console) -> None:
    begin = time.monotonic()
    settings = _settings(options)
    folder = Path(options.output or OUTPUT / ("quick" if settings.quick else "full"))
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / "cells.json")
    about = {**where_and_when("benchmarks"), **describe(settings)}

    if options.threads:
        torch.set_num_threads(options.threads)
    console.print("The network (trained once, then kept) ...")
    network = digits_network(quick=settings.quick, progress=console.is_terminal)
    cases = make_cases(settings, network)
    judge = _judge()
    sampler = NetworkDenoiser(network, SCHEDULE)
    work = workload(settings, cases)
    context = digest([code_digest(), repr(SCHEDULE), _weights(network)])
    keys = {job: job.key(settings, context) for job in work.jobs}
    images = judge.held_out[: settings.samples]
    threads = options.threads or best_threads(lambda: sampler(images, 0.5))
    about["threads for the samples"] = str(threads)
    bench = Workbench(settings, cases, sampler, judge, threads)

    known = sum(store.get(key) is not None for key in keys.values())
    console.print(f"{len(work.jobs)} cells, {known} of them known from {store.path}")
    limit = options.budget
    left = limit - REPORTING[settings.quick] - (time.monotonic() - begin) if limit else None
    cells = run_jobs(work.jobs, keys, bench, store, Budget(left), console)
    missing = len(work.jobs) - len(cells)
    about["cells left out for time"] = f"{missing} of {len(work.jobs)}"

    console.print("Tables, pictures and the report ...")
    floor = _floor(judge, settings)
    results = Results(work, cells, floor, about)
    comparisons = _comparisons(results)
    answer = verdict(comparisons)
    details = [sentence(name, rows) for name, rows in comparisons.items()]
    tables = all_tables(results, comparisons)
    pictures = all_figures(results, comparisons, folder)
    pictures |= _gallery(bench, work.entries, folder)
    about["run time"] = f"{time.monotonic() - begin:.0f} s, of which known cells cost nothing"
    files = results.write(folder, {"verdict": answer, "sentences": details})
    page = write_report(folder / "report.html", results, answer, details, tables, pictures)
    for table in tables:
        console.print(table.rich())
    for line in (answer, *details):
        console.print(line, markup=False, highlight=False)
    if missing:
        console.print(
            f"{missing} of {len(work.jobs)} cells did not fit into {limit:g} s: the same command "
            "again computes them (--budget 0: no limit)."
        )
    console.print(
        f"{time.monotonic() - begin:.0f} s. Files:", *map(str, (page, *files)), sep="\n  "
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="short training, small sets: under one minute")
    add("--output", metavar="DIR", help="where files go (default: benchmarks/output/full, quick)")
    add("--nfe", type=_numbers, metavar="5,10,...", help="numbers of network evaluations")
    add("--seed", type=int, default=0, help="of starting points and samples")
    add("--grid", choices=END_GRIDS, default="quadratic", help="times of the endpoint errors")
    add("--sampling-grid", choices=END_GRIDS, default="uniform", help="times of the samples")
    names = ", ".join([*SOLVERS, *BLACK_BOXES])
    add("--solvers", nargs="+", metavar="NAME", help=f"only these: {names}")
    add("--threads", type=int, metavar="N", help="of torch (default: the faster of 1 and all)")
    add(
        "--budget",
        type=float,
        metavar="SECONDS",
        help=f"leave out what takes longer; 0: no limit (default {SECONDS}, quick {QUICK_SECONDS})",
    )
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    if options.budget is None:
        options.budget = QUICK_SECONDS if options.quick else SECONDS
    if options.seed < 0:
        raise ValueError(f"--seed {options.seed}: give a number of at least 0")
    chosen: dict[str, Any] = {
        "seed": options.seed,
        "grid": options.grid,
        "sampling_grid": options.sampling_grid,
    }
    if options.solvers:
        chosen["solvers"] = tuple(n for name in options.solvers for n in name.split(",") if n)
    if options.nfe:
        chosen["nfe"] = options.nfe
    return quick_settings(**chosen) if options.quick else Settings(**chosen)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: give whole numbers, 5,10,20") from error
    if values[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers of evaluations start at 1")
    return tuple(values)


def _judge() -> Judge:
    (train, held_out), (labels, _) = digits(), digit_labels()
    return Judge(held_out, classifier_features(train, labels))


def _floor(judge: Judge, settings: Settings, repeats: int = 10) -> dict[str, list[float]]:
    """Distances of random parts of the training digits, of the size of the samples' sets."""
    train, _ = digits()
    generator = torch.Generator().manual_seed(settings.seed)
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for _ in range(repeats):
        part = train[torch.randperm(len(train), generator=generator)[: settings.samples]]
        for metric, value in judge(part).items():
            found[metric].append(value)
    return found


def _comparisons(results: Results) -> dict[str, list[Comparison]]:
    """Metric and DDPM variance -> DDIM (eta = 0) against DDPM at each NFE."""
    compared = results.work.compared
    ddim = next((entry for entry in compared if entry.solver == "ddim"), None)
    found = {}
    for metric, title in METRICS.items():
        for ddpm in (entry for entry in compared if ddim and entry.solver == "ddpm"):
            name = f"{title}, DDPM variance {dict(ddpm.options)['variance']}"
            sides = [results.repeats(entry, metric) for entry in (ddim, ddpm) if entry]
            found[name] = compare(sides[0], sides[1], results.floor[metric])
    return found


def _gallery(bench: Workbench, entries: Sequence[Entry], folder: Path) -> dict[str, Path]:
    """Samples, the forward process and the schedules."""
    found: dict[str, Path] = {}
    shown = [entry for entry in entries if entry.label in GALLERY]
    # Not every budget holds a step of every solver.
    nfes = [n for n in GALLERY_NFE if shown and n >= max(e.evaluations for e in shown)]

    def draw(entry: Entry, nfe: int) -> Tensor:
        return bench.draw(Job("quality", "network", entry, nfe), 10)[0]

    if shown:
        found["Samples of the network, from one starting noise"] = gallery.sample_grid(
            draw, shown, nfes, folder / "samples.png"
        )
    train, _ = digits()
    labels = digit_labels()[0].tolist()
    one_each = torch.stack([train[labels.index(k)] for k in range(6)])
    found["The forward process on real digits"] = gallery.forward_process(
        one_each, SCHEDULE, folder / "forward.png"
    )
    found["Coefficients of the schedules"] = gallery.coefficients(folder / "schedules.png")
    return found


def _weights(network: nn.Module) -> str:
    total = hashlib.blake2b(digest_size=12)
    for name, value in sorted(network.state_dict().items()):
        total.update(name.encode() + value.contiguous().numpy().tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
