r"""Log-densities by the change of variables along the probability flow.

    log p_t(x) = log p_T(x_T) + int_t^T div v(x_u, u) du

with v the velocity of the probability-flow ODE (Song et al., "Score-based generative modeling
through SDEs", 2021, arXiv:2011.13456, section 4.3 and appendix D.2). The integral is a further
coordinate of the state (`likelihood.augmented`), so every deterministic plan and every adaptive
solver finds it as it finds x_T; the divergence is exact or a random estimate (`likelihood.trace`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..counts import check_count
from ..denoise import Denoiser, NetworkDenoiser
from ..guidance import Guided
from ..noise import seeds_of
from ..progress import Progress
from .augmented import Augmented, Count, check_differentiable
from .latents import DETERMINISTIC, Times, check_start, coarser, grid_of, upwards
from .reference import GaussianReference
from .result import Likelihood, joined
from .trace import Trace, make_trace

Prior = Callable[[Tensor], Tensor]


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    *,
    solver: str = "default",
    steps: int | None = None,
    times: Times = "default",
    t_end: float | None = None,
    trace: str = "orthogonal",
    probes: int = 8,
    reference: GaussianReference | Tensor | float = 1.0,
    prior: Prior | None = None,
    seed: int | Sequence[int] | None = None,
    tolerance_error: bool = True,
    chunk: int | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    **options: Any,
) -> Likelihood:
    """log p_t(x) of the density that the probability flow makes of its prior.

    log p_t(x) = log p_T(x_T) + int_t^T div v du; Song et al. 2021, arXiv:2011.13456, eq. 39. The
    probes of a sample are drawn once and kept for the whole solve (Grathwohl et al., "FFJORD",
    2019, arXiv:1810.01367), and depend on its seed alone, not on its batch.

    Args:
        denoiser: E[x_0 | x_t]; differentiable with respect to x, each sample on its own (no batch
            norm in training mode).
        x: states at the clean end t of the grid, (batch, *event). For data x_0 and small t,
            log p_0(x_0) ~ log p_t(alpha_t x_0) + D log alpha_t.
        solver, steps, times, t_end, options: as for `encode`.
        trace: "exact" (D vector-Jacobian products a call), or an estimate of `probes` products:
            "orthogonal", "rademacher", "gaussian", "hutch++".
        probes: number of products; D or more of them stand for "exact". One tells no standard
            error.
        reference: covariance of Gaussian data like these (see `GaussianReference`), whose part of
            the divergence is taken in closed form. It changes errors, not expectations.
        prior: x_T -> log p_T(x_T), (batch,); default N(0, sigma_T^2 I), which is what samplers
            start from.
        seed: of the probes: one integer, one for each sample, or None for one from the system.
        tolerance_error: whether to solve a second time, with half the steps or ten times the
            tolerances, to tell the error of the solver; otherwise it is infinite.
        chunk: vector-Jacobian products done at a time (a call's memory grows with it); 1 also for
            networks that torch.vmap does not know. Default: all.
        batch_size: samples at a time; default: all.
        progress: show how far it is.

    Raises:
        ValueError, TypeError: an unknown name or option; a stochastic solver; a grid that ends at
            sigma = 0; fewer than 1 probe; a state that is not finite, or of integers; a network
            that has no gradient.
        FloatingPointError: if a solve leaves the finite numbers.
    """
    grid = grid_of(denoiser, steps, times, t_end)
    check_start(denoiser, x)
    denoiser = _asked_as(denoiser, x.dtype)
    if reference is None or isinstance(reference, str):
        raise TypeError(
            f"reference = {reference!r}: give a GaussianReference, a covariance, or a variance "
            "(1.0 where nothing is known)"
        )
    if not isinstance(reference, GaussianReference):
        reference = GaussianReference(reference)
    reference.check(math.prod(x.shape[1:]))
    check_count("chunk", chunk, or_none=True)
    check_count("batch_size", batch_size, or_none=True)
    if prior is not None and not callable(prior):
        raise TypeError(f"prior = {prior!r} must be a function x_T -> log p_T(x_T), or None")
    seeds = seeds_of(seed, len(x))
    make_trace(trace, probes, x[:1], seeds[:1])  # refuses at the door
    check_differentiable(denoiser, x, grid[-1])
    ways = [(grid, options)]
    if tolerance_error:
        ways.append(coarser(grid, solver, options))
    parts = []
    with Progress(len(x), progress) as told, torch.no_grad():
        for who in torch.arange(len(x)).split(batch_size or len(x)):
            part, own = x[who.to(x.device)].detach(), denoiser.select(who)
            told.advance(0, f"samples {int(who[0])} to {int(who[-1])}")
            chosen = make_trace(trace, probes, _wide(part), [seeds[i] for i in who])
            parts.append(_solve(own, part, solver, ways, chosen, reference, prior, chunk))
            told.advance(len(who), f"sample {int(who[-1]) + 1} of {len(x)}")
    return joined(parts)


def _asked_as(denoiser: Denoiser, dtype: torch.dtype) -> Denoiser:
    """A network hidden in a function does not say its dtype: it is asked in that of x."""
    if isinstance(denoiser, Guided):
        return denoiser.mapped(lambda branch: _asked_as(branch, dtype))
    if not isinstance(denoiser, NetworkDenoiser) or denoiser.dtype is not None:
        return denoiser
    told = copy.copy(denoiser)
    told._dtype = dtype
    return told


def _solve(
    denoiser: Denoiser,
    x: Tensor,
    solver: str,
    ways: list[tuple[list[float], dict[str, Any]]],
    trace: Trace,
    reference: GaussianReference,
    prior: Prior | None,
    chunk: int | None,
) -> Likelihood:
    """One batch; the first way is the answer, a second one tells its error."""
    schedule, count = denoiser.schedule, Count()
    noisy, clean = ways[0][0][0], ways[0][0][-1]
    adaptive = solver in DETERMINISTIC
    flow = Augmented(denoiser, tuple(x.shape[1:]), trace, reference, chunk, count, adaptive)
    low, high = ((float(alpha), float(sigma)) for alpha, sigma in map(schedule, (clean, noisy)))
    known = reference.log_stretch(low, high, flow.dimension)
    solved = []
    for grid, options in ways:
        y = upwards(flow, flow.start(x), grid, solver, options).x
        x_T, lanes = flow.read(y, noisy)
        sigma_T = float(schedule.sigma(noisy))
        log_prior = _normal(x_T, sigma_T) if prior is None else _own_prior(prior, x_T)
        solved.append((x_T, lanes, log_prior))
    x_T, lanes, log_prior = solved[0]
    error = torch.full_like(log_prior, math.inf)
    if len(solved) > 1:
        _, coarse_lanes, coarse_prior = solved[1]
        error = (log_prior - coarse_prior).abs() + (lanes.mean(1) - coarse_lanes.mean(1)).abs()
        error = error.clamp(min=float(error.median()))  # one small difference can be an accident
    return Likelihood(
        log_prob=log_prior + known + lanes.mean(1),
        standard_error=trace.standard_error(lanes),
        tolerance_error=error,
        log_prior=log_prior,
        latents=x_T.to(torch.promote_types(x.dtype, torch.float32)),
        t=clean,
        lanes=trace.lanes,
        nfe=count.calls,
        vjp=count.products,
        signs=trace.signs,
    )


def _normal(x: Tensor, sigma: float) -> Tensor:
    """log N(x; 0, sigma^2 I), (batch,)."""
    flat = x.reshape(len(x), -1) / sigma
    constant = flat.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(sigma))
    return -0.5 * flat.square().sum(1) - constant


def _own_prior(prior: Prior, x: Tensor) -> Tensor:
    found = prior(x)
    if not isinstance(found, Tensor) or found.shape != x.shape[:1]:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"prior returned {shape}; it must give one log-density a sample")
    return found.to(x)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.device.type == "mps" else x.double()
