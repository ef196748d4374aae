"""A benchmark in parts: each prints and writes what it measured, and a picture of it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sde_diffusion.extras import optional
from sde_diffusion.files import write_atomic

from .about import where_and_when

Row = dict[str, Any]
Pictures = dict[str, Tensor]
Parts = Mapping[str, Callable[[bool], tuple[Row, Pictures]]]


def run(name: str, description: str | None, parts: Parts, arguments: Sequence[str] | None) -> int:
    """The command of a benchmark: measure, print, write.

    Args:
        name: of its module in `benchmarks`, and of its folder in `benchmarks/output`.
        description: what --help says.
        parts: name -> a function of whether to be quick, to (what it measured, its pictures).
        arguments: of the command; default: those of the process.
    """
    parser = argparse.ArgumentParser(f"python -m benchmarks.{name}", description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(parts)}; all")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the steps, or fewer")
    parser.add_argument("--output", metavar="DIR", help=f"default: benchmarks/output/{name}")
    options = parser.parse_args(arguments)
    wrong = [part for part in options.parts if part not in parts]
    if wrong:
        parser.error(f"unknown part {wrong[0]!r}: give {' or '.join(parts)}")
    folder = Path(options.output or Path(__file__).parent / "output" / name)
    folder.mkdir(parents=True, exist_ok=True)
    for part in options.parts or parts:
        quick = " --quick" if options.quick else ""
        about = where_and_when(f"benchmarks.{name}")
        about["command"] = f"python -m benchmarks.{name} {part}{quick}"  # where to is no matter
        began = time.perf_counter()
        result, pictures = parts[part](options.quick)
        about["seconds in all"] = f"{time.perf_counter() - began:.0f}"
        text = json.dumps({"about": about, **result}, indent=1)
        print(text)
        write_atomic(folder / f"{part}.json", text.encode())
        draw_pictures(pictures, folder / f"{part}.png")
        print(f"Files: {folder / part}.json, .png")
    return 0


def draw_pictures(rows: Pictures, path: Path) -> None:
    """Ten images of each kind, in rows."""
    figure_module = optional("matplotlib.figure", "pictures")
    columns = max(len(images) for images in rows.values())
    figure = figure_module.Figure(figsize=(columns, 1.25 * len(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (name, images) in zip(parts, rows.items(), strict=True):
        part.suptitle(name, fontsize=9)
        shown = ((images + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
        for axes, image in zip(part.subplots(1, columns), shown, strict=True):
            axes.imshow(image.expand(-1, -1, 3))
            axes.axis("off")
    figure.savefig(path, dpi=100)
