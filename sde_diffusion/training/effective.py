r"""What training really minimises: the weight times the density of the noise levels it draws.

Whatever is predicted, in whatever unit the error is weighed, and however the times are drawn,

    L = int w(lambda) E |eps - eps_hat|^2/D d lambda,      w = weight of noise errors * p(lambda),

one function of the half-log-SNR. Two objectives with the same w (up to a constant, which Adam does
not see) train the same network, and differ in the variance of their gradients alone. Kingma & Gao,
"Understanding diffusion objectives as the ELBO with simple data augmentation", 2023,
arXiv:2303.00848. Flat w is the bound on the likelihood; a w that falls with lambda is the bound on
that of data with noise added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..extras import optional
from .diffusion import DiffusionObjective
from .objective import Objective
from .uncertainty import LearnedUncertainty
from .units import error, scales

# Okabe & Ito (2008): told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#666666")
FARTHEST = 300.0  # e^(2 lambda) is a float as far as here
STYLES = ("-", "--", "-.", ":")


@torch.no_grad()
def effective_weight(objective: Objective, lambdas: Tensor) -> Tensor:
    """w(lambda), the weight of the squared error in the noise per unit of half-log-SNR.

    Not normalised: the integral of w(lambda) E|eps - eps_hat|^2/D is the mean of the loss (where an
    uncertainty is learned, of its first term). 0 where the law of times never draws. On a schedule
    that reaches alpha = 0 it may grow without bound as lambda falls; -inf is read as -300.

    Args:
        objective: a `DiffusionObjective`, or one with a `LearnedUncertainty`.
        lambdas: half-log-SNRs, any shape.

    Raises:
        TypeError: another kind of objective.
    """
    if isinstance(objective, LearnedUncertainty):
        places = lambdas.double().flatten()
        u = objective.log_variance(places.to(next(objective.log_variance.parameters()).device))
        inner = effective_weight(objective.objective, lambdas)
        return inner * torch.exp(-u.double().cpu()).reshape(lambdas.shape)
    if not isinstance(objective, DiffusionObjective):
        raise TypeError(f"{type(objective).__name__} is no denoising objective: it has no weight")
    schedule = objective.denoiser.schedule
    noisy, clean = (float(schedule.half_log_snr(t)) for t in (schedule.t_max, schedule.t_clean))
    lambdas = lambdas.double().cpu()
    inside = (lambdas >= noisy) & (lambdas <= clean)
    lambda_ = lambdas[inside].clamp(-FARTHEST, FARTHEST)
    t = torch.as_tensor(schedule.time_of(lambda_))
    weight = torch.zeros(lambdas.shape, dtype=torch.float64)
    weight[inside] = objective.weighting(lambda_) * _density_in_unit(objective, t, lambda_)
    return weight


def _density_in_unit(objective: DiffusionObjective, t: Tensor, lambda_: Tensor) -> Tensor:
    """(r_unit/r_noise)^2 p(lambda), with alpha = sigma e^lambda where t cannot tell it from 0."""
    denoiser, unit = objective.denoiser, objective.weighting.unit
    if unit == "nats":  # stated for lambda: the density is divided out
        return torch.ones_like(lambda_)
    density = objective.times.density_in_lambda(t, lambda_)
    unit = denoiser.prediction if unit == "own" else unit
    sigma = scales(denoiser.schedule, t)[1]
    if unit in ("noise", "score"):  # of these the error vanishes with alpha too
        return density if unit == "noise" else density / sigma**2
    own = error(unit, denoiser.schedule, t, denoiser.sigma_data)
    return density * (own / (sigma * torch.exp(lambda_))) ** 2


def plot_effective_weights(
    objectives: Mapping[str, Objective], lambdas: Tensor | None = None, log: bool = False
) -> Any:
    """A figure of effective weights, each with 1 as its largest value.

    Args:
        objectives: by the name that the legend gives them.
        lambdas: half-log-SNRs, increasing; default: 400 from -6 to 7.
        log: draw the weights on a logarithmic axis.

    Returns:
        a `matplotlib.figure.Figure`, for `savefig` or to show.

    Raises:
        ValueError: nothing to draw.
        ImportError: without matplotlib.
    """
    figures = optional("matplotlib.figure", "pictures")
    if not objectives:
        raise ValueError("no objectives: give at least one, by name")
    lambdas = torch.linspace(-6, 7, 400, dtype=torch.float64) if lambdas is None else lambdas
    figure = figures.Figure(figsize=(8.6, 4.2), layout="constrained", dpi=150)
    axis = figure.subplots()
    for i, (name, objective) in enumerate(objectives.items()):
        weight = effective_weight(objective, lambdas)
        shown = torch.where(weight > 0, weight / weight.max(), torch.nan)
        style = STYLES[i // len(COLOURS) % len(STYLES)]
        axis.plot(lambdas, shown, style, label=name, color=COLOURS[i % len(COLOURS)], linewidth=1.8)
    axis.set(xlabel="half-log-SNR (noisy to clean)", ylabel="w p, largest value 1")
    if log:
        axis.set(yscale="log", ylim=(1e-3, 1.5))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure
