r"""Conjugate gradients, many systems of one operator at once, each stopped by itself.

    (a A A^T + b I) u = v, b > 0            Hestenes & Stiefel, 1952
    min |A x - v|, the x of least norm      CGLS: the same on the normal equations, A^T A x = A^T v,
                                            without forming them (Bjorck, "Numerical methods for
                                            least squares problems", 1996, section 7.4)

A sample that has converged stands still while the others go on, so no answer depends on the batch.
Directions lose their conjugacy to rounding, the sooner the worse M is conditioned: in float32 the
residual may then stay far above float32's own rounding. Iterations therefore are in float64 where
the device has it, and what was given in float32 is only taken to its tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..states import inner

TOLERANCE = {torch.float32: 1e-8, torch.float64: 1e-12}  # of residuals, relative, by what is asked
Function = Callable[[Tensor], Tensor]


def widened(v: Tensor) -> Tensor:
    """v in the dtype of the iterations."""
    return v if v.device.type == "mps" else v.double()


def conjugate_gradients(function: Function, v: Tensor, most: int, tolerance: float) -> Tensor:
    """u with function(u) = v, one system a sample.

    Args:
        function: u -> M u, of v's shape, M symmetric and positive definite.
        v: (batch, *shape).
        most: iterations before it gives up.
        tolerance: of the residual, relative.

    Raises:
        RuntimeError: if a residual |M u - v| is still above tolerance |v|.
    """
    u, r = torch.zeros_like(v), v
    p, gamma = r, inner(r, r)
    enough = tolerance**2 * gamma
    for count in range(most):
        if _all(gamma <= enough, count):
            break
        q = function(p)
        step = torch.where(gamma > enough, gamma / inner(p, q), 0.0)
        u, r = u + step * p, r - step * q
        gamma, before = torch.where(gamma > enough, inner(r, r), gamma), gamma
        p = r + gamma / before.clamp_min(torch.finfo(v.dtype).tiny) * p
    _check(gamma, enough, most, tolerance)
    return u


def least_squares(
    forward: Function, backward: Function, v: Tensor, most: int, tolerance: float
) -> Tensor:
    """A^+ v, the x of least norm among those with the least |A x - v|, one system a sample.

    Args:
        forward, backward: x -> A x and y -> A^T y.
        v: (batch, *measured_shape).
        most: iterations before it gives up.
        tolerance: of the gradient, relative.

    Raises:
        RuntimeError: if a gradient |A^T (v - A x)| is still above tolerance |A^T v|.
    """
    r = v
    p = s = backward(r)
    x, gamma = torch.zeros_like(s), inner(s, s)
    enough = tolerance**2 * gamma
    for count in range(most):
        if _all(gamma <= enough, count):
            break
        q = forward(p)
        step = torch.where(gamma > enough, gamma / inner(q, q, like=s), 0.0)
        x, r = x + step * p, r - step.reshape(-1, *[1] * (v.ndim - 1)) * q
        s = backward(r)
        gamma, before = torch.where(gamma > enough, inner(s, s), gamma), gamma
        p = s + gamma / before.clamp_min(torch.finfo(v.dtype).tiny) * p
    _check(gamma, enough, most, tolerance)
    return x


def truncated(product: Function, v: Tensor, iterations: int) -> Tensor:
    """u with M u = v after a number of iterations from u = 0, of least norm where M is singular.

    A sample stops where its residual is down to rounding, and where the curvature p^T M p/|p|^2 of
    a direction is negative or rounding beside the largest so far. Negative: as Steihaug, "The
    conjugate gradient method and trust regions in large scale optimization", 1983: then M is no
    covariance, which estimated ones may fail to be. Rounding: M is singular there, and a step
    would be v's part outside its range, divided by nothing. Nothing is read back from the device.

    Args:
        product: p -> M p, sample by sample, p in the dtype of the iterations, and so is u.
        v: (batch, *shape).
        iterations: at least 1.
    """
    eps = torch.finfo(v.dtype).eps
    v = widened(v)
    u, r, p = torch.zeros_like(v), v, v
    square = inner(r, r)
    rounding = square * eps**2
    zero = largest = torch.zeros_like(square)
    for _ in range(iterations):
        q = product(p)
        curvature, length = inner(p, q), inner(p, p)
        largest = torch.maximum(largest, curvature / torch.where(length > 0, length, 1.0))
        going = (curvature > 10 * eps * largest * length) & (square > rounding)
        step = torch.where(going, square / curvature, zero)
        u, r = u + step * p, r - step * q
        following = inner(r, r)
        p = torch.where(going, r + following / square * p, p)
        square = following
    return u


def _all(done: Tensor, count: int) -> bool:
    """Whether all are done; asked seldom of a device that would have to be waited for."""
    return (done.device.type == "cpu" or count % 16 == 0) and bool(done.all())


def _check(gamma: Tensor, enough: Tensor, most: int, tolerance: float) -> None:
    late = ~(gamma <= enough)  # so that NaN is late too
    if bool(late.any()):
        worst = float((gamma / enough).max().sqrt()) * tolerance
        raise RuntimeError(
            f"conjugate gradients left a relative residual of {worst:.2g} after {most} iterations, "
            f"and {tolerance:.0e} is asked for, for {int(late.sum())} of {len(gamma)} samples: the "
            "operator is badly conditioned for so little noise in the measurement (b of "
            "a A A^T + b I), or not linear. Have its singular vectors found, once: "
            "operator.decomposed = the count of its measured numbers; or give more noise"
        )
