"""How near the default sampler comes to the exact ends with many steps, in float64 and float32.

python -m benchmarks.floors [--output DIR] [--kept DIR]

Median of |x - x*|/|x*| over 64 starts of the quality benchmark's models. With many steps only
rounding is left, in float64 below 1e-8, in float32 about 1e-6: but for VP, where no call lies below
sigma/alpha = 0.01 (t_clean), and the last step extrapolates. The range "vp, asked to 0.001" is VP
with t_clean = 1e-5. Writes floors.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from sde_diffusion import Schedule, VPLinear
from sde_diffusion.few_steps import default_plan
from sde_diffusion.files import write_atomic

from .about import where_and_when
from .quality.models import MAIN, SCHEDULES, TITLES, load
from .quality.ours import follow

STEPS = (20, 50, 100, 200, 400, 800)
DTYPES = {"float64": torch.float64, "float32": torch.float32}
_POINTS = 64


class Finer(VPLinear):
    """VP whose grids end at sigma/alpha = 0.001."""

    t_clean = 1e-5


RANGES: dict[str, tuple[str, Schedule]] = {  # where starts and ends come from, and the schedule
    "edm": ("edm", SCHEDULES["edm"][0]),
    "vp": ("vp", SCHEDULES["vp"][0]),
    "vp, asked to 0.001": ("vp", Finer()),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floors", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/quality"))
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/output/quality"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cells: dict[str, dict[str, dict[str, float]]] = {}
    print("| model | states | " + " | ".join(map(str, STEPS)) + " |\n" + "|---" * 8 + "|")
    for model in MAIN:
        for title, (range_, schedule) in RANGES.items():
            case = load(asked.kept, model, range_).small(_POINTS)
            for name, dtype in DTYPES.items():
                errors = {}
                for steps in STEPS:
                    plan = default_plan(schedule, steps, case.t_start)
                    end = follow(plan, schedule, case, dtype)
                    errors[str(steps)] = case.errors(end)["median"]
                cells.setdefault(f"{model} {title}", {})[name] = errors
                row = " | ".join(f"{error:.1e}" for error in errors.values())
                print(f"| {TITLES[model]}, {title} | {name} | {row} |", flush=True)
    content = {"about": where_and_when("benchmarks.floors"), "cells": cells}
    asked.output.mkdir(parents=True, exist_ok=True)
    write_atomic(asked.output / "floors.json", json.dumps(content, indent=1).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
