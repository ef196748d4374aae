r"""Interpolation in latent space: between the noises from which a deterministic sampler starts.

Let a, b be independent with the law N(0, sigma^2 I) (so is x_T). For weights with
w_a^2 + w_b^2 = 1 the sum w_a a + w_b b has the same law, exactly; so

    law     cos(pi u/2) a + sin(pi u/2) b,    0 <= u <= 1,

goes from a to b through states that are each as good a start as any. Linear weights 1 - u and u
do not: half-way the variance is sigma^2/2, and pictures lose contrast. Spherical interpolation,

    sphere  (sin((1 - u) theta) a + sin(u theta) b) / sin theta,    cos theta = <a, b>/(|a| |b|),

keeps the norm where both ends have one and the same, for any two ends, also such as are not
independent (two latents from inversion). In high dimension, where theta is near pi/2 for
independent ends, the two are nearly one: theta differs from pi/2 by about 1/sqrt(D).

Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985. Song et al., "Denoising
diffusion implicit models", 2021, arXiv:2010.02502, section 5.3 (the spherical kind).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..counts import check_count
from ..names import look_up
from ..run import check_finite, check_state


def interpolate(a: Tensor, b: Tensor, points: int, rule: str = "law") -> Tensor:
    """States on the way from one latent to another, both ends among them, exactly.

    u = 0, 1/(n - 1), .., 1, with rule

        "law"      cos(pi u/2) a + sin(pi u/2) b: keeps N(0, sigma^2 I) for independent ends
        "sphere"   by the angle between a and b: keeps the norm for ends of equal norm

    Song et al. 2021, arXiv:2010.02502, section 5.3 ("sphere").

    Args:
        a, b: latents x_T, (batch, *event), sample by sample.
        points: n >= 2.
        rule: "law" or "sphere".

    Returns:
        (n, batch, *event), the first a and the last b.

    Raises:
        TypeError, ValueError: states of different shapes or kinds, or not finite; fewer than two
            points; an unknown rule; "sphere" between a and -b, or from 0, where no way is nearest.
    """
    _check_ends(a, b)
    check_count("points", points, least=2)
    weights = look_up("rule", rule, RULES)(a, b, _even(points, a))
    return _between(a, b, *weights)


def interpolation_grid(corners: Tensor, rows: int, columns: int) -> Tensor:
    """States between four latents, which are the corners, exactly.

    With v down and u to the right, cos and sin of pi/2 times each,

        cos v (cos u x_00 + sin u x_01) + sin v (cos u x_10 + sin u x_11):

    the squares of the weights have sum 1, so that four independent latents of law N(0, sigma^2 I)
    give that law everywhere.

    Song et al. 2021, arXiv:2010.02502, section 5.3 and appendix (grids of interpolations).

    Args:
        corners: (2, 2, *event), [0, 0] top left, [0, 1] top right.
        rows, columns: at least 2 each.

    Returns:
        (rows, columns, *event).

    Raises:
        TypeError, ValueError: corners of another shape, or not finite; fewer than two rows or
            columns.
    """
    check_state(corners)
    check_finite(corners)
    if corners.ndim < 2 or tuple(corners.shape[:2]) != (2, 2):
        raise ValueError(f"corners have shape {tuple(corners.shape)}; give (2, 2, *event)")
    check_count("rows", rows, least=2)
    check_count("columns", columns, least=2)
    across = interpolate(corners[:, 0], corners[:, 1], columns)  # (columns, 2, *event)
    return interpolate(across[:, 0], across[:, 1], rows)


def _law(a: Tensor, b: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    angle = u * (math.pi / 2)
    return angle.cos(), angle.sin()


def _sphere(a: Tensor, b: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Weights by the angle theta between a and b, sample by sample; linear where it is tiny."""
    x, y = (v.reshape(len(v), -1).to(u.dtype) for v in (a, b))
    sizes = torch.stack([x.norm(dim=1), y.norm(dim=1)])
    if not bool((sizes > 0).all()):
        raise ValueError("a latent is 0: it has no direction; take rule='law'")
    x, y = x / sizes[0, :, None], y / sizes[1, :, None]
    # theta = 2 atan2(|x - y|, |x + y|) keeps its digits at both ends, where acos loses half.
    theta = 2 * torch.atan2((x - y).norm(dim=1), (x + y).norm(dim=1))
    if bool((theta > math.pi - 1e-6).any()):
        raise ValueError(
            "two latents point in opposite directions: all ways between them are equally long; "
            "take rule='law', or go by way of a third"
        )
    theta = theta.reshape(-1, *[1] * (a.ndim - 1))
    tiny = theta < 1e-7
    safe = torch.where(tiny, torch.ones_like(theta), theta)
    share = lambda u: torch.where(tiny, u.expand_as(u * theta), (u * safe).sin() / safe.sin())
    return share(1 - u), share(u)


RULES: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "law": _law,
    "sphere": _sphere,
}


def _even(points: int, like: Tensor) -> Tensor:
    """u of every point, (points, 1, .., 1), float64 where the device has it."""
    kind = torch.float32 if like.device.type == "mps" else torch.float64
    u = torch.linspace(0, 1, points, dtype=kind, device=like.device)
    return u.reshape(-1, *[1] * like.ndim)


def _between(a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor) -> Tensor:
    states = of_a.to(a.dtype) * a + of_b.to(a.dtype) * b
    states[0], states[-1] = a, b  # to the last bit
    return states


def _check_ends(a: Tensor, b: Tensor) -> None:
    for end in (a, b):
        check_state(end)
        check_finite(end)
    if a.shape != b.shape or a.dtype is not b.dtype or a.device != b.device:
        raise ValueError(
            f"a is {a.dtype} of shape {tuple(a.shape)} on {a.device}, b is {b.dtype} of shape "
            f"{tuple(b.shape)} on {b.device}: they must agree"
        )
