"""lambda_t before and after: shifted, and with zero terminal SNR."""

import numpy as np
from _style import COLOURS, figure, save

from sde_diffusion.schedules import FlowMatching, VPLinear
from sde_diffusion.tabulated import Shifted, ZeroTerminalSNR


def draw(path):
    fig, (left, right) = figure(1, 2, height=3.3)
    t = np.linspace(1e-3, 1 - 1e-3, 400)
    curve = lambda schedule: [float(schedule.half_log_snr(float(v))) for v in t]
    left.plot(t, curve(FlowMatching()), label="FlowMatching")
    left.plot(t, curve(Shifted(FlowMatching(), 3.0)), label="shifted, factor 3")
    left.plot(t, curve(Shifted(FlowMatching(), 1 / 3)), label="shifted, factor 1/3")
    right.plot(t, curve(VPLinear()), label="VPLinear", color=COLOURS[3])
    right.plot(t, curve(ZeroTerminalSNR(VPLinear())), label="zero terminal SNR", color=COLOURS[4])
    for ax in (left, right):
        ax.set(xlabel="t", ylabel=r"$\lambda_t$")
        ax.grid(True)
        ax.legend(fontsize=9.5)
    save(fig, path)
