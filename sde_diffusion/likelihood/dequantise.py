r"""Bits per dimension of images: a density of real numbers as a bound on a probability of integers.

An image has values on a ladder of levels of spacing w, a density lives between them. With u in the
cell (-w/2, w/2)^D around a level x_0 and any law q of u,

    log P(x_0) = log int p(x_0 + u) du >= E_q [ log 1/K sum_k p(x_0 + u_k)/q(u_k) ],

for K = 1 the variational bound, tighter with K (Burda, Grosse & Salakhutdinov, "Importance weighted
autoencoders", 2016, arXiv:1509.00519); bits per dimension are -log P/(D log 2). The laws:

    "uniform"            q = 1/w^D (Theis, van den Oord & Bethge, 2016, arXiv:1511.01844)
    "truncated_normal"   q ~ N(0, (sigma_t/alpha_t)^2), cut off at -w/2 and w/2 (Zheng, Lu, Chen &
                         Zhu, "Improved techniques for maximum likelihood estimation for
                         diffusion ODEs", 2023, arXiv:2305.03935): the model then sees
                         alpha_t x_0 with the noise that it was trained on at t.

p is the density of x_0 + u as the model has it at the clean end t of the grid, with noise and all:
log p(x_0 + u) = log p_t(alpha_t (x_0 + u)) + D log alpha_t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..counts import check_count
from ..denoise import Denoiser, NetworkDenoiser
from ..names import look_up
from ..noise import PerSampleNoise, seeds_of
from .flow import log_likelihood
from .latents import Times, grid_of

DEQUANTISATIONS = ("uniform", "truncated_normal")


@dataclass(frozen=True)
class BitsPerDimension:
    """A bound on the bits per dimension of images.

    Attributes:
        bits: of each image, (batch,), float64; random, since u and the probes are.
        tolerance_error: of the solver, of each image in bits per dimension; the mean over its K
            solves (see `Likelihood.tolerance_error`).
        nfe, vjp: network calls and vector-Jacobian products in all.
    """

    bits: Tensor
    tolerance_error: Tensor
    nfe: int
    vjp: int

    @property
    def mean(self) -> float:
        """Over the images."""
        return float(self.bits.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, from the spread over images drawn at random: u and probes are part of it."""
        if len(self.bits) < 2:
            raise ValueError("one image has no spread: give at least two")
        return float(self.bits.std()) / math.sqrt(len(self.bits))

    def __str__(self) -> str:
        solver = float(self.tolerance_error.mean())
        error = f" +- {self.standard_error:.4f} (images)" if len(self.bits) > 1 else ""
        return f"{self.mean:.4f}{error} +- {solver:.4f} (solver) bits per dimension"


def bits_per_dimension(
    denoiser: Denoiser,
    images: Tensor,
    *,
    levels: int,
    value_range: tuple[float, float] = (-1.0, 1.0),
    dequantisation: str = "uniform",
    samples: int = 1,
    seed: int | Sequence[int] | None = None,
    steps: int | None = None,
    times: Times = "default",
    t_end: float | None = None,
    **options: Any,
) -> BitsPerDimension:
    """A bound on the bits per dimension of images of integer levels, by the probability flow.

    -1/(D log 2) log 1/K sum_k exp(log p(x_0 + u_k) - log q(u_k)); see the module.

    With an estimated trace and K > 1, the noise of log p, of variance V, raises the inner mean by
    about V/2 at large K: take the exact trace there, or so many probes that V is small.

    Args:
        denoiser: E[x_0 | x_t] of images in `value_range`.
        images: (batch, *event), integers 0 .. levels - 1, or floating numbers in `value_range`
            that lie on the levels.
        levels: number of levels, 256 for 8 bits.
        value_range: the value of the first and of the last level, as the network saw them.
        dequantisation: "uniform" or "truncated_normal".
        samples: K, importance samples an image.
        seed: one integer, one for each image, or None for one from the system.
        steps, times, t_end, options: of `log_likelihood`. The bound depends on the clean end t.

    Raises:
        ValueError, TypeError: values off the levels or outside the range; K < 1; what
            `log_likelihood` refuses.
    """
    look_up("dequantisation", dequantisation, dict.fromkeys(DEQUANTISATIONS))
    check_count("samples", samples)
    grid = grid_of(denoiser, steps, times, t_end)
    x_0, width = on_levels(images, levels, value_range)
    count, dimension = len(x_0), math.prod(x_0.shape[1:])
    alpha_t, sigma_t = (float(v) for v in denoiser.schedule(grid[-1]))
    seeds = seeds_of(seed, count)
    z = PerSampleNoise(seeds).start(torch.empty(count, samples, *x_0.shape[1:], dtype=x_0.dtype))
    z = z.transpose(0, 1)  # (K, batch, *event)
    if dequantisation == "uniform":
        u, log_q = _uniform(z, width)
    else:
        u, log_q = _truncated_normal(z, width, sigma_t / alpha_t)
    states = (alpha_t * (x_0 + u)).reshape(-1, *x_0.shape[1:])
    images_of = torch.arange(count).repeat(samples)
    found = log_likelihood(
        denoiser.select(images_of),
        states.to(images.device, _state_dtype(denoiser, images)),
        times=grid,
        seed=[_seed(seed, k) for k in range(samples) for seed in seeds],
        **options,
    )
    log_p = found.log_prob.cpu().double() + dimension * math.log(alpha_t)
    weights = log_p.reshape(samples, count) - log_q
    log_P = weights.logsumexp(0) - math.log(samples)
    scale = dimension * math.log(2)
    error = found.tolerance_error.cpu().double().reshape(samples, count).mean(0) / scale
    return BitsPerDimension(-log_P / scale, error, found.nfe, found.vjp)


