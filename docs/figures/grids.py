"""Ten steps of four grids, seen on the lambda axis, and lambda of uniform t on the same."""

import numpy as np
from _style import COLOURS, INK, figure, save

from sde_diffusion import times
from sde_diffusion.schedules import VPLinear


def draw(path):
    schedule = VPLinear()
    fig, ax = figure(height=2.6)
    names = ["uniform", "quadratic", "karras", "uniform_lambda"]
    labels = ["uniform in t", "quadratic in t", r"Karras, $\rho = 7$", r"uniform in $\lambda$"]
    for row, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        grid = getattr(times, name)(schedule, 10, t_end=schedule.t_clean)
        lambdas = [float(schedule.half_log_snr(float(t))) for t in grid]
        y = len(names) - 1 - row
        ax.plot([lambdas[0], lambdas[-1]], [y, y], color=INK, lw=0.8)
        ax.plot(lambdas, np.full(len(lambdas), y), "|", ms=17, mew=2.0, color=colour)
    ax.set(
        yticks=range(len(names)),
        yticklabels=labels[::-1],
        ylim=(-0.6, len(names) - 0.4),
        xlabel=r"$\lambda_t$   (noisy $\rightarrow$ clean)",
    )
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    save(fig, path)
