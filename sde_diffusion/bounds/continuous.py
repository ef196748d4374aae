r"""The variational bound in the limit of infinitely many steps: an integral over noise levels.

    -log p(x_0) <= L_T + int E|eps - eps_hat(x_lambda)|^2 dlambda + L_0,     lambda_T .. lambda_0

(Kingma et al., "Variational diffusion models", 2021, arXiv:2107.00630, eq. 15 and 18: there
-1/2 int SNR'(t) E|x_0 - x0_hat|^2 dt). It knows the schedule only by its two ends. For the exact
denoiser the integral is an identity (I-MMSE; Guo, Shamai & Verdu 2005), so that the mean of the
bound is the entropy of the data but for the two ends.

The integral is taken in w = log(1 + SNR)/2, SNR = e^{2 lambda},

    int E|eps - eps_hat|^2 dlambda = int (1 + SNR) E|x_0 - d|^2 dw,

a variable that is finite where alpha = 0 and is lambda where there is little noise; on
variance-preserving schedules w = -log sigma. In it the integrand changes little: from the variance
of the data to the number of their directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..counts import check_count
from ..denoise import Denoiser
from ..names import look_up
from ..noise import seeds_of
from ..noised import Noised, averages, checked_data, places
from ..reverse import Bins
from ..schedule import Schedule
from ..variances import Moments
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

METHODS = {"stratified": 0, "quadrature": 0}
_COVERED = 0.5  # least share of the range that moments must cover to say where levels are drawn
_KNOTS = 257  # of the law of the noise levels where it is fitted to measured moments


def continuous_bound(
    denoiser: Denoiser,
    data: Tensor,
    *,
    points: int = 32,
    method: str = "stratified",
    importance: Moments | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    bins: Bins | None = None,
    decoder: str | float = "direct",
    seed: int | Sequence[int] = 0,
    batch: int = 256,
    context: Tensor | None = None,
    progress: bool = False,
) -> Bound:
    """The variational bound on -log p(x_0) of infinitely many steps.

    L_T + int_{lambda_T}^{lambda_0} E|eps - eps_hat|^2 dlambda + L_0.

    Kingma et al. (2021), arXiv:2107.00630, section 4 and appendix I.

    Args:
        denoiser: E[x_0 | x_t].
        data: clean samples, floating point, shape (n, *event).
        points: noise levels for each sample; as many network calls.
        method: "stratified": each sample has levels of its own, one in each of so many equal
            parts, at a common random place: no bias. "quadrature": the Gauss-Legendre nodes, the
            same for all samples: no variance from the levels, and a bias that vanishes fast with
            their number for smooth denoisers.
        importance: moments of the denoiser, for levels drawn in proportion to what they add (with
            "stratified"). They must cover half of the range, measured in w, or more; a level
            beyond them is drawn as often as the nearest of them.
        t_start, t_end: the noisy and the clean end; default t_max, and t_min or, where sigma is 0
            there, t_clean.
        bins: for data of evenly spaced values, the bound is of their probability.
        decoder: the law of x_0 at t_end: "direct", N(x_t/alpha_t, rho_t^2), over bins or not; or a
            number v, for N(d, v). `best_end` chooses t_end and v.
        seed: of noise and levels: one integer, or one a sample. A sample's bound depends on its own
            alone: with one integer, on that and its number.
        batch: the most samples in one network call.
        context: conditions of the samples, (n, ...).
        progress: tell how far it is.

    Raises:
        TypeError, ValueError: what does not fit; data outside their bins.
        FloatingPointError: if the bound is not finite.
    """
    x_0 = checked_data(denoiser, data, context, 1, batch)
    schedule, seeds = denoiser.schedule, seeds_of(seed, len(data))
    n = len(seeds)
    check_count("points", points)
    look_up("method", method, METHODS)
    law = check_decoder(decoder, "direct")
    check_bins(bins, x_0)
    start, end = _ends(schedule, t_start, t_end)
    levels = _levels(schedule, start, end, importance, method, points, seeds)
    t = torch.cat([levels.t.expand(points, n), torch.full((1, n), end, dtype=torch.float64)])
    weight = levels.weight.expand(points, n)

    def measure(asked: Noised) -> Tensor:
        last = asked.k == points
        if law.direct and bool(last.all()):  # no network call
            return direct_reconstruction(bins, asked)[:, None]
        d = asked.denoiser(asked.x, asked.t)
        own = weight[asked.k.clamp(max=points - 1), asked.i]
        value = own.to(d.device) * total((asked.x_0 - d).square())
        if bool(last.any()):
            at = last.to(asked.x.device)
            if law.log_variance is None:
                value[at] = direct_reconstruction(bins, rows_of(asked, last))
            else:
                value[at] = reconstruction(bins, asked.x_0[at], d[at], law.log_variance)
        return value[:, None]

    per_sample = prior_kl(schedule, start, x_0)
    terms = [term_of("L_T", start, None, per_sample)]
    for block, values in averages(
        denoiser,
        x_0,
        t,
        measure,
        draws=1,
        seeds=seeds,
        batch=batch,
        context=context,
        progress=progress,
    ):
        for k, value in zip(block, values[..., 0], strict=True):
            if k == points:
                terms.append(term_of("L_0", end, None, value))
            else:
                terms.append(term_of("L_t", levels.edges[k], levels.edges[k + 1], value))
            per_sample = per_sample + value
    about = f"continuous bound, {points} points ({method}), on {schedule!r}"
    dimension = x_0[0].numel()
    return Bound(check_bound(per_sample), tuple(terms), dimension, about, bins is not None)


def _ends(schedule: Schedule, t_start: float | None, t_end: float | None) -> tuple[float, float]:
    start = schedule.t_max if t_start is None else float(t_start)
    noisy = schedule.sigma(schedule.t_min) > 0
    end = (schedule.t_min if noisy else schedule.t_clean) if t_end is None else float(t_end)
    if not schedule.t_min <= end < start <= schedule.t_max:
        raise ValueError(
            f"t_end = {end:g} and t_start = {start:g} must lie in [{schedule.t_min:g}, "
            f"{schedule.t_max:g}], t_end below t_start"
        )
    if schedule.sigma(end) == 0:
        raise ValueError(
            f"sigma = 0 at t_end = {end:g}, where the integral has no end: t_end = "
            f"{schedule.t_clean:g}, say"
        )
    return start, end


def levels_between(schedule: Schedule, count: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """w, SNR and times (float64, noisy to clean) of levels evenly spaced in w, with both ends."""
    start, end = _ends(schedule, None, None)
    w = np.linspace(_w(schedule, start), _w(schedule, end), count)
    snr = np.expm1(2 * w)
    inner = torch.as_tensor(schedule.time_of(torch.from_numpy(np.log(snr[1:-1]) / 2)))
    first, last = (torch.tensor([t], dtype=torch.float64) for t in (start, end))
    return w, snr, torch.cat([first, inner, last])


def _w(schedule: Schedule, t: float) -> float:
    """log(1 + SNR)/2 at time t."""
    return float(np.logaddexp(0.0, 2 * float(schedule.half_log_snr(t)))) / 2


class _Levels(NamedTuple):
    """Where the integrand is asked."""

    t: Tensor  # (points, n), or (points, 1) where all samples share them
    weight: Tensor  # of |x_0 - d|^2, in the same shape
    edges: list[float]  # times between which each point stands for the integral, points + 1


def _levels(
    schedule: Schedule,
    start: float,
    end: float,
    importance: Moments | None,
    method: str,
    points: int,
    seeds: Sequence[int],
) -> _Levels:
    knots, density = _law(_w(schedule, start), _w(schedule, end), importance, method)
    u, share = _places(points, seeds, method)
    cumulative = np.append(0.0, np.cumsum(density * np.diff(knots)))
    w = np.interp(u, cumulative, knots)
    here = np.clip(np.searchsorted(knots, w, side="right") - 1, 0, len(density) - 1)
    snr = np.expm1(2 * w)
    t = torch.as_tensor(schedule.time_of(torch.from_numpy(np.log(snr) / 2)))
    inner = np.interp(np.cumsum(share)[:-1], cumulative, knots)
    between = [float(schedule.time_of(float(v))) for v in np.log(np.expm1(2 * inner)) / 2]
    weight = torch.from_numpy(share[:, None] / density[here] * (1 + snr))
    return _Levels(t, weight, [start, *between, end])


def _law(
    w_start: float, w_end: float, importance: Moments | None, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Knots in w and a density that is constant between them, of integral 1."""
    if importance is None:
        return np.array([w_start, w_end]), np.array([1 / (w_end - w_start)])
    if not isinstance(importance, Moments):
        raise TypeError(
            f"importance = {importance!r}: give the Moments that measure_moments returns"
        )
    if method != "stratified":
        raise ValueError("importance draws the levels: it goes with method='stratified' alone")
    knots = np.linspace(w_start, w_end, _KNOTS)
    middle = np.log(np.expm1(knots[1:] + knots[:-1])) / 2
    low, high = importance.lambda_[0], importance.lambda_[-1]
    reach = [float(np.logaddexp(0.0, 2 * v)) / 2 for v in (low, high)]
    covered = (min(reach[1], w_end) - max(reach[0], w_start)) / (w_end - w_start)
    if covered < _COVERED:
        raise ValueError(
            f"importance was measured from lambda = {low:.4g} to {high:.4g}, {max(covered, 0):.0%} "
            "of the range of this bound: measure_moments at times from t_start to t_end, or take "
            "best_end(...).moments"
        )
    error = [importance.variance(float(np.clip(v, low, high)), "error") for v in middle]
    height = np.array(error) * (1 + np.exp(2 * middle))
    height = height + height.mean() / 10  # no level is left out, whatever was measured
    return knots, height / (height * np.diff(knots)).sum()


def _places(points: int, seeds: Sequence[int], method: str) -> tuple[np.ndarray, np.ndarray]:
    """Places in [0, 1] of the levels, (points, n) or (points, 1), and the share of each point."""
    if method == "quadrature":
        nodes, weights = np.polynomial.legendre.leggauss(points)
        return (nodes[:, None] + 1) / 2, weights / 2
    return (np.arange(points)[:, None] + places(seeds)) / points, np.full(points, 1 / points)
