"""Pictures of the results: colour is the solver, line style its variant."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

from sde_diffusion.comparison.figure import MARKERS
from sde_diffusion.comparison.figure import STYLE as PLAIN

from .cases import TITLES
from .claim import CLAIMED, Comparison
from .entries import Entry
from .metrics import METRICS
from .results import Results, mean_and_spread

# Okabe & Ito (2008): told apart by colour-blind readers too.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"),
    *("#56B4E9", "#8C6D31", "#666666", "#7B3FA0", "#B0A000"),
)
DASHES = ("-", "--", ":", "-.")
STYLE: Any = {**PLAIN, "figure.dpi": 110, "savefig.dpi": 130}


def save(figure: Figure, path: Path) -> Path:
    """Write a picture, with its legend inside the frame."""
    figure.savefig(path, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return path


def styles(results: Results) -> dict[Entry, dict[str, Any]]:
    """Colour and marker by solver, line style by variant; adaptive solvers black, markers only."""
    colours: dict[str, int] = {}
    variants: dict[str, int] = {}
    table: dict[Entry, dict[str, Any]] = {}
    for entry in results.work.entries:
        if results.original(entry) != entry:
            continue
        rank = colours.setdefault(entry.solver, len(colours))
        variant = variants[entry.solver] = variants.get(entry.solver, -1) + 1
        table[entry] = {
            "color": "black" if entry.adaptive else COLOURS[rank % len(COLOURS)],
            "linestyle": (0, (1, 3)) if entry.adaptive else DASHES[variant % len(DASHES)],
            "marker": MARKERS[rank % len(MARKERS)],
            "markersize": 4,
            "linewidth": 1.0 if entry.adaptive else 1.6,
        }
    return table


def all_figures(
    results: Results, comparisons: dict[str, list[Comparison]], folder: Path
) -> dict[str, Path]:
    """Title -> picture, of all that the results allow."""
    found: dict[str, Path] = {}
    with plt.rc_context(STYLE):
        for case in TITLES:
            if any(job.kind == "precision" and job.case == case for job in results.cells):
                title = f"Work and precision: {TITLES[case]}"
                found[title] = save(_precision(results, case), folder / f"precision-{case}.png")
        if any(job.kind == "quality" for job in results.cells):
            found["Quality of samples of the network"] = save(
                _quality(results), folder / "quality.png"
            )
        if any(comparisons.values()):
            found["DDIM against DDPM"] = save(_claim(results), folder / "ddim-ddpm.png")
    return found


def _precision(results: Results, case: str) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    style = styles(results)
    for axis, error in zip(axes, ("rms", "median"), strict=True):
        for entry in results.work.entries:
            cells = [cell for _, cell in results.of("precision", case, entry)]
            if cells and results.original(entry) == entry:
                nfe, values = [c["nfe"] for c in cells], [c[error] for c in cells]
                axis.plot(nfe, values, label=entry.label, **style[entry])
        axis.set(xscale="log", yscale="log", xlabel="network evaluations")
        axis.set_title("RMS over starting points" if error == "rms" else "median")
        _plain_ticks(axis, results)
    for axis in axes:
        axis.autoscale(axis="y")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, min(high, 3.0))
    axes[0].set_ylabel("|x - x*| / |x*| at t_clean")
    _legend(figure, axes[0])
    return figure


def _quality(results: Results) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.8), layout="constrained")
    style = styles(results)
    for axis, (metric, title) in zip(axes, METRICS.items(), strict=True):
        _floor(axis, results.floor[metric])
        shown: list[float] = []
        for entry in results.work.entries:
            if results.original(entry) != entry:
                continue
            points: dict[float, list[tuple[float, float]]] = {}
            for job, cell in results.of("quality", "network", entry):
                key = job.tolerance or float(job.nfe)
                points.setdefault(key, []).append((cell["nfe"], cell[metric]))
            if points:
                # Means over repeats, of both the evaluations (adaptive solvers) and the distance.
                nfe, means = np.array([np.mean(v, axis=0) for v in points.values()]).T
                axis.plot(nfe, means, label=entry.label, **style[entry])
                shown += means.tolist()
        _quality_axis(axis, results, title, shown)
    axes[0].set_ylabel("distance to held-out digits, lower is better")
    _legend(figure, axes[0])
    return figure


def _claim(results: Results) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    for axis, (metric, title) in zip(axes, METRICS.items(), strict=True):
        _floor(axis, results.floor[metric])
        shown: list[float] = []
        for entry, colour in zip(results.work.compared, COLOURS, strict=False):
            found = {n: mean_and_spread(v) for n, v in results.repeats(entry, metric).items()}
            means, spreads = [m for m, _ in found.values()], [s for _, s in found.values()]
            axis.errorbar(
                list(found), means, spreads, label=entry.label, color=colour, marker="o",
                markersize=4, capsize=3, linewidth=1.6,
            )  # fmt: skip
            shown += means
        if any(job.nfe >= CLAIMED for job in results.cells):
            axis.axvline(CLAIMED, color="#777777", linewidth=1, linestyle=":", label="claimed")
        _quality_axis(axis, results, title, shown)
    axes[0].set_ylabel("distance to held-out digits, lower is better")
    _legend(figure, axes[0])
    return figure


def _quality_axis(axis: Axes, results: Results, title: str, shown: list[float]) -> None:
    """Logarithmic; linear near zero for a distance that may be negative."""
    finite = sorted(v for v in shown if math.isfinite(v))
    if title == METRICS["energy"]:
        axis.set_yscale("symlog", linthresh=0.02)
    else:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    # A solver far from its region of stability would squeeze all others.
    axis.set_ylim(top=1.4 * finite[int(0.93 * (len(finite) - 1))])
    axis.set(xscale="log", xlabel="network evaluations", title=title)
    _plain_ticks(axis, results)


def _floor(axis: Axes, values: list[float]) -> None:
    mean, spread = mean_and_spread(values)
    label = "two real sets, ± 2 sd"
    axis.axhspan(mean - 2 * spread, mean + 2 * spread, color="#000000", alpha=0.12, label=label)


def _plain_ticks(axis: Axes, results: Results) -> None:
    ticks = sorted({job.nfe for job in results.work.jobs if job.nfe})
    axis.set_xticks(ticks, minor=False)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    low = min([ticks[0], *(cell["nfe"] for cell in results.cells.values() if cell["nfe"])])
    high = max([ticks[-1], *(cell["nfe"] for cell in results.cells.values())])
    axis.set_xlim(low * 0.85, high * 1.2)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
