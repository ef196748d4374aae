"""Sampling in parallel: rounds, work and time against the sequential run, on the digits network.

python -m benchmarks.parallel [--quick] [--peers] [--samples N] [--output DIR] [--kept DIR]

Every method of `run_parallel` on plans of 50 to 1000 network calls, at tolerances 1e-2, 1e-3 and
1e-4: rounds (calls that wait for one another), network calls, evaluations a sample, processor time
of one thread, and the difference from the sequential run; `--peers`: ParaDiGMS by diffusers'
parallel schedulers. Writes parallel.json, parallel.md and (with matplotlib) parallel.png. A run
replaces only what it measured anew; interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import sde_diffusion.parallel
from sde_diffusion.files import write_atomic
from sde_diffusion.progress import Progress
from sde_diffusion.store import Cell, Store, digest

from ..about import version, where_and_when
from ..model import FOLDER, digits_network
from . import peers
from .measure import CASES, PEER, Bench, Case, Job, call_times, cells_of

BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
QUICK = {"DDIM, 20 steps": Case("ddim", 20), "2M, 20 steps": Case("dpm_solver_pp_2m", 20)}


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parallel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="short plans, a short training")
    parser.add_argument(
        "--peers", action="store_true", help="measure diffusers' schedulers, not us"
    )
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output/parallel"))
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/output/parallel"))
    parser.add_argument("--networks", type=Path, default=FOLDER, help="where the network is kept")
    asked = parser.parse_args(arguments)
    if asked.samples < 1:
        parser.error(f"--samples = {asked.samples} must be at least 1")
    torch.set_num_threads(1)
    about = where_and_when("benchmarks.parallel")
    cases = QUICK if asked.quick else CASES
    jobs = [job for name in cases for job in Job.of(name)]
    if asked.peers:
        about["versions"] += f", diffusers {version('diffusers')}"
        jobs = [Job(case, PEER, t) for case in peers.CASES for t in peers.TOLERANCES]
    bar = importlib.util.find_spec("rich") is not None  # peers' environments may lack it
    network = digits_network(asked.quick, bar, asked.networks)
    store = Store(asked.kept / "cells.json")
    with torch.no_grad():
        try:
            cells = measure(Bench(network, cases, asked.samples), jobs, store)
        finally:
            store.save()
        calls = call_times(network, BATCHES[: 4 if asked.quick else None])
    part = "peers" if asked.peers else "ours"
    new = {"about": about, "samples": asked.samples, "call_seconds": calls, "cells": cells}
    content = _write(asked.output / "parallel.json", part, new)
    write_atomic(asked.output / "parallel.md", table(content).encode())
    if "ours" in content and importlib.util.find_spec("matplotlib"):
        from .figure import draw

        draw(content, asked.output / "parallel.png")
    print(table(content))
    return 0


def _write(path: Path, part: str, new: dict[str, Any]) -> dict[str, Any]:
    """The file with what was measured anew, ours first."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    kept[part] = new
    content: dict[str, Any] = {p: kept[p] for p in ("ours", "peers") if p in kept}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(content, indent=1).encode())
    return content


def measure(bench: Bench, jobs: Sequence[Job], store: Store) -> list[Cell]:
    """One row a job, from the store where it is kept; other code or another network: anew."""
    settled = [bench.fingerprint(), code()]
    rows = []
    with Progress(len(jobs)) as progress:
        for job in jobs:
            key = digest([*settled, *job])
            cell = store.get(key)
            if cell is None:
                cell = bench.solve(job)
                store.put(key, cell)
            rows.append({**job._asdict(), **cell})
            progress.advance(1, f"{job.case}: {job.method} {job.tolerance or ''}")
    return rows


def code() -> str:
    """A fingerprint of what is measured and how, so that changed code is measured anew."""
    here = Path(__file__).parent
    files = sorted(Path(sde_diffusion.parallel.__file__).parent.glob("*.py"))
    files += [here / name for name in ("measure.py", "peers.py", "errors.py")]
    return digest([file.read_text() for file in files])


def table(content: dict[str, Any]) -> str:
    """Every cell as a line of Markdown, under its plan."""
    lines = [
        f"{part['about']['command']}, {part['about']['date']}, {part['about']['processor']}, "
        f"{part['samples']} samples"
        for part in content.values()
    ]
    head = (
        "| method | tolerance | rounds | evaluations | difference, RMS | worst sample |"
        " seconds | beyond the network |\n|---|---|---|---|---|---|---|---|"
    )
    rows = cells_of(content)
    for case in dict.fromkeys(row["case"] for row in rows):
        lines += ["", f"## {case}", "", head]
        lines += [_line(row) for row in rows if row["case"] == case]
    return "\n".join(lines) + "\n"


def _line(row: Cell) -> str:
    parts = (
        row["method"],
        "" if row["tolerance"] is None else f"{row['tolerance']:g}",
        f"{row['rounds']}",
        f"{row['evaluations']:.0f}" if "evaluations" in row else "",
        f"{row['rms']:.1e}" if "rms" in row else "",
        f"{row['worst']:.1e}" if "worst" in row else "",
        f"{row['seconds']:.2f}" if "seconds" in row else "",
        f"{row['beyond_network']:.2f}" if "seconds" in row else "",
    )
    return "| " + " | ".join(parts) + " |"


if __name__ == "__main__":
    sys.exit(main())
