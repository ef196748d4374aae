r"""In which unit an error is told: noise, data, velocity, flow, score, EDM's output, or nats.

What a network estimates is a combination of the clean sample and the noise, F* = p x_0 + q eps,
and x_t = alpha x_0 + sigma eps is given to it. So whoever misses x_0 by e misses eps by
-(alpha/sigma) e, and F* by

    p e - q (alpha/sigma) e = (sigma p - alpha q) e / sigma:

an error told in one unit is an error told in any other times a ratio of the numbers

    r = |sigma p - alpha q|

    unit         F* = p x_0 + q eps               r
    "data"       x_0                              sigma
    "noise"      eps                              alpha
    "velocity"   alpha eps - sigma x_0            alpha^2 + sigma^2
    "flow"       alpha' x_0 + sigma' eps          alpha sigma' - sigma alpha'
    "score"      -eps/sigma                       alpha/sigma
    "edm"        (sigma x_0/s - s alpha eps)/h    h/s,  h^2 = sigma^2 + s^2 alpha^2, s = sigma_data
    "nats"       (none)                           sqrt(alpha (alpha sigma' - sigma alpha')/sigma)

The last is no prediction: its squared error, integrated over time, is the squared error in the
noise integrated over the half-log-SNR, as lambda' = -(alpha sigma' - sigma alpha')/(alpha sigma),
and that is the continuous-time bound on the likelihood, in nats (Kingma et al., "Variational
diffusion models", 2021, arXiv:2107.00630). No row divides by alpha: all are right at alpha = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..names import look_up
from ..schedule import Schedule


def target(
    unit: str, schedule: Schedule, t: Tensor, sigma_data: float = 0.5
) -> tuple[Tensor, Tensor]:
    """(p, q) of F* = p x_0 + q eps, what a network of this prediction is fitted to.

    Args:
        unit: a prediction: "data", "noise", "velocity", "flow", "score" or "edm".
        schedule: t -> (alpha_t, sigma_t).
        t: times, float64, any shape.
        sigma_data: standard deviation of the data, for "edm" alone.
    """
    alpha, sigma = scales(schedule, t)
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    if unit == "flow":
        alpha_dot, sigma_dot = (torch.as_tensor(c) for c in schedule.derivatives(t))
        return alpha_dot, sigma_dot
    if unit == "edm":
        h = (sigma**2 + (sigma_data * alpha) ** 2).sqrt()
        return sigma / (sigma_data * h), -sigma_data * alpha / h
    plain = {"data": (one, zero), "noise": (zero, one), "velocity": (-sigma, alpha)}
    return look_up("unit", unit, plain | {"score": (zero, -1 / sigma)})


def error(unit: str, schedule: Schedule, t: Tensor, sigma_data: float = 0.5) -> Tensor:
    """r: an error of e in x_0 is one of r e/sigma in this unit ("nats" too)."""
    alpha, sigma = scales(schedule, t)
    if unit == "nats":
        alpha_dot, sigma_dot = (torch.as_tensor(c) for c in schedule.derivatives(t))
        return (alpha * (alpha * sigma_dot - sigma * alpha_dot) / sigma).sqrt()
    p, q = target(unit, schedule, t, sigma_data)
    return (sigma * p - alpha * q).abs()


def scales(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha_t, sigma_t) as tensors."""
    alpha, sigma = schedule(t)
    return torch.as_tensor(alpha), torch.as_tensor(sigma)
