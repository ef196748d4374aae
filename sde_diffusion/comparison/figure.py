"""The picture of a comparison: error against network calls, on two logarithmic axes."""

from __future__ import annotations

import io
from typing import Any

from ..extras import optional
from .report import Line, ranking
from .results import Results

# Okabe & Ito (2008): told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#666666")
MARKERS = "osD^vPX*"
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "sde_diffusion",
}


def work_precision(results: Results, kind: str = "png") -> bytes:
    """The picture: the best lines in colour, the others grey.

    Args:
        kind: "png" or "svg".

    Raises:
        ImportError: without matplotlib.
    """
    matplotlib = optional("matplotlib", "pictures")
    figures = optional("matplotlib.figure", "pictures")
    lines = ranking(results)
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(figsize=(11, 5.2), layout="constrained", dpi=150)
        axes = figure.subplots(1, 2, sharey=True)
        for axis, error in zip(axes, ("median", "rms"), strict=True):
            for rank, line in reversed(list(enumerate(lines))):
                _draw(axis, line, error, rank)
            floor = getattr(results.reference, error)
            axis.axhline(floor, color="#999999", linewidth=1, linestyle=(0, (1, 3)))
            axis.set(xscale="log", yscale="log", xlabel="network calls")
            axis.set_title("median over the samples" if error == "median" else "RMS")
            axis.set_xticks(results.nfe, map(str, results.nfe))
            axis.minorticks_off()
        _limit(axes[0], lines, results)
        axes[0].set_ylabel("|x - x*| / |x*|")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
        content = io.BytesIO()
        date = {"Date": None} if kind == "svg" else {}  # the same code, the same file
        figure.savefig(content, format=kind, facecolor="white", metadata=date)
    return content.getvalue()


def _draw(axis: Any, line: Line, error: str, rank: int) -> None:
    found = [cell for cell in line.cells.values() if not cell.error]
    nfe, values = [c.nfe for c in found], [getattr(c, error) for c in found]
    if rank < len(COLOURS):
        look = {"color": COLOURS[rank], "marker": MARKERS[rank], "zorder": 3, "linewidth": 1.7}
        axis.plot(nfe, values, label=line.label, markersize=4.5, **look)
    else:
        alone = "." if len(nfe) == 1 else None  # a finished plan: a point, no line
        axis.plot(nfe, values, color="#bbbbbb", linewidth=0.8, zorder=1, marker=alone)


def _limit(axis: Any, lines: list[Line], results: Results) -> None:
    """Errors far above 1 would squeeze all others; the floor is shown only where it is near."""
    shown = [
        min(value, 2.0)
        for line in lines
        for cell in line.cells.values()
        if not cell.error
        for value in (cell.rms, cell.median)
        if value > 0
    ]
    if shown:
        axis.set_ylim(min(shown) / 2, max(shown) * 1.4)
