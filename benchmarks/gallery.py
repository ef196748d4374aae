"""Pictures of what the library is about: samples, the forward process, the schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from sde_diffusion import (
    EDM,
    VE,
    FlowMatching,
    ForwardSDE,
    Schedule,
    SubVP,
    Tabulated,
    VPCosine,
    VPLinear,
    ddpm_linear,
    ddpm_scaled_linear,
    ddpm_squared_cosine,
)
from sde_diffusion.scalar import Scalar

from .entries import Entry
from .figures import STYLE, save

SCHEDULES: dict[str, Schedule] = {
    "VP linear": VPLinear(),
    "VP cosine": VPCosine(),
    "sub-VP": SubVP(),
    "VE": VE(),
    "EDM": EDM(),
    "flow matching": FlowMatching(),
    "DDPM linear": ddpm_linear(),
    "DDPM scaled linear": ddpm_scaled_linear(),
    "DDPM squared cosine": ddpm_squared_cosine(),
}


def sample_grid(
    draw: Callable[[Entry, int], Tensor], entries: Sequence[Entry], nfes: Sequence[int], path: Path
) -> Path:
    """Digits by solver (rows) and number of evaluations (columns), all from one starting noise.

    Args:
        draw: (entry, nfe) -> images (10, 1, h, w).
        entries, nfes: rows and columns.
        path: where to write.
    """
    with plt.rc_context({**STYLE, "axes.grid": False}):
        size = (2.1 * len(nfes) + 1.6, 0.98 * len(entries) + 0.4)
        figure, axes = plt.subplots(
            len(entries), len(nfes), figsize=size, squeeze=False, layout="constrained"
        )
        for row, entry in zip(axes, entries, strict=True):
            for axis, nfe in zip(row, nfes, strict=True):
                _show(axis, _mosaic(draw(entry, nfe), columns=5))
            row[0].set_ylabel(
                entry.label.replace(" ", "\n", 1), rotation=0, ha="right", va="center"
            )
        for axis, nfe in zip(axes[0], nfes, strict=True):
            axis.set_title(f"NFE {nfe}")
        return save(figure, path)


def forward_process(images: Tensor, schedule: Schedule, path: Path, columns: int = 9) -> Path:
    """One path of the forward process for each image (rows) at increasing t (columns)."""
    times = torch.linspace(schedule.t_min, schedule.t_max, columns, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    states = ForwardSDE(schedule).sample_path(images, times, generator=generator)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        size = (columns, len(images) + 0.5)
        figure, axes = plt.subplots(
            len(images), columns, figsize=size, squeeze=False, layout="constrained"
        )
        for j, (t, state) in enumerate(zip(times.tolist(), states, strict=True)):
            alpha_t, sigma_t = schedule(t)
            axes[0, j].set_title(f"t = {t:.3g}\nα {alpha_t:.2f}\nσ {sigma_t:.2f}", fontsize=9)
            for axis, image in zip(axes[:, j], state, strict=True):
                _show(axis, image[0].numpy())
        return save(figure, path)


def coefficients(path: Path, schedules: dict[str, Schedule] | None = None) -> Path:
    """alpha, sigma, beta, alpha-bar, lambda, f and g of every schedule, against its own time."""
    panels: list[tuple[str, str, Callable[[Schedule, float], Scalar]]] = [
        ("α, signal scale", "linear", lambda s, t: s.alpha(t)),
        ("σ, noise scale", "log", lambda s, t: s.sigma(t)),
        ("ᾱ = α², signal power", "log", lambda s, t: s.alpha(t) ** 2),
        ("λ = log(α / σ)", "linear", lambda s, t: s.half_log_snr(t)),
        ("f = d log α / dt", "symlog", lambda s, t: s.f(t)),
        ("β = −2 f, per unit of time", "symlog", lambda s, t: -2 * s.f(t)),
        ("g, diffusion", "log", lambda s, t: max(float(s.g2(t)), 0.0) ** 0.5),
    ]
    table = SCHEDULES if schedules is None else schedules
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 4, figsize=(15, 7), layout="constrained")
        for axis, (title, scale, value) in zip(axes.flat, panels, strict=False):
            for k, (name, schedule) in enumerate(table.items()):
                u = np.linspace(0.002, 0.998, 300)
                span = schedule.t_max - schedule.t_min
                values = [float(value(schedule, schedule.t_min + span * v)) for v in u]
                dash = "--" if isinstance(schedule, Tabulated) else "-"
                axis.plot(u, values, dash, color=colours[k % 10], label=name, linewidth=1.5)
            if scale == "symlog":
                axis.set_yscale("symlog", linthresh=1.0)
            else:
                axis.set_yscale(scale)
            axis.set_title(title)
        for axis in (*axes[1], axes[0, 3]):
            axis.set_xlabel("time, as a share of [t_min, t_max]")
        axes[1, 3].axis("off")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[1, 3].legend(handles, labels, loc="center", fontsize=11)
        return save(figure, path)


def _mosaic(images: Tensor, columns: int) -> np.ndarray:
    """Images side by side with a thin gap, (rows * (h + 1) - 1, columns * (w + 1) - 1)."""
    n, _, h, w = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (h + 1) - 1, columns * (w + 1) - 1), np.nan)
    for k, image in enumerate(images[:, 0].numpy()):
        top, left = (k // columns) * (h + 1), (k % columns) * (w + 1)
        canvas[top : top + h, left : left + w] = image
    return canvas


def _show(axis: Axes, image: np.ndarray) -> None:
    axis.imshow(image, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
