"""The picture: distances and bits against the time of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sde_diffusion.comparison.figure import MARKERS

from ..figures import COLOURS, STYLE, save
from .recipes import BASE, GROUPS, RECIPES

ROWS = {
    "frechet": "Fréchet distance",
    "sliced": "sliced Wasserstein-2",
    "bound": "bound, bits per dimension",
}


def draw(result: dict[str, Any], path: Path) -> Path:
    """One row for each measure, one column for each thing that recipes differ in."""
    others = result["cells"].keys() - {BASE}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(ROWS),
            len(GROUPS),
            figsize=(11.5, 10.5),
            layout="constrained",
            sharex=True,
            squeeze=False,
        )
        for column, group in zip(axes.T, GROUPS, strict=True):
            names = [r.name for r in RECIPES if r.group == group and r.name in others]
            for axis, measure in zip(column, ROWS, strict=True):
                _curve(axis, result, measure, BASE, "black", "o")
                _spread(axis, result, measure)
                for name, colour, marker in zip(names, COLOURS, MARKERS[1:], strict=False):
                    _curve(axis, result, measure, name, colour, marker)
                if measure in result["floor"]:
                    low = result["floor"][measure]["mean"]
                    axis.axhline(
                        low, color="#666666", linestyle=(0, (2, 3)), label="two sets of real digits"
                    )
                _axis(axis, measure)
            column[0].set_title(group)
            column[-1].set_xlabel("processor seconds of training")
            handles, labels = column[0].get_legend_handles_labels()
            column[-1].legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        for row, title in zip(axes, ROWS.values(), strict=True):
            row[0].set_ylabel(title)
        return save(figure, path)


def _curve(
    axis: Axes, result: dict[str, Any], measure: str, name: str, colour: str, marker: str
) -> None:
    cells = list(result["cells"][name].values())
    axis.errorbar(
        _seconds(result, name),
        [cell[measure]["mean"] for cell in cells],
        [cell[measure]["standard error"] for cell in cells],
        label=name,
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.5,
        capsize=2,
    )


def _spread(axis: Axes, result: dict[str, Any], measure: str) -> None:
    """How far runs of the first recipe with other seeds lie apart."""
    seeds, found = result["seeds"], result["cells"][BASE]
    means = [seeds[n][f"{measure} mean"] for n in found]
    spreads = [seeds[n][measure] for n in found]
    axis.fill_between(
        _seconds(result, BASE),
        [m - s for m, s in zip(means, spreads, strict=True)],
        [m + s for m, s in zip(means, spreads, strict=True)],
        color="black",
        alpha=0.15,
        linewidth=0,
        label="± sd over its seeds",
    )


def _seconds(result: dict[str, Any], name: str) -> list[float]:
    """Of the training, so many times those of a step."""
    return [n["steps"] * result["seconds of a step"][name] for n in result["cells"][name].values()]


def _axis(axis: Axes, measure: str) -> None:
    axis.set_xscale("log")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_major_locator(FixedLocator([1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100]))
    axis.xaxis.set_major_formatter(plain)
    axis.xaxis.set_minor_locator(NullLocator())
    if measure != "bound":
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        parts = (1, 1.5, 2, 3, 4, 5, 6, 8) if high < 30 * low else (1,)
        ticks = FixedLocator([k * 10.0**n for n in range(-3, 6) for k in parts])
        axis.yaxis.set_major_locator(ticks)
        axis.yaxis.set_major_formatter(plain)
        axis.yaxis.set_minor_locator(NullLocator())
