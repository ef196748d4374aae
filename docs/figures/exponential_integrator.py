"""The integrand exp(-lambda) eps(lambda) on an exact trajectory, and two approximations of it.

Data: a mixture of two Gaussians on the line, whose noise prediction has a closed form. The curve
follows the probability-flow ODE in (y, rho) = (x/alpha, sigma/alpha), dy/drho = eps.
"""

from itertools import pairwise

import numpy as np
from _style import COLOURS, INK, figure, save
from scipy.integrate import solve_ivp

WEIGHTS = np.array([0.35, 0.65])
MEANS = np.array([-1.6, 1.0])
STDS = np.array([0.25, 0.35])


def noise_prediction(y, rho):
    """eps = -rho d log p_rho(y)/dy for the mixture blurred by rho."""
    variances = STDS**2 + rho**2
    logs = np.log(WEIGHTS) - (y - MEANS) ** 2 / (2 * variances) - np.log(variances) / 2
    posterior = np.exp(logs - logs.max())
    posterior /= posterior.sum()
    return rho * float(posterior @ ((y - MEANS) / variances))


def draw(path):
    first, last, start = -1.2, 1.6, 1.15
    lambdas = np.linspace(first, last, 500)
    right = lambda u, y: [-np.exp(-u) * noise_prediction(y[0], np.exp(-u))]
    path_ = solve_ivp(right, (first, last), [start], rtol=1e-10, atol=1e-12, dense_output=True)
    eps = np.array([noise_prediction(path_.sol(u)[0], np.exp(-u)) for u in lambdas])
    at = lambda u: np.interp(u, lambdas, eps)
    knots = np.linspace(first, last, 9)

    fig, axes = figure(1, 2, height=3.7, sharey=True)
    titles = (
        r"$\hat\epsilon$ held constant: DPM-Solver-1 = DDIM",
        r"$\hat\epsilon$ linear through two outputs: order 2",
    )
    for order, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        ax.plot(
            lambdas,
            np.exp(-lambdas) * eps,
            color=INK,
            lw=2.4,
            label=r"$e^{-\lambda}\,\hat\epsilon(\lambda)$, exact",
        )
        for i, (a, b) in enumerate(pairwise(knots)):
            u = np.linspace(a, b, 60)
            slope = 0.0
            if order and i:  # the first step has one output only
                slope = (at(a) - at(knots[i - 1])) / (a - knots[i - 1])
            approximation = np.exp(-u) * (at(a) + slope * (u - a))
            colour = COLOURS[order]
            ax.plot(
                u,
                approximation,
                color=colour,
                lw=1.6,
                label="what one step integrates" if i == 0 else None,
            )
            ax.fill_between(u, approximation, np.exp(-u) * at(u), color=colour, alpha=0.28, lw=0)
            ax.plot([a], [np.exp(-a) * at(a)], "o", color=colour, ms=5)
        for knot in knots:
            ax.axvline(knot, color=INK, lw=0.6, ls=":")
        ax.set(title=title, xlabel=r"$\lambda$   (noisy $\rightarrow$ clean)")
        ax.legend(loc="best", fontsize=9.5)
    save(fig, path)
