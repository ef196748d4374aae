"""The coefficients of one schedule against t, in three panels."""

import numpy as np
from _style import COLOURS, INK, figure, save


def draw_schedule(schedule, path, last=1.0, first=1e-3, log=False):
    """`first`, `last`: the fractions of the range of time between which curves are drawn."""
    span = schedule.t_max - schedule.t_min
    t = schedule.t_min + span * np.linspace(first, last, 500)
    column = lambda function: np.array([float(function(float(v))) for v in t])
    alpha, sigma, f, g2 = map(column, (schedule.alpha, schedule.sigma, schedule.f, schedule.g2))
    fig, (scales, snr, coefficients) = figure(1, 3, width=9.2, height=2.9)
    scales.plot(t, alpha, label=r"$\alpha_t$")
    scales.plot(t, sigma, label=r"$\sigma_t$")
    scales.plot(t, alpha**2, label=r"$\bar\alpha_t = \alpha_t^2$", ls="--")
    if log:
        scales.set_yscale("log")
    snr.plot(t, column(schedule.half_log_snr), color=COLOURS[3], label=r"$\lambda_t$")
    snr.axhline(0, lw=0.8, ls=":", color=INK)
    coefficients.plot(t, f, color=COLOURS[4], label=r"$f$")
    coefficients.plot(t, np.sqrt(g2), color=COLOURS[5], label=r"$g$")
    coefficients.plot(t, -2 * f, color=COLOURS[6], ls="--", label=r"$\beta = -2f$")
    for ax in (scales, snr, coefficients):
        ax.set_xlabel("t")
        ax.grid(True)
        ax.legend(fontsize=9.5)
    save(fig, path)
