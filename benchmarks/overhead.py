"""Microseconds per step beyond the network: this engine, the in-place floor, and peers, in one run.

python -m benchmarks.overhead [--quick] [--output DIR]

Every sampler is given a network that returns one fixed tensor; what such a network itself costs
is measured and taken off. A time is the MINIMUM over repeats (other work on the machine only adds)
of a whole run divided by its steps. "data" and "noise" say what the network predicts: reading a
noise prediction costs one combination more, which k-diffusion leaves to its model wrapper and
diffusers does inside its step. The floor is what any step must do: `lerp_` (two reads, one write)
and the three in-place kernels mul_, add_, add_ of a two-output step.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import SOLVERS, NetworkDenoiser, VPLinear, run
from sde_diffusion.files import write_atomic
from sde_diffusion.times import uniform

from . import peers
from .about import version, where_and_when

SHAPES = ((256, 2), (16, 3, 32, 32), (8, 4, 64, 64), (64, 3, 64, 64))
STEPS = 100
FLOOR = "three in-place kernels"
OURS = (
    ("ddim", "data"),
    ("dpm_solver_pp_2m", "data"),
    ("ddpm", "data"),
    ("ddim", "noise"),
    ("dpm_solver_pp_2m", "noise"),
)
Row = dict[str, Any]


def fastest(
    calls: dict[str, Callable[[], Any]], repeats: int, at_least: float = 1e-3
) -> dict[str, float]:
    """Seconds of one call of each: the minimum over rounds, in which they take turns.

    A block of calls lasts `at_least`; taking turns spreads a busy moment over all of them.
    """
    counts, best = {}, dict.fromkeys(calls, float("inf"))
    for name, call in calls.items():
        call()
        before = time.perf_counter()
        call()
        once = max(time.perf_counter() - before, 1e-9)
        counts[name] = max(1, int(at_least / once))
    for _ in range(repeats):
        for name, call in calls.items():
            before = time.perf_counter()
            for _ in range(counts[name]):
                call()
            spent = (time.perf_counter() - before) / counts[name]
            best[name] = min(best[name], spent)
    return best


def floors(shape: Sequence[int]) -> dict[str, Callable[[], Any]]:
    """What no step can avoid, and what a plain expression costs."""
    x, m, n = (torch.randn(shape) for _ in range(3))
    return {
        "in-place lerp": lambda: x.lerp_(m, 0.1),
        FLOOR: lambda: x.mul_(0.9).add_(m, alpha=0.05).add_(n, alpha=0.05),
        "plain expression a x + b m + c n": lambda: 0.9 * x + 0.05 * m + 0.05 * n,
    }


def own_loops(x: Tensor, out: Tensor, steps: int) -> dict[str, Callable[[], Tensor]]:
    """This engine's runs from x, with `out` as every network output."""
    schedule = VPLinear()

    def network(state: Tensor, label: Tensor) -> Tensor:
        return out

    found = {}
    for name, prediction in OURS:
        plan = SOLVERS[name](schedule, uniform(schedule, steps))
        denoiser = NetworkDenoiser(network, schedule, prediction=prediction)
        found[f"{name} ({prediction})"] = _bound(plan, denoiser, x)
    return found


def _network_call(x: Tensor, out: Tensor) -> Callable[[], Tensor]:
    def network(state: Tensor, label: Tensor) -> Tensor:
        return out

    label = x.new_zeros(len(x))
    return lambda: network(x, label)


def _bound(plan: Any, denoiser: Any, x: Tensor) -> Callable[[], Tensor]:
    return lambda: run(plan, denoiser, x, noise=0)


def step_times(threads: int, repeats: int, shapes: Sequence[Sequence[int]] = SHAPES) -> list[Row]:
    """One row for each sampler and shape, with its ratio to the three in-place kernels."""
    torch.set_num_threads(threads)
    rows: list[Row] = []
    for shape in shapes:
        x, out = torch.randn(shape), 0.5 * torch.randn(shape)
        loops = {**own_loops(x, out, STEPS), **peers.loops(x, out, STEPS)}
        alone = {"network": _network_call(x, out)}
        best = fastest({**alone, **floors(shape), **loops}, repeats)
        network, floor = best.pop("network"), best[FLOOR]
        times = {
            name: best[name] / STEPS - network if name in loops else best[name] for name in best
        }
        for name, value in times.items():
            rows.append(
                {
                    "threads": threads,
                    "shape": "x".join(map(str, shape)),
                    "sampler": name,
                    "microseconds": round(1e6 * value, 2),
                    "ratio_to_floor": round(value / floor, 2),
                }
            )
    return rows


def building_times(steps: Sequence[int] = (20, 1000), repeats: int = 5) -> list[Row]:
    """Milliseconds to make each solver's plan."""
    schedule = VPLinear()
    rows = []
    for name, method in SOLVERS.items():
        for n in steps:
            times = uniform(schedule, n)
            call = partial(method, schedule, times)
            best = fastest({name: call}, repeats, 0.0)[name]
            rows.append({"solver": name, "steps": n, "milliseconds": round(1e3 * best, 2)})
    return rows


def _show(rows: list[Row], threads: int) -> None:
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    names = list(dict.fromkeys(row["sampler"] for row in rows))
    table = {(row["sampler"], row["shape"]): row for row in rows}
    print(f"\nMicroseconds per step beyond the network, {threads} thread(s) (ratio to the floor)")
    print(f"{'':34}" + "".join(f"{shape:>20}" for shape in shapes))
    for name in names:
        cells = [table[name, shape] for shape in shapes]
        texts = [f"{c['microseconds']:.1f} ({c['ratio_to_floor']:.2f})" for c in cells]
        print(f"{name:34}" + "".join(f"{text:>20}" for text in texts))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser("python -m benchmarks.overhead", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--output", metavar="DIR", help="default: benchmarks/output/overhead")
    options = parser.parse_args(arguments)
    folder = Path(options.output or Path(__file__).parent / "output" / "overhead")
    folder.mkdir(parents=True, exist_ok=True)
    about = where_and_when("benchmarks.overhead")
    for name in ("diffusers", "k-diffusion"):
        about["versions"] += f", {name} {version(name)}"
    print("\n".join(f"{key}: {value}" for key, value in about.items()))

    threads_before, rows = torch.get_num_threads(), []
    for threads in (1, 2):
        found = step_times(threads, 7 if options.quick else 40)
        _show(found, threads)
        rows += found
    torch.set_num_threads(threads_before)
    building = building_times()
    print("\nMilliseconds to build a plan (20 steps, 1000 steps)")
    for name in SOLVERS:
        times = [row["milliseconds"] for row in building if row["solver"] == name]
        print(f"{name:34}" + "".join(f"{value:>12.2f}" for value in times))
    print("\n" + "\n".join(peers.missing()))

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    content = {"about": about, "steps": rows, "building": building}
    write_atomic(folder / "overhead.csv", text.getvalue().encode())
    write_atomic(folder / "overhead.json", json.dumps(content, indent=1).encode())
    print(f"Files: {folder / 'overhead.csv'}, {folder / 'overhead.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
