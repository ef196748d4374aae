r"""Tweedie moment projection: the variances of the measured numbers by one product with J.

Cov[A x_0 | x_t] = A (sigma^2/alpha) J A^T  ~  diag of its row sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoise import Denoiser
from .measurement import Measurement
from .posterior import Here, Posterior, check_posed

LEAST = 0.3  # of the mean size of the row sums: the least variance believed


def tmpd(denoiser: Denoiser, measurement: Measurement) -> Posterior:
    """A variance for each measured number, from the network's Jacobian; A may be nonlinear.

    d_y = d + (sigma^2/alpha) J^T A'^T (y - A(d))/(sigma_y^2 + c),
    c = max(|h|, 0.3 mean |h|),    h = A' (sigma^2/alpha) J^T A'^T 1

    Boys, Girolami, Pidstrigach, Reich, Mosca & Akyildiz, "Tweedie moment projected diffusions for
    inverse problems", 2023, arXiv:2310.06721. h are the row sums of Cov[A x_0 | x_t]: its diagonal
    if that is all there is, as for independent coordinates and A that selects some of them. Where
    coordinates are correlated, or where A^T 1 = 0 as for differences, the sums may be far from the
    diagonal, and 0 or negative, which no variance is; taken as they are they drive samples to
    infinity, so they are bounded from below, and the push is shortened so that A(d_y) is no farther
    from y than A(d). Two products with J^T a call.

    Args:
        denoiser: d = E[x_0 | x_t], differentiable in x.
        measurement: y, A and sigma_y; a nonlinear A is linearised at d.
    """
    check_posed(denoiser, measurement)
    return Posterior(denoiser, measurement, _rule)


def _rule(here: Here) -> Tensor:
    gain = here.gain
    d, pull = here.prior_with_pull()
    around = here.around(d)
    ones = torch.ones_like(around.residual)
    sums = around.push(gain * pull(around.pull(ones))).abs()
    mean = sums.mean(tuple(range(1, sums.ndim)), keepdim=True)
    total = here.measurement.noise**2 + torch.maximum(sums, LEAST * mean)
    u = torch.where(total > 0, around.residual / total, torch.zeros_like(total))
    return d + around.no_farther(gain * pull(around.pull(u)))
