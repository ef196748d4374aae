r"""Gradients through a denoiser: d = E[x_0 | x_t], and products with its Jacobian.

By Tweedie's formula the Jacobian is the covariance of what was lost,

    J = dd/dx = (alpha/sigma^2) Cov[x_0 | x_t],

symmetric for an exact denoiser (Efron, "Tweedie's formula and selection bias", 2011). Whatever
says l(x_t) = log p(y | x_t) turns d into the conditional mean:

    E[x_0 | x_t, y] = d + (sigma^2/alpha) grad l.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .denoise import Denoiser
from .scalar import Scalar

Pull = Callable[[Tensor], Tensor]
"""v -> J^T v, both of the state's shape."""


def denoise_with_pull(denoiser: Denoiser, x: Tensor, t: Scalar) -> tuple[Tensor, Pull]:
    """d = E[x_0 | x_t = x], without a graph, and v -> J^T v, which may be asked many times.

    Works inside `torch.no_grad()`, where the engine runs plans.

    Args:
        denoiser: differentiable in x.
        x: states, shape (batch, *event).
        t: time, or one a sample, shape (batch,).

    Raises:
        RuntimeError: in inference mode, where autograd keeps nothing.
        ValueError: if the denoiser's answer does not come from x for autograd.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "this needs gradients through the denoiser, and torch.inference_mode() keeps none: "
            "leave it out (run and sample make no graph of their own), or use torch.no_grad()"
        )
    leaf = (x.clone() if x.is_inference() else x).detach().requires_grad_()
    with torch.enable_grad():
        d = denoiser(leaf, t)
    if not d.requires_grad:
        raise ValueError(
            "the denoiser's answer has no gradient in x: its network computes under no_grad, "
            "detaches, or works in numpy; choose a method without gradients, or let autograd see it"
        )

    def pull(v: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(d, leaf, v.to(d), retain_graph=True)
        return product

    return d.detach(), pull
