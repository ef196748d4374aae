"""Pictures: samples beside the exact posterior, distance against NFE, errors against particles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..figures import COLOURS, STYLE, plt, save
from .compare import distance
from .tables import Content, best, calls, methods

GREY = "#555555"


def draw(content: Content, shown: Content, folder: Path) -> None:
    """All pictures that the results allow: one of samples and one of curves a dimension."""
    with plt.rc_context(STYLE):
        for picture in (p for p in shown.values() if p is not None):
            name = f"samples-{picture['dimension']}.png"
            save(_points(picture) if picture["dimension"] == 2 else _images(picture), folder / name)
        for dimension in dict.fromkeys(t["dimension"] for t in content["tasks"].values()):
            own = {k: t for k, t in content["tasks"].items() if t["dimension"] == dimension}
            if any(methods(t, who) for t in own.values() for who in WHO):
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
    exact = np.array(rows["exact", "posterior"]["samples"])
    size = (1.45 * (len(names) + 1), 3.4)
    figure, axes = plt.subplots(
        2, len(names) + 1, figsize=size, squeeze=False, sharex=True, sharey=True
    )
    lines = (
        ("exact", ["posterior", *names], COLOURS[0], "ours"),
        ("exact", ["prior", *names], COLOURS[1], "azula"),
    )
    for line, (first, columns, colour, library) in zip(axes, lines, strict=True):
        for j, (axis, name) in enumerate(zip(line, columns, strict=True)):
            row = rows.get((library if j else first, name))
            axis.set_visible(row is not None)
            if row is not None:
                _scatter(axis, picture, exact, row, colour if j else "#000000")
                axis.set_title(f"{name}, {library if j else first}" if j else name, fontsize=8)
    figure.subplots_adjust(wspace=0.06, hspace=0.2, left=0.01, right=0.99, bottom=0.01, top=0.93)
    return figure


def _scatter(axis: Axes, picture: Content, exact: np.ndarray, row: Content, colour: str) -> None:
    a, y = np.array(picture["row"]), picture["y"][0]
    along = np.array([-a[1], a[0]]) / np.linalg.norm(a)
    ends = y * a / (a @ a) + 4 * np.array([[-1.0], [1.0]]) * along
    axis.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    axis.scatter(exact[:, 0], exact[:, 1], s=10, color="#BBBBBB", linewidths=0, zorder=2)
    x = np.array(row["samples"])
    axis.scatter(x[:, 0], x[:, 1], s=3, color=colour, linewidths=0, alpha=0.8, zorder=3)
    axis.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), xticks=[], yticks=[], aspect="equal")
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set(visible=True, color="#CCCCCC")


def _images(picture: Content) -> Figure:
    """Mean, deviation and samples of one measurement; above ours, below azula's."""
    names, rows = _grid(picture)
    names = [name for name in names if ("ours", name) in rows or ("azula", name) in rows]
    few = min(2, len(rows["exact", "posterior"]["samples"]))
    block, width = 2 + few, len(names) + 2
    heights = [1.0] * block
    ratios = {
        "width_ratios": [1.0, 0.35, *[1.0] * (width - 1)],
        "height_ratios": [*heights, 0.45, *heights],
    }
    size = (0.92 * width, 0.92 * (2 * block + 0.45))
    figure, axes = plt.subplots(2 * block + 1, width + 1, figsize=size, gridspec_kw=ratios)
    for axis in axes.flat:
        axis.set_axis_off()
    side, scale = picture["side"], _scale(picture)
    for i, (title, values) in enumerate((("truth", picture["truth"]), ("seen", _seen(picture)))):
        _image(axes[2 * i][0], np.array(values, dtype=float), side, scale, title)
    exact = rows["exact", "posterior"]
    spread = 1.2 * max(exact["deviation"])
    for top, library in ((0, "ours"), (block + 1, "azula")):
        own = [(f"{n}\n{library}", rows.get((library, n))) for n in names]
        for j, (title, row) in enumerate([("exact\nposterior", exact), *own], 2):
            if row is None:
                continue
            column = [axis[j] for axis in axes[top : top + block]]
            _image(column[0], np.array(row["mean"]), side, scale, title)
            _image(column[1], np.array(row["deviation"]), side, (0, spread), "", "magma")
            for axis, sample in zip(column[2:], row["samples"], strict=False):
                _image(axis, np.array(sample), side, scale, "")
        labels = ("mean", "deviation", *["sample"] * few)
        for axis, name in zip(axes[top : top + block, 1], labels, strict=True):
            axis.text(0.9, 0.5, name, rotation=90, fontsize=8, ha="right", va="center")
    figure.subplots_adjust(wspace=0.06, hspace=0.06, left=0.01, right=0.99, bottom=0.01, top=0.93)
    return figure


