"""The denoising loss at given times and noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..denoise import double
from ..names import unknown
from ..schedule import Schedule

TARGETS = ("noise", "data", "velocity")


def diffusion_loss(
    network: nn.Module,
    schedule: Schedule,
    x_0: Tensor,
    t: Tensor,
    eps: Tensor,
    target: str = "noise",
) -> Tensor:
    """The denoising loss, mean of (target - network(x_t, t))^2 over samples and coordinates.

    x_t = alpha_t x_0 + sigma_t eps. Ho et al. (2020), arXiv:2006.11239, eq. 14; "velocity" is
    v = alpha_t eps - sigma_t x_0, Salimans & Ho (2022), arXiv:2202.00512, section 4.

    Args:
        network: (x_t, t) -> the prediction, of the shape of x_t.
        schedule: t -> (alpha_t, sigma_t); called in float64, the scales are cast to x_0's dtype.
        x_0: clean data, floating point, shape (batch, *event).
        t: times, shape (batch,), in [schedule.t_min, schedule.t_max].
        eps: standard normal noise, of the shape of x_0.
        target: "noise" (eps), "data" (x_0) or "velocity".

    Returns:
        the loss, a scalar with a graph to the network's weights.

    Raises:
        TypeError, ValueError: if x_0 is not floating point; unknown target, or shapes do not fit.
    """
    _check_target(target)
    _check_floating(x_0, "x_0")
    if t.shape != x_0.shape[:1] or eps.shape != x_0.shape:
        raise ValueError(
            f"x_0 {tuple(x_0.shape)}, t {tuple(t.shape)}, eps {tuple(eps.shape)}: need one time "
            f"for each sample, t of shape {tuple(x_0.shape[:1])}, and eps of the shape of x_0"
        )
    times = double(t)
    column = (-1,) + (1,) * (x_0.ndim - 1)
    alpha_t, sigma_t = (torch.as_tensor(scale).to(x_0).reshape(column) for scale in schedule(times))
    x_t = alpha_t * x_0 + sigma_t * eps
    velocity = alpha_t * eps - sigma_t * x_0
    wanted = {"noise": eps, "data": x_0, "velocity": velocity}[target]
    prediction = network(x_t, times.to(torch.promote_types(x_0.dtype, torch.float32)))
    if prediction.shape != x_0.shape:
        raise ValueError(
            f"the network answered {tuple(x_0.shape)} with {tuple(prediction.shape)}: it must "
            "return one prediction of the shape of x_t (for a learned variance, drop that half)"
        )
    return (prediction - wanted).square().mean()


def _check_target(target: str) -> None:
    if target not in TARGETS:
        raise ValueError(unknown("target", target, TARGETS))


def _check_floating(x: Tensor, name: str) -> None:
    if not x.is_floating_point():
        raise TypeError(
            f"{name} has dtype {x.dtype}: noise is continuous; scale it to floating point, as in "
            f"{name}.float() / 127.5 - 1 for bytes"
        )
