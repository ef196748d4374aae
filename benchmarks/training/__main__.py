"""Test bits per dimension and sample quality against training time, of one network.

python -m benchmarks.training [--quick] [--output DIR] [--kept DIR]

A small U-Net learns scikit-learn's digits under several recipes that differ from one of them in
one thing each: what is predicted on which schedule, the weighting, the law of the times (drawn by
importance, and on a learned schedule, too). At a few lengths of training, each going on from the
one before: distances of samples to held-out digits, the variational bound of these; at the end,
their likelihood along the probability flow. The first recipe is trained with
three seeds, which tells what a difference is worth. Then the processor time of a step is taken, of
all recipes in turns, and of the trainer against a bare PyTorch loop.

Writes training.json, training.md and training.png. What is trained and measured stays in the folder
of --kept: stopped by Ctrl-C, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sde_diffusion.files import write_atomic

from ..about import where_and_when
from .figure import ROWS, draw
from .measure import Cell, cell, floor, judge, train
from .overhead import of_recipes, overhead
from .recipes import BASE, RECIPES, SEED, Recipe
from .sizes import FULL, QUICK, Sizes
from .tables import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="so few steps that nothing is learned")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: the folder of --kept")
    kept = Path(__file__).parents[1] / "output" / "training"
    parser.add_argument("--kept", type=Path, metavar="DIR", default=kept)
    asked = parser.parse_args(arguments)
    sizes, form = (QUICK, "quick") if asked.quick else (FULL, "full")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = measure_all(sizes, asked.kept / form)
    finally:
        torch.set_num_threads(threads)
    folder = asked.output or asked.kept / form
    for path in write(result, folder):
        print(path)
    return 0


def measure_all(sizes: Sizes, kept: Path, recipes: Sequence[Recipe] = RECIPES) -> dict[str, Any]:
    """Everything, as JSON has it; the first recipe is what the others are compared with."""
    about = where_and_when("benchmarks.training")
    judge()
    with tempfile.TemporaryDirectory() as folder:  # what the first run of all has to load
        train(recipes[0], 1, sizes, Path(folder))
    cells: dict[str, dict[str, Cell]] = {}
    began, total = time.process_time(), len(recipes) * len(sizes.steps)
    for recipe in recipes:
        for steps in sizes.steps:
            found = cell(recipe, steps, sizes, kept)
            cells.setdefault(recipe.name, {})[str(steps)] = found
            done = sum(map(len, cells.values()))
            print(
                f"{done}/{total}, {time.process_time() - began:.0f} s: {recipe.name}, {steps} "
                f"steps, Fréchet {found['frechet']['mean']:.3g}, "
                f"bound {found['bound']['mean']:.3f}",
                file=sys.stderr,
                flush=True,
            )
    return {
        "about": about,
        "sizes": asdict(sizes),
        "recipes": {recipe.name: dict(recipe.change) for recipe in recipes},
        "floor": floor(sizes),
        "cells": cells,
        "seeds": spread(cells, recipes, sizes.steps),
        "seconds of a step": of_recipes(sizes, recipes),
        "overhead": overhead(sizes),
    }


def spread(
    cells: dict[str, dict[str, Cell]], recipes: Sequence[Recipe], steps: Sequence[int]
) -> dict[str, Any]:
    """Steps -> mean and standard deviation of each measure over the seeds of the training."""
    names = [recipe.name for recipe in recipes if recipe.name == BASE or recipe.group == SEED]
    table: dict[str, Any] = {}
    for n in map(str, steps):
        table[n] = {"runs": len(names)}
        for measure in ROWS:
            values = torch.tensor([cells[name][n][measure]["mean"] for name in names])
            table[n] |= {measure: float(values.std()), f"{measure} mean": float(values.mean())}
    return table


def write(result: dict[str, Any], folder: Path) -> list[Path]:
    """The files, and what they say on the terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    text = report(result)
    print(text)
    write_atomic(folder / "training.json", (json.dumps(result, indent=1) + "\n").encode())
    write_atomic(folder / "training.md", text.encode())
    picture = draw(result, folder / "training.png")
    return [folder / "training.json", folder / "training.md", picture]


if __name__ == "__main__":
    sys.exit(main())