def on_levels(
    images: Tensor, levels: int, value_range: tuple[float, float]
) -> tuple[Tensor, float]:
    """(images in the range, exactly on its levels, float64, on the CPU; spacing of the levels)."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor, not {type(images).__name__}")
    if images.dtype is torch.bool:
        raise TypeError("images have dtype torch.bool; give their levels as integers: images.int()")
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
        raise ValueError(f"levels = {levels!r} must be an integer of at least 2 (256 for 8 bits)")
    if not isinstance(value_range, tuple | list) or len(value_range) != 2:
        raise ValueError(f"value_range = {value_range!r} must be two numbers, as (-1.0, 1.0)")
    low, high = (float(v) for v in value_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"value_range = {value_range} must be two finite numbers, the smaller first"
        )
    if images.ndim < 2 or images.numel() == 0:
        raise ValueError(f"images have shape {tuple(images.shape)}; give (batch, *event)")
    width = (high - low) / (levels - 1)
    values = images.detach().cpu().double()
    steps = (values - low) / width if images.is_floating_point() else values
    nearest = steps.round()
    near = 1e-3
    if images.is_floating_point():  # rounding of the values, in levels
        near += 2 * torch.finfo(images.dtype).eps * max(abs(low), abs(high)) / width
    off = ~((steps - nearest).abs() <= min(near, 0.4)) | (nearest < 0) | (nearest > levels - 1)
    if bool(off.any()):
        wrong = float(values[off].flatten()[0])
        kind = (
            f"the {levels} levels from {low:g} to {high:g}"
            if images.is_floating_point()
            else f"the integers 0 to {levels - 1}"
        )
        raise ValueError(
            f"an image has the value {wrong:.6g}, which is none of {kind}: give levels and "
            "value_range as the images were made, and images before any noise or resizing"
        )
    return low + width * nearest, width


def _uniform(z: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """(u, log q(u)) from standard normal numbers, (K, batch, *event) and (K, batch)."""
    u = width * (torch.special.ndtr(z) - 0.5)
    return u, torch.full(z.shape[:2], -math.prod(z.shape[2:]) * math.log(width), dtype=z.dtype)


def _truncated_normal(z: Tensor, width: float, std: float) -> tuple[Tensor, Tensor]:
    """The same for N(0, std^2) cut off at -width/2 and width/2."""
    edge = torch.tensor(width / (2 * std), dtype=z.dtype)
    below = torch.special.ndtr(-edge)
    inside = 1 - 2 * below
    e = torch.special.ndtri(below + inside * torch.special.ndtr(z)).clamp(-edge, edge)
    each = -0.5 * e**2 - math.log(std * math.sqrt(2 * math.pi)) - inside.log()
    return std * e, each.flatten(2).sum(2)


def _seed(seed: int, k: int) -> int:
    """The seed of the probes of draw k of an image."""
    return int(np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0]) >> 1


def _state_dtype(denoiser: Denoiser, images: Tensor) -> torch.dtype:
    if images.dtype is torch.float64:
        return torch.float64
    usual = torch.float32 if isinstance(denoiser, NetworkDenoiser) else torch.float64
    return getattr(denoiser, "dtype", None) or usual
