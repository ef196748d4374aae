r"""What a fit by derivatives needs before it begins: gradients on, and a network that has them.

With v a random direction, and w = (D(x + h v) - D(x - h v))/(2 h) about J v, reverse mode must find

    v . J^T w = |w|^2

up to what h leaves. A network that cuts the graph (`torch.no_grad` or `detach` inside) gives 0, or
of d = a x + b F the part a v . w alone. Where half of h gives another w (dropout, few digits, a
kink), differences tell nothing, and nothing is said; nor is it of a network with w = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from ..plan import Plan
from ..scalar import Scalar
from .pairs import Pairs


@contextmanager
def differentiable() -> Iterator[None]:
    """Gradients are on, also under `torch.no_grad` and `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def plain(pairs: Pairs) -> Pairs:
    """The pairs without gradients, and without tensors of the inference mode: copies of these."""

    def free(x: Tensor) -> Tensor:
        return x.clone() if x.is_inference() else x.detach()

    return replace(
        pairs,
        starts=free(pairs.starts),
        ends=free(pairs.ends),
        times=None if pairs.times is None else free(pairs.times),
        states=None if pairs.states is None else free(pairs.states),
        weights=None if pairs.weights is None else free(pairs.weights),
    )


_STEADY, _OFF = 0.05, 0.2  # relative: of two differences, and of a derivative that is right


def check_gradient(denoiser: Callable[[Tensor, Scalar], Tensor], plan: Plan, x: Tensor) -> None:
    """Refuse a network that autograd sees through in part or not at all; about five calls.

    Args:
        denoiser: the model.
        plan: asked at the middle one of its times.
        x: a few starts, which are scaled to that time where the denoiser has a schedule.
    """
    t = plan.asked_at[len(plan.asked_at) // 2]
    schedule = getattr(denoiser, "schedule", None)
    if schedule is not None:
        here, start = (schedule(u) for u in (t, plan.times[0]))
        x = x * (math.hypot(*map(float, here)) / math.hypot(*map(float, start)))
    x = x.detach()
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(x)
    digits = torch.finfo(getattr(denoiser, "dtype", None) or x.dtype).eps
    step = digits ** (1 / 3) * float(x.double().square().mean().sqrt())
    if not step > 0:
        return

    def difference(h: float) -> Tensor:
        return (denoiser(x + h * v, t) - denoiser(x - h * v, t)).double() / (2 * h)

    with torch.no_grad():
        rough, fine = difference(step), difference(step / 2)
    square = float(fine.square().sum())
    if not float((rough - fine).norm()) < _STEADY * square**0.5:
        return
    with differentiable():
        moving = x.clone().requires_grad_()
        d = denoiser(moving, t)
        pulled = None
        if d.requires_grad:
            (pulled,) = torch.autograd.grad(d, moving, fine.to(d), allow_unused=True)
    found = 0.0 if pulled is None else float((pulled.double() * v).sum())
    if abs(found - square) > _OFF * square:
        raise ValueError(
            "the network's output does not depend on its input as far as autograd sees (no_grad or "
            f"detach inside?): at t = {t:g} a derivative is {found:.3g}, by differences "
            f"{square:.3g}; free = 'gits', 'oss' or 'bound' need no gradient"
        )
