"""lambda_t of every schedule, from clean to noisy."""

import numpy as np
from _style import COLOURS, figure, save

from sde_diffusion.schedules import EDM, VE, FlowMatching, SubVP, VPCosine, VPLinear
from sde_diffusion.tabulated import ddpm_linear


def draw(path):
    fig, ax = figure(height=4.4)
    schedules = [VPLinear(), SubVP(), VPCosine(), FlowMatching(), VE(), EDM()]
    for schedule, colour in zip(schedules, COLOURS, strict=False):
        span = schedule.t_max - schedule.t_min
        u = np.linspace(1e-4, 1 - 1e-4, 600)
        values = [float(schedule.half_log_snr(schedule.t_min + span * p)) for p in u]
        ax.plot(u, values, label=type(schedule).__name__, color=colour)
    table = ddpm_linear()
    u = np.arange(25, 1001, 75) / 1000
    ax.plot(
        u,
        [table.half_log_snr(float(t)) for t in u],
        "o",
        ms=4,
        mfc="none",
        color=COLOURS[6],
        label="ddpm_linear, T = 1000",
    )
    ax.axhline(0, lw=0.8, color="#80868e", ls=":")
    ax.set(
        xlabel=r"$t / t_{\max}$   (clean $\rightarrow$ noisy)",
        ylim=(-6.5, 8),
        xlim=(0, 1),
        ylabel=r"$\lambda_t = \log(\alpha_t / \sigma_t)$",
    )
    ax.grid(True)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(fig, path)
