"""The picture: rounds against the difference from the sequential run, a panel a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, ScalarFormatter

from sde_diffusion.store import Cell

from ..figures import COLOURS, MARKERS, STYLE, save
from .measure import PEER, SEQUENTIAL, cells_of

LEAST = 1e-7  # float32


def draw(content: dict[str, Any], path: Path) -> Path:
    """Every method's points at its tolerances; the sequential run's rounds as a line.

    Args:
        content: what `parallel.json` holds.
        path: of the picture.
    """
    cells = cells_of(content)
    cases = list(dict.fromkeys(cell["case"] for cell in cells))
    names = [name for name in dict.fromkeys(c["method"] for c in cells) if name != SEQUENTIAL]
    looks: dict[str, Any] = {
        name: {"color": COLOURS[i], "marker": MARKERS[i], "markersize": 5, "linewidth": 1.6}
        for i, name in enumerate(names)
    }
    looks[PEER] = {"color": "#666666", "marker": "x", "linestyle": "--", "linewidth": 1.2}
    with plt.rc_context(STYLE):
        columns = min(3, len(cases))
        rows = -(-len(cases) // columns)
        figure, grid = plt.subplots(
            rows, columns, figsize=(4.2 * columns, 3.6 * rows), squeeze=False, layout="constrained"
        )
        for axis, name in zip(grid.flat, cases, strict=False):
            _panel(axis, name, [cell for cell in cells if cell["case"] == name], looks)
        for axis in grid.flat[len(cases) :]:
            axis.axis("off")
        for axis in grid[:, 0]:
            axis.set_ylabel("RMS of |x - x*| / |x*|")
        labels: dict[str, Any] = {}
        for axis in grid.flat:
            handles, texts = axis.get_legend_handles_labels()
            labels |= dict(zip(texts, handles, strict=True))
        figure.legend(labels.values(), labels, loc="outside lower center", ncols=len(labels))
        return save(figure, path)


def _panel(axis: Axes, name: str, cells: list[Cell], looks: dict[str, Any]) -> None:
    nfe = next(cell["rounds"] for cell in cells if cell["method"] == SEQUENTIAL)
    shown = [cell for cell in cells if cell["method"] != SEQUENTIAL]
    for method in dict.fromkeys(cell["method"] for cell in shown):
        own = [cell for cell in shown if cell["method"] == method]
        rounds, errors = [c["rounds"] for c in own], [max(c["rms"], LEAST) for c in own]
        axis.plot(rounds, errors, label=method, **looks[method])
    axis.axvline(nfe, color="black", linewidth=1, linestyle=(0, (1, 2)), label=SEQUENTIAL)
    axis.set(xscale="log", yscale="log", title=name, xlabel="rounds")
    low = min(cell["rounds"] for cell in shown)
    axis.set_xticks([n for n in (5, 10, 20, 50, 100, 200, 500, 1000) if low * 0.7 <= n <= nfe])
    axis.set_xlim(low * 0.8, nfe * 1.15)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