def _seen(picture: Content) -> list[float]:
    """What was measured, as an image: itself, its known pixels, or the least one that fits it."""
    if picture["kept"]:
        known = zip(picture["seen"], picture["kept"], strict=True)
        return [value if kept else math.nan for value, kept in known]
    whole: list[float] = picture["y"] if len(picture["y"]) == len(picture["seen"]) else []
    return whole or picture["seen"]


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
    axis.set_axis_on()
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
    """Sliced distance over that of exact samples, against NFE: a row a task, a column a method."""
    found = {who: dict.fromkeys(m for t in tasks.values() for m in methods(t, who)) for who in WHO}
    shared = [name for name in found["ours"] if name in found["azula"]]
    alone = [name for name in found["ours"] if name not in shared]
    columns, size = len(shared) + bool(alone), (1.75 * (len(shared) + 1) + 0.8, 1.9 * len(tasks))
    figure, axes = plt.subplots(
        len(tasks), columns, figsize=size, squeeze=False, sharex=True, sharey="row"
    )
    for line, (title, task) in zip(axes, tasks.items(), strict=True):
        for axis, name in zip(line, [*shared, None], strict=False):
            if name is None:
                for other, colour in zip(alone, COLOURS[2:], strict=False):
                    _curve(axis, task, "ours", other, other, colour)
            else:
                _curve(axis, task, "ours", name, "ours", COLOURS[0])
                _curve(axis, task, "azula", name, "azula", COLOURS[1])
                axis.set_visible(bool(axis.lines))
            if axis in axes[0]:
                axis.set_title(name or "ours alone", fontsize=10)
            _plain(axis, task)
        line[0].set_ylabel(title.replace(", ", "\n", 1), fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("network calls", fontsize=8)
    figure.tight_layout(w_pad=0.2, h_pad=0.4)
    handles, labels = axes[0][0].get_legend_handles_labels()
    extra, names = axes[0][-1].get_legend_handles_labels() if alone else ([], [])
    told = dict(zip([*labels, *names], [*handles, *extra], strict=True))
    figure.legend(
        told.values(), told, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=5, fontsize=8
    )
    return figure


WHO = ("ours", "azula")


def _plain(axis: Axes, task: Content) -> None:
    """What is known exactly, and the axes."""
    nfes, floor = calls(task), task["floor"]["sliced"][0]
    _curve(axis, task, "exact", "posterior's denoiser", "the posterior's own denoiser", "black")
    blind = distance(best(task, "exact", "prior", min(nfes)) or {}) / floor
    if math.isfinite(blind):
        axis.axhline(blind, color=GREY, linestyle=":", linewidth=1, label="prior, blind to y")
    axis.set_ylim(0.7, 2 * blind if math.isfinite(blind) else 60.0)
    axis.axhline(1.0, color="black", linewidth=0.8, label="exact samples")
    axis.set(xscale="log", yscale="log")
    axis.minorticks_off()
    axis.set_xticks(nfes, map(str, nfes), fontsize=8)
    ticks = [v for v in (1, 3, 10, 30, 100) if v < axis.get_ylim()[1]]
    axis.set_yticks(ticks, map(str, ticks), fontsize=8)


def _curve(axis: Axes, task: Content, library: str, method: str, label: str, colour: str) -> None:
    rows = [(nfe, best(task, library, method, nfe)) for nfe in calls(task)]
    points = [(nfe, distance(row) / task["floor"]["sliced"][0]) for nfe, row in rows if row]
    if points:
        marker = {"ours": "o-", "azula": "x--", "exact": "-"}[library]
        width = 1.0 if library == "exact" else 1.5
        x, y = zip(*points, strict=True)
        axis.plot(x, y, marker, color=colour, markersize=4, linewidth=width, label=label)


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
    axis.minorticks_off()
    low, high = axis.get_ylim()
    ticks_y = [v for k in range(-5, 4) for v in (10.0**k, 3 * 10.0**k) if low <= v <= high]
    axis.set_yticks(ticks_y, [f"{v:g}" for v in ticks_y])
