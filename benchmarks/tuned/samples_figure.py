"""The picture of `samples`: digits from the same starts, and quality against network calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from sde_diffusion import Plan, run

from ..figures import COLOURS, STYLE, save
from ..gallery import _mosaic, _show
from .rulers import DISTANCES, TARGETS
from .statistics import mean_and_error

_COLUMNS, _ROWS = 6, 4
TITLES = {
    "held-out": "held-out digits",
    "train": "digits of the training",
    "law": "law of the network's own ODE",
    "frechet": "Fréchet distance",
    "sliced": "sliced Wasserstein-2",
}
LINES = {
    "training-free": ("best training-free, in hindsight", "s", "#666666"),
    "paths": ("tuned to paths", "o", COLOURS[0]),
    "digits": ("tuned to digits", "D", COLOURS[1]),
}


def draw(found: dict[str, Any], images: dict[str, Tensor], path: Path) -> Path:
    """Samples above, distances below.

    Args:
        found: what `samples.measure` gives.
        images: title -> digits from the same starts, (n, 1, 8, 8).
        path: where to write.
    """
    with plt.rc_context({**STYLE, "axes.titlesize": 10}):
        figure = plt.figure(figsize=(12.5, 8.4), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(1, 2.3))
        upper, lower = parts
        for axis, (title, x) in zip(
            upper.subplots(1, len(images), gridspec_kw={"wspace": 0.12}),
            images.items(),
            strict=True,
        ):
            axis.grid(visible=False)
            _show(axis, _mosaic(x[: _COLUMNS * _ROWS], _COLUMNS))
            axis.set_title(title)
        axes = lower.subplots(len(DISTANCES), len(TARGETS), sharex=True)
        for row, distance in zip(axes, DISTANCES, strict=True):
            for axis, target in zip(row, TARGETS, strict=True):
                _curves(axis, found, f"{target} {distance}")
            row[0].set_ylabel(TITLES[distance])
        for axis, target in zip(axes[0], TARGETS, strict=True):
            axis.set_title(f"to the {TITLES[target]}")
        for axis in axes[-1]:
            axis.set_xlabel("network calls")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        lower.legend(handles, labels, loc="outside lower center", ncols=len(handles))
        return save(figure, path)


def _curves(axis: Axes, found: dict[str, Any], ruler: str) -> None:
    marked: set[int] = set()
    for name, (label, marker, colour) in LINES.items():
        nfes = [int(n) for n in found[name]]
        lists = [
            cell[ruler]["values"] if name == "training-free" else cell["figures"][ruler]
            for cell in found[name].values()
        ]
        means, errors = zip(*map(mean_and_error, lists), strict=True)
        axis.errorbar(
            nfes, means, errors, label=label, marker=marker, color=colour, markersize=5, capsize=3
        )
        marked |= set(nfes)
    mean, error = mean_and_error(found["exact"][ruler])
    axis.axhline(mean, color="black", linewidth=1, linestyle=(0, (2, 3)), label="ends of the ODE")
    axis.axhspan(mean - error, mean + error, color="black", alpha=0.08, linewidth=0)
    axis.set_xticks(sorted(marked), map(str, sorted(marked)))


def same_starts(plans: dict[str, Plan | None], study: Any, seed: int) -> dict[str, Tensor]:
    """Title -> images of each plan from the same starts; None: the exact ends."""
    pairs = study.pairs(seed, _COLUMNS * _ROWS)
    return {
        title: pairs.ends
        if plan is None
        else run(plan, study.denoiser, pairs.starts, noise=seed if plan.stochastic else None)
        for title, plan in plans.items()
    }
