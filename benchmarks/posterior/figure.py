"""Pictures: samples beside the exact posterior, distance against NFE, errors against particles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ..figures import COLOURS, STYLE, plt, save
from .measure import distance
from .tables import Content, best, calls, methods

LIBRARIES = {"exact": "-", "ours": "-", "azula": "--"}
GREY = "#555555"


def draw(content: Content, shown: Content, folder: Path) -> None:
    """All pictures that the results allow: one of samples and one of curves a dimension."""
    with plt.rc_context(STYLE):
        for picture in (p for p in shown.values() if p is not None):
            name = f"samples-{picture['dimension']}.png"
            save(_points(picture) if picture["dimension"] == 2 else _images(picture), folder / name)
        for dimension in dict.fromkeys(t["dimension"] for t in content["tasks"].values()):
            own = {k: t for k, t in content["tasks"].items() if t["dimension"] == dimension}
            save(_curves(own), folder / f"distance-{dimension}.png")
        if "particles" in content:
            save(_particles(content["particles"]), folder / "particles.png")


def _grid(picture: Content) -> tuple[list[str], dict[tuple[str, str], Content]]:
    """Names of the columns, and the row of each library and method."""
    rows = {(r["library"], r["method"]): r for r in picture["rows"]}
    names = dict.fromkeys(m for library, m in rows if library != "exact")
    return list(names), rows


def _points(picture: Content) -> Figure:
    """Samples of one measurement in the plane; the line of data that fit it is dotted."""
    names, rows = _grid(picture)
    columns = len(names) + 1
    size = (1.45 * columns, 3.4)
    figure, axes = plt.subplots(2, columns, figsize=size, sharex=True, sharey=True)
    exact = np.array(rows["exact", "posterior"]["samples"])
    first = [("exact", "posterior"), ("exact", "prior")]
    for i, key in enumerate(first):
        _scatter(axes[i][0], picture, exact, rows.get(key), "#000000")
        axes[i][0].set_title("exact posterior" if i == 0 else "prior", fontsize=8)
    for j, name in enumerate(names, 1):
        for i, (library, colour) in enumerate((("ours", COLOURS[0]), ("azula", COLOURS[1]))):
            row = rows.get((library, name))
            _scatter(axes[i][j], picture, exact, row, colour)
            if row is not None:
                axes[i][j].set_title(f"{name}, {library}", fontsize=8)
            else:
                axes[i][j].set_visible(False)
    figure.subplots_adjust(wspace=0.06, hspace=0.2, left=0.01, right=0.99, bottom=0.01, top=0.93)
    return figure


def _scatter(
    axis: Axes, picture: Content, exact: np.ndarray, row: Content | None, colour: str
) -> None:
    a, y = np.array(picture["row"]), picture["y"][0]
    along = np.array([-a[1], a[0]]) / np.linalg.norm(a)
    ends = y * a / (a @ a) + 4 * np.array([[-1.0], [1.0]]) * along
    axis.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    axis.scatter(exact[:, 0], exact[:, 1], s=10, color="#BBBBBB", linewidths=0, zorder=2)
    if row is not None:
        x = np.array(row["samples"])
        axis.scatter(x[:, 0], x[:, 1], s=3, color=colour, linewidths=0, alpha=0.8, zorder=3)
    axis.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), xticks=[], yticks=[], aspect="equal")
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set(visible=True, color="#CCCCCC")


def _images(picture: Content) -> Figure:
    """Mean, deviation and samples of one measurement: a column a method."""
    names, rows = _grid(picture)
    columns: list[tuple[str, Content | None]] = [("exact", rows["exact", "posterior"])]
    for name in names:
        for library in ("ours", "azula"):
            if (library, name) in rows:
                columns.append((f"{name}\n{library}", rows[library, name]))
    height = 2 + len(columns[0][1]["samples"])  # type: ignore[index]
    width = len(columns) + 1
    figure, axes = plt.subplots(height, width, figsize=(0.78 * width, 0.8 * height + 0.35))
    side, scale = picture["side"], _scale(picture)
    seen = np.array(picture["seen"])
    if picture["kept"]:
        seen = np.where(np.array(picture["kept"]) > 0, seen, np.nan)
    for i, (title, values) in enumerate((("truth", np.array(picture["truth"])), ("seen", seen))):
        _image(axes[i][0], values, side, scale, title)
    for axis in axes[2:, 0]:
        axis.set_axis_off()
    spread = max(np.max(r["deviation"]) for _, r in columns[:1] if r is not None)
    for j, (title, row) in enumerate(columns, 1):
        assert row is not None
        _image(axes[0][j], np.array(row["mean"]), side, scale, title)
        _image(axes[1][j], np.array(row["deviation"]), side, (0, 1.2 * spread), "", "magma")
        for i, sample in enumerate(row["samples"], 2):
            _image(axes[i][j], np.array(sample), side, scale, "")
    for i, name in enumerate(("mean", "deviation", *["sample"] * (height - 2))):
        axes[i][1].set_ylabel(name, fontsize=7)
    figure.subplots_adjust(wspace=0.08, hspace=0.08, left=0.01, right=0.99, bottom=0.01, top=0.9)
    return figure


def _scale(picture: Content) -> tuple[float, float]:
    truth = np.array(picture["truth"])
    middle, half = (truth.max() + truth.min()) / 2, 0.55 * (truth.max() - truth.min())
    return float(middle - half), float(middle + half)


def _image(
    axis: Axes,
    values: np.ndarray,
    side: int,
    scale: tuple[float, float],
    title: str,
    colours: str = "gray",
) -> None:
    picture = values.reshape(side, side)
    palette = plt.get_cmap(colours).with_extremes(bad="#B7CCE0")
    axis.imshow(picture, cmap=palette, vmin=scale[0], vmax=scale[1], interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    if title:
        axis.set_title(title, fontsize=7)


def _curves(tasks: dict[str, Content]) -> Figure:
    """Sliced distance over that of exact samples, against NFE: a panel a task."""
    size = (4.4 * len(tasks), 4.4)
    figure, axes = plt.subplots(1, len(tasks), figsize=size, squeeze=False, sharey=True)
    names = dict.fromkeys(
        m for t in tasks.values() for who in ("ours", "azula") for m in methods(t, who)
    )
    colours = dict(zip(names, [*COLOURS, *COLOURS], strict=False))
    handles: dict[str, Any] = {}
    for axis, (title, task) in zip(axes[0], tasks.items(), strict=True):
        nfes, floor = calls(task), task["floor"]["sliced"][0]
        for name, (library, line) in ((n, lib) for lib in LIBRARIES.items() for n in names):
            _curve(axis, task, library, name, {"color": colours[name], "linestyle": line}, handles)
        _curve(axis, task, "exact", "posterior's denoiser", {"color": "black"}, handles)
        blind = best(task, "exact", "prior", nfes[0])
        if blind:
            style: Any = {"color": GREY, "linestyle": ":", "linewidth": 1}
            handles["prior"] = axis.axhline(distance(blind) / floor, **style)
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", title=title, xlabel="network calls")
        axis.set_xticks(nfes, map(str, nfes))
        axis.set_ylim(0.8, 1.6 * distance(blind or {}) / floor if blind else None)
        axis.xaxis.set_minor_formatter(NullFormatter())
        ticks = [v for v in (1, 2, 5, 10, 20, 50) if v < axis.get_ylim()[1]]
        axis.set_yticks(ticks, map(str, ticks))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axes[0][0].set_ylabel("sliced distance / that of exact samples")
    figure.tight_layout()
    figure.legend(
        handles.values(), handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=6, fontsize=8
    )
    return figure


def _curve(
    axis: Axes, task: Content, library: str, method: str, style: Any, handles: dict[str, Any]
) -> None:
    rows = [(nfe, best(task, library, method, nfe)) for nfe in calls(task)]
    points = [(nfe, distance(row)) for nfe, row in rows if row is not None]
    if not points:
        return
    floor = task["floor"]["sliced"][0]
    label = method if library == "exact" else f"{method}, {library}"
    x, y = zip(*points, strict=True)
    (handles[label],) = axis.plot(
        x,
        [v / floor for v in y],
        marker="x" if library == "azula" else "o",
        markersize=5 if library == "azula" else 4,
        **{"linewidth": 1.4, **style},
    )


def _particles(part: Content) -> Figure:
    """Errors against the number of particles, on two logarithmic axes, with slope -1/2."""
    tasks = list(dict.fromkeys(row["task"] for row in part["rows"]))
    kinds = {"log_evidence": "RMS error of log Z", "mean": "RMS error of the mean"}
    size = (4.6 * len(tasks), 3.6 * len(kinds))
    figure, axes = plt.subplots(len(kinds), len(tasks), figsize=size, squeeze=False)
    for column, task in zip(axes.T, tasks, strict=True):
        rows = [row for row in part["rows"] if row["task"] == task]
        for axis, (kind, label) in zip(column, kinds.items(), strict=True):
            for method, colour in zip(
                dict.fromkeys(r["method"] for r in rows), COLOURS, strict=False
            ):
                own = [r for r in rows if r["method"] == method]
                slope = next(
                    s[kind] for s in part["slopes"] if (s["task"], s["method"]) == (task, method)
                )
                x, y = [r["particles"] for r in own], [r[kind] for r in own]
                axis.plot(x, y, "o-", color=colour, label=f"{method}: slope {slope:.2f}")
            _half(axis, rows, kind)
            axis.set(xscale="log", yscale="log", title=task, xlabel="particles", ylabel=label)
            _powers(axis, [r["particles"] for r in rows])
            axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _half(axis: Axes, rows: Sequence[Content], kind: str) -> None:
    x = sorted({row["particles"] for row in rows})
    start = max(row[kind] for row in rows if row["particles"] == x[0])
    y = [1.3 * start * math.sqrt(x[0] / k) for k in x]
    axis.plot(x, y, color=GREY, linewidth=1, linestyle=(0, (2, 2)), label="slope -1/2")


def _powers(axis: Axes, particles: Sequence[int]) -> None:
    ticks = sorted(set(particles))
    axis.set_xticks(ticks, map(str, ticks))
    axis.xaxis.set_minor_formatter(NullFormatter())
