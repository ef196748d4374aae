"""The picture of tuned plans: error against network calls, beside all that is not tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from ..figures import COLOURS, STYLE, save
from ..quality.models import TITLES

PEERS = ("k-diffusion", "azula", "diffusers")
METRICS = {"median": "median error", "rms": "RMS error"}
LINES = {
    "peers": ("best of k-diffusion, azula, diffusers, in hindsight", "s", "#666666"),
    "ours": ("best untuned of this library, in hindsight", "^", COLOURS[2]),
    "default": ("the default", "o", COLOURS[0]),
    "tuned": ("tuned table", "D", COLOURS[1]),
}


def draw(quality: dict[str, Any], tuned: dict[str, dict[int, dict[str, Any]]], path: Path) -> Path:
    """Medians above, RMS below, one column for each model and range of noise.

    Args:
        quality: the cells of quality.json.
        tuned: "model range" -> NFE -> a cell of the benchmark.
        path: where to write.
    """
    with plt.rc_context({**STYLE, "axes.titlesize": 10}):
        figure, axes = plt.subplots(
            len(METRICS),
            len(tuned),
            figsize=(3.1 * len(tuned), 6.2),
            layout="constrained",
            sharex=True,
            sharey="row",
            squeeze=False,
        )
        for row, (metric, title) in zip(axes, METRICS.items(), strict=True):
            row[0].set_ylabel(f"{title}, |x - x*|/|x*|")
            for axis, (name, cells) in zip(row, tuned.items(), strict=True):
                _curves(axis, curves(quality[name], cells, metric))
        for axis, name in zip(axes[0], tuned, strict=True):
            model, range_ = name.rsplit(" ", 1)
            axis.set_title(f"{TITLES[model]}, {range_.upper()}")
        for axis in axes[-1]:
            axis.set_xlabel("network calls")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        return save(figure, path)


def curves(
    cell: dict[str, Any], tuned: dict[int, dict[str, Any]], metric: str
) -> dict[str, dict[int, float]]:
    """Line -> NFE -> error, at the numbers of calls that were tuned."""
    found = {
        "peers": lambda n: min(cell[peer][str(n)][metric][metric] for peer in PEERS),
        "ours": lambda n: cell["sde_diffusion"][str(n)][metric][metric],
        "default": lambda n: cell["default"][str(n)][metric],
        "tuned": lambda n: tuned[n]["test"][metric],
    }
    return {line: {n: float(error(n)) for n in sorted(tuned)} for line, error in found.items()}


def _curves(axis: Axes, lines: dict[str, dict[int, float]]) -> None:
    for line, points in lines.items():
        label, marker, colour = LINES[line]
        axis.plot(list(points), list(points.values()), marker=marker, color=colour, label=label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = sorted({n for points in lines.values() for n in points})
    axis.xaxis.set_major_locator(plt.FixedLocator(ticks))
    axis.set_xticklabels([str(n) for n in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
