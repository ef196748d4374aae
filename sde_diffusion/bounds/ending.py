r"""Where to end a bound: the cleanest noise level that the model is worth.

The bound may go over to L_0 at any level lambda_0,

    L(lambda_0) = L_T + int_{lambda_T}^{lambda_0} E|eps - eps_hat|^2 dlambda + L_0(lambda_0),

and it is least where the integral grows as fast as L_0 falls. An exact denoiser of data in bins
has nothing left to tell where the noise is far below their width; a network that was never told
of the bins has, as long as it mistakes their edges: there each further unit of lambda costs up to
D nats. So the end is a choice of the model, made on training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..counts import check_count
from ..denoise import Denoiser
from ..noise import seeds_of
from ..noised import Noised, averages, checked_data
from ..reverse import Bins
from ..states import along
from ..variances import Moments, measure_moments
from .continuous import levels_between
from .ends import check_bins, prior_kl, reconstruction


@dataclass(frozen=True)
class End:
    """A clean end, with the variance of N(d, v I) for the data there.

    Attributes:
        t: the time.
        variance: v, the measured E|x_0 - d|^2/D.
        nats: the bound as far as it was measured in choosing; of the chosen data, so no figure to
            report.
        moments: what was measured on the way, at all levels.
    """

    t: float
    variance: float
    nats: float
    moments: Moments = field(repr=False)


def best_end(
    denoiser: Denoiser,
    data: Tensor,
    *,
    bins: Bins | None = None,
    levels: int = 48,
    seed: int | Sequence[int] = 0,
    batch: int = 256,
    context: Tensor | None = None,
    progress: bool = False,
) -> End:
    """The clean end, of some levels, at which the continuous bound is least.

    t_end = end.t and decoder = end.variance are for `continuous_bound`; for a discrete one end the
    grid at end.t.

    Args:
        denoiser: E[x_0 | x_t].
        data: training data, not those on which the bound is reported, shape (n, *event).
        bins: of the data; None: a density.
        levels: how many levels are tried, evenly over the range of the schedule in the variable of
            `continuous_bound`, between which the integral is taken by the trapezoid rule.
        seed: of the noise: one integer, or one a sample.
        batch: the most samples in one network call.
        context: conditions of the samples, (n, ...).
        progress: tell how far it is.

    Raises:
        TypeError, ValueError: what does not fit; data outside their bins.
    """
    x_0 = checked_data(denoiser, data, context, 1, batch)
    check_count("levels", levels, 2)
    check_bins(bins, x_0)
    schedule = denoiser.schedule
    w, snr, times = levels_between(schedule, levels)
    seeds = seeds_of(seed, len(x_0))
    how: dict[str, Any] = {"batch": batch, "context": context, "progress": progress}
    moments = measure_moments(denoiser, x_0, times, seed=seeds, **how)
    error = np.array(moments.error)

    def measure(asked: Noised) -> Tensor:
        d = asked.denoiser(asked.x, asked.t)
        log_v = along(torch.from_numpy(np.log(error))[asked.k], asked.x)
        return reconstruction(bins, asked.x_0, d, log_v)[:, None]

    found = averages(denoiser, x_0, times, measure, draws=1, seeds=seeds, **how)
    ends = [values[..., 0].mean(1) for _, values in found]
    integrand = (1 + snr) * error * x_0[0].numel()
    steps = np.diff(w) * (integrand[1:] + integrand[:-1]) / 2
    prior = float(prior_kl(schedule, float(times[0]), x_0).mean())
    total = prior + np.append(0.0, np.cumsum(steps)) + torch.cat(ends).numpy()
    best = 1 + int(total[1:].argmin())  # below t_max: a bound has at least one step
    return End(float(times[best]), float(error[best]), float(total[best]), moments)
