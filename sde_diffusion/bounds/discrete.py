r"""The variational bound of a chain of reverse steps.

The model starts from p(x_T) = N(0, sigma_T^2 I), steps by p(x_s | x_t) = N(c_x x_t + c_d d, v I),
and ends in a law of x_0. Against the forward process, a Markov chain too,

    -log p(x_0) <= L_T + sum_t L_t + L_0,
    L_T = KL(q(x_T | x_0) || p(x_T)) = alpha_T^2 |x_0|^2 / (2 sigma_T^2),
    L_t = E KL(q(x_s | x_t, x_0) || p(x_s | x_t)),
    L_0 = E[-log p(x_0 | x_t)]  at the cleanest t,

with each expectation over one draw x_t = alpha_t x_0 + sigma_t eps (Sohl-Dickstein et al. 2015,
arXiv:1503.03585; Ho et al., "Denoising diffusion probabilistic models", 2020, arXiv:2006.11239,
eq. 5). With the posterior's variance, L_t = (SNR_s - SNR_t)/2 E|x_0 - d|^2: an upper Riemann sum
of the continuous bound (`continuous`), from which it differs by a part in the number of steps.
With the best variances (`variances`) and exact d, on isotropic Gaussian data, every chain, however
short, has -log p(x_0) = the bound, up to the noisy end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..names import unknown
from ..noise import seeds_of
from ..noised import Noised, averages, checked_data
from ..reverse import Bins, Step, interpolated, kl, logarithms, reverse_steps
from ..schedule import Schedule
from ..times import check_grid
from ..variances import Moments, analytic_variance
from .bound import Bound, term_of
from .ends import (
    check_bins,
    check_bound,
    check_decoder,
    direct_reconstruction,
    prior_kl,
    reconstruction,
    rows_of,
    total,
)

VARIANCES = ("posterior", "beta", "learned")


def step_variances(
    schedule: Schedule,
    steps: Sequence[Step],
    variance: str | Moments,
    kind: str = "error",
    data_range: tuple[float, float] | None = None,
) -> list[float]:
    """log v of every step, for a variance that is known beforehand; see `discrete_bound`."""
    lower, upper = logarithms(list(steps))
    if isinstance(variance, Moments):
        best = [analytic_variance(schedule, step, variance, kind, data_range) for step in steps]
        return [math.log(v) for v in best]
    return lower if variance == "posterior" else upper


def discrete_bound(
    denoiser: Denoiser,
    data: Tensor,
    times: Sequence[float] | Tensor,
    *,
    variance: str | Moments = "posterior",
    kind: str = "error",
    data_range: tuple[float, float] | None = None,
    bins: Bins | None = None,
    decoder: str | float = "step",
    draws: int = 1,
    seed: int | Sequence[int] = 0,
    batch: int = 256,
    context: Tensor | None = None,
    progress: bool = False,
) -> Bound:
    """The variational bound on -log p(x_0) of DDPM steps on a grid, with all its terms.

    L_T + sum_t L_t + L_0, L_t = E KL(N(c_x x + c_d x_0, v_0) || N(c_x x + c_d d, v)).

    Ho et al. (2020), arXiv:2006.11239, eq. 5-13. Here the model starts from N(0, sigma_T^2 I), as
    `sample` does.

    Args:
        denoiser: E[x_0 | x_t].
        data: clean samples, floating point, shape (n, *event).
        times: the grid, noisy to clean; N network calls a sample, one at each time with sigma > 0.
        variance: v of the steps: "posterior" (betatilde; in the last step that of the step before,
            as there), "beta", "learned" (a network with two outputs), or measured `Moments` for
            the analytic one. The best variances make the bound of few steps much tighter.
        kind, data_range: of the analytic variance (`analytic_dpm`); "error" is the better here.
        bins: for data of evenly spaced values, the bound is of their probability: `Bins(2 / 255)`
            for bytes scaled to [-1, 1]. None: of a density.
        decoder: the law of x_0 at the cleanest time: "step" (N(d, v), the step's v), "direct"
            (N(x_t/alpha_t, rho_t^2), which needs no network; Kingma et al. 2021,
            arXiv:2107.00630), or a number v for N(d, v).
        draws: noises for each sample and time.
        seed: of the noise: one integer, or one a sample. A sample's noise depends on its own alone:
            with one integer, on that and its number; never on `batch` or the other samples.
        batch: the most samples in one network call.
        context: conditions of the samples, (n, ...), for a bound on -log p(x_0 | context).
        progress: tell how far it is.

    Raises:
        TypeError, ValueError: what does not fit; data outside their bins.
        FloatingPointError: if the bound is not finite.
    """
    x_0 = checked_data(denoiser, data, context, draws, batch)
    schedule = denoiser.schedule
    _check_variance(denoiser, variance)
    law = check_decoder(decoder, "step", "direct")
    check_bins(bins, x_0)
    grid = [float(t) for t in check_grid(schedule, times)]
    steps = reverse_steps(schedule, grid)
    lower, upper = logarithms(steps)
    learned = variance == "learned"
    log_v = upper if learned else step_variances(schedule, steps, variance, kind, data_range)
    on_d = [float(step.on_d) for step in steps]

    def measure(asked: Noised) -> Tensor:
        k = asked.k
        column = lambda values: _column(values, k, asked.x)
        if learned:
            t = torch.as_tensor(asked.t, dtype=torch.float64).expand(len(k))
            output, v, a, b = asked.denoiser.with_variance(asked.x, t)
            d = a * asked.x + b * output
            log_variance = interpolated(v, column(lower), column(upper))
        else:
            d = asked.denoiser(asked.x, asked.t)
            log_variance = column(log_v)
        value = total(kl(asked.x_0, d, column(on_d), column(lower), log_variance))
        last = k == len(steps) - 1
        if bool(last.any()):
            at = last.to(d.device)
            if law.direct:
                value[at] = direct_reconstruction(bins, rows_of(asked, last))
            else:
                own = log_variance.expand_as(d)[at]
                log_v_0 = own if law.log_variance is None else law.log_variance
                value[at] = reconstruction(bins, asked.x_0[at], d[at], log_v_0)
        return value[:, None]

    per_sample = prior_kl(schedule, grid[0], x_0)
    terms = [term_of("L_T", grid[0], None, per_sample)]
    asked_at = torch.tensor([float(step.t) for step in steps], dtype=torch.float64)
    how: dict[str, Any] = {"draws": draws, "seeds": seeds_of(seed, len(x_0)), "batch": batch}
    for block, values in averages(
        denoiser, x_0, asked_at, measure, context=context, progress=progress, **how
    ):
        for k, value in zip(block, values[..., 0], strict=True):
            step = steps[k]
            name = "L_0" if k == len(steps) - 1 else "L_t"
            s = None if step.s is None else float(step.s)
            terms.append(term_of(name, float(step.t), s, value))
            per_sample = per_sample + value
    text = "measured" if isinstance(variance, Moments) else variance
    about = f"discrete bound of {len(steps)} steps, variance {text}, on {schedule!r}"
    dimension = x_0[0].numel()
    return Bound(check_bound(per_sample), tuple(terms), dimension, about, bins is not None)


def _check_variance(denoiser: Denoiser, variance: object) -> None:
    if isinstance(variance, Moments):
        return
    if not isinstance(variance, str) or variance not in VARIANCES:
        raise ValueError(f"{unknown('variance', variance, VARIANCES)}, or measured Moments")
    if variance == "learned" and getattr(denoiser, "outputs", 1) != 2:
        raise TypeError(
            'variance="learned" needs a network that tells it: NetworkDenoiser(network, schedule, '
            "outputs=2)"
        )


def _column(values: Sequence[float], k: Tensor, x: Tensor) -> Tensor:
    """values[k], one a row, to multiply x."""
    chosen = torch.tensor(values, dtype=torch.float64)[k]
    return chosen.to(x).reshape(-1, *[1] * (x.ndim - 1))
