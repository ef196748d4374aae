"""One look for every figure: transparent, with mid-grey ink that reads on light and on dark."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

INK = "#80868e"
COLOURS = ["#3d85c8", "#e07b39", "#3fa36b", "#b56ac0", "#c9a227", "#d1495b", "#20a5a8"]
SETTINGS = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "font.size": 10.5,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "mathtext.fontset": "dejavusans",
    "savefig.transparent": True,
    "svg.hashsalt": "sde_diffusion",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def figure(rows: int = 1, columns: int = 1, width: float = 8.6, height: float = 4.0, **options):
    """A figure and its axes, drawn in this style."""
    matplotlib.rcParams.update(SETTINGS)
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def save(fig, path: Path) -> None:
    """SVG without a date, so that the same code gives the same file."""
    fig.savefig(path, format="svg", metadata={"Date": None})
    plt.close(fig)
