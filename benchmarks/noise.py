"""Time and memory per draw of each source of noise, and of torchsde's Brownian tree.

python -m benchmarks.noise [--quick] [--output DIR]

Every source opens a stream and makes all draws of a run, in time order; a time is that of the whole
divided by the number of steps, in microseconds of processor time (one thread), which other work
on the machine does not add to. Sources take turns, round after round; given are the median of the
rounds and their minimum. "torchsde, one tree" asks `torchsde.BrownianTree` as k-diffusion's
BrownianTreeNoiseSampler does with one seed: a tree over [sigma_min, sigma_max] for the batch, one
query (sigma, sigma_next) a step, divided by sqrt(sigma - sigma_next); "a tree a sample" is what it
does with a list of seeds. Memory is by how much a fresh process grows over a run.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torchsde
from torch import Tensor

from sde_diffusion import EDM, BrownianPath, IndependentNoise, Noise, PerSampleNoise
from sde_diffusion.files import write_atomic
from sde_diffusion.solvers import ddim
from sde_diffusion.times import karras

from .about import version, where_and_when

SHAPES = ((16, 3, 32, 32), (256, 2), (8, 4, 64, 64))
STEPS = (20, 100)
MANY_STEPS = (10, 100, 1000)
OWN: dict[str, Callable[[Sequence[int]], Noise]] = {
    "IndependentNoise": lambda seeds: IndependentNoise(seeds[0]),
    "PerSampleNoise": PerSampleNoise,
    "BrownianPath": BrownianPath,
    "BrownianPath, depth 12": partial(BrownianPath, depth=12),
}
PLAIN, TREE, TREES = "plain normal_", "torchsde, one tree", "torchsde, a tree a sample"
Row = dict[str, Any]


def own_run(name: str, x: Tensor, steps: int) -> Iterator[None]:
    """All draws of DDIM(1) on Karras' grid, from one of the package's sources."""
    course = ddim(EDM(), karras(EDM(), steps, t_end=0.002), eta=1.0).course
    source, out = OWN[name](range(len(x))), torch.empty_like(x)
    yield
    stream = source.stream(x, course)
    for t, s in course.intervals:
        stream(out, t, s)
        yield


def plain_run(x: Tensor, steps: int) -> Iterator[None]:
    """As many plain draws: what no source can go below."""
    out, generator = torch.empty_like(x), torch.Generator()
    yield
    for _ in range(steps):
        out.normal_(generator=generator)
        yield


def tree_run(x: Tensor, steps: int, a_sample: bool = False) -> Iterator[None]:
    """The same queries of torchsde's Brownian tree, as k-diffusion makes them."""
    sigmas = karras(EDM(), steps, t_end=0.002).float()
    yield
    like = [torch.zeros_like(row) for row in x] if a_sample else [torch.zeros_like(x)]
    trees = [
        torchsde.BrownianTree(sigmas[-1], w0, sigmas[0], entropy=k) for k, w0 in enumerate(like)
    ]
    for t, s in pairwise(sigmas):
        draws = [tree(s, t) for tree in trees]
        z = torch.stack(draws) if a_sample else draws[0]
        z / (t - s).abs().sqrt()
        yield


def draw_times(
    shape: Sequence[int], steps: int, rounds: int, tree_rounds: int = 3, a_sample: bool = True
) -> list[Row]:
    """One row for each source: median and minimum of the microseconds a step, ratio to the tree."""
    x = torch.zeros(shape)
    spent: dict[str, list[float]] = {name: [] for name in (PLAIN, *OWN, TREE, TREES)}
    if not a_sample:
        del spent[TREES]
    for i in range(rounds + 1):
        for name in spent:
            if name in (TREE, TREES) and i > tree_rounds:
                continue
            draws = a_run(name, x, steps)
            next(draws)  # what belongs to no run
            before = time.process_time()
            deque(draws, maxlen=0)
            if i:  # the first round warms up
                spent[name].append((time.process_time() - before) / steps)
    tree = statistics.median(spent[TREE])
    return [
        {
            "shape": "x".join(map(str, shape)),
            "steps": steps,
            "source": name,
            "median_microseconds": round(1e6 * statistics.median(values), 1),
            "minimum_microseconds": round(1e6 * min(values), 1),
            "rounds": len(values),
            "times_faster_than_one_tree": round(tree / statistics.median(values), 1),
        }
        for name, values in spent.items()
    ]


def a_run(name: str, x: Tensor, steps: int) -> Iterator[None]:
    """An iterator that is ready to run at its first item, and makes a draw for each other."""
    if name == PLAIN:
        return plain_run(x, steps)
    return own_run(name, x, steps) if name in OWN else tree_run(x, steps, name == TREES)


def peak_growth(name: str, shape: Sequence[int], steps: int) -> float:
    """MiB by which this process grows in a run, at most; looked at after every draw."""
    x = torch.zeros(shape)
    deque(a_run(name, x, 2), maxlen=0)  # loads what is loaded once
    draws = a_run(name, x, steps)
    next(draws)
    before = _resident()
    return max(_resident() - before for _ in draws)


def _resident() -> float:
    """MiB of this process in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def memory(shape: Sequence[int], steps: Sequence[int], names: Sequence[str]) -> list[Row]:
    """One row for each source and number of steps, each measured in a process of its own."""
    rows = []
    for name in names:
        for n in steps:
            script = (
                "from benchmarks.noise import peak_growth\n"
                f"print(peak_growth({name!r}, {tuple(shape)!r}, {n}))"
            )
            done = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=True
            )
            growth = round(float(done.stdout), 1)
            rows.append({"source": name, "steps": n, "mebibytes": growth})
    return rows


def _show(rows: list[Row]) -> None:
    for row in rows:
        print("  ".join(f"{value!s:>26}" for value in row.values()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser("python -m benchmarks.noise", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="one shape, few rounds")
    parser.add_argument("--output", metavar="DIR", help="default: benchmarks/output/noise")
    options = parser.parse_args(arguments)
    folder = Path(options.output or Path(__file__).parent / "output" / "noise")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    about = where_and_when("benchmarks.noise")
    about["versions"] += f", torchsde {version('torchsde')}"
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    rows = []
    for shape in SHAPES[:1] if options.quick else SHAPES:
        for steps in STEPS[:1] if options.quick else STEPS:
            few = steps == STEPS[0] and shape[0] <= 16  # a tree a sample takes its time
            found = draw_times(shape, steps, 3 if options.quick else 11, a_sample=few)
            _show(found)
            rows += found
    print("\nMiB that a process grows by, 16x3x32x32 (0.19 MiB a state)")
    names = ("PerSampleNoise", "BrownianPath", "BrownianPath, depth 12", TREE)
    grown = memory(SHAPES[0], MANY_STEPS[:2] if options.quick else MANY_STEPS, names)
    _show(grown)
    content = {"about": about, "draws": rows, "memory": grown}
    write_atomic(folder / "noise.json", json.dumps(content, indent=1).encode())
    print(f"File: {folder / 'noise.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
