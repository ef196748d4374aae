r"""How far a plan's samples are from the teacher's: a robust sum over samples.

    L = mean over samples of w rho(|r|^2),     r = residual(states of the sample, its pair),

w the weights of the pairs, where they have such: 1 as a rule.

rho(s) = s is the mean square. Between modes paths part: a sample that ends in another mode has a
residual of order 1 that no small change of the numbers mends, and a mean square is a count of
these. A rho that grows slower than s weighs them down, at most as

    rho(s) = c^2 log(1 + s/c^2) + b s,     rho'(s) = 1/(1 + s/c^2) + b,

s below c^2. With b = 0 it is Cauchy's (Huber, "Robust statistics", 1981; Barron, "A general and
adaptive robust loss function", 2019, arXiv:1701.03077): one far off hardly counts at all, and so
nothing keeps samples out of other modes. With b > 0 the sum makes both small, the usual error by
its logarithm and the mean square by itself, and little of the effort goes to errors between, which
neither figure counts.

What is compared: the end of a path (`endpoint`), all its grid points (`trajectory`), or what a
function of one's own makes of the end (`features`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..scalar import atan2
from ..schedule import Schedule
from ..states import flat
from .pairs import Pairs

_LEAST = 1e-9  # relative errors are rounding below

Residual = Callable[[Tensor, Tensor, Pairs], Tensor]
"""(states at the grid points (g, batch, *event), their times (g,), pairs) -> (batch, m)."""


@dataclass(frozen=True)
class Loss:
    """mean rho(|r|^2), rho as above; c = infinity is rho(s) = s.

    Attributes:
        name: for people and for the record of a tuned plan.
        residual: states, times, pairs -> r, differentiable.
        scale: c > 0, in units of |r|: samples with |r| beyond it count little.
        share: b >= 0, what the square counts all the same.
    """

    name: str
    residual: Residual
    scale: float = float("inf")
    share: float = 0.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(
                f"scale = {self.scale} must be positive: the size of a residual beyond which a "
                "sample counts little (inf: all count alike)"
            )
        if not 0 <= self.share < float("inf"):
            raise ValueError(f"share = {self.share}: what the square counts, at least 0 and finite")

    def __str__(self) -> str:
        if math.isinf(self.scale):
            return self.name
        share = f", {self.share:g}" if self.share else ""
        return f"{self.name}({self.scale:g}{share})"

    def values(self, states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
        """w rho(|r|^2) of each sample, w its weight; float64, (batch,)."""
        squares = self.residual(states, times, pairs).double().square().sum(1)
        return pairs.weighed(self.penalty(squares))

    def penalty(self, squares: Tensor) -> Tensor:
        """rho(s), (batch,)."""
        if self.scale == float("inf"):
            return squares
        return self.scale**2 * (squares / self.scale**2).log1p() + self.share * squares

    def weight(self, squares: Tensor) -> Tensor:
        """rho'(s), (batch,): what a sample counts in least squares."""
        return 1 / (1 + squares / self.scale**2) + (self.share if self.scale < float("inf") else 0)


def check_ends(loss: Loss, pairs: Pairs) -> None:
    """Refuse an end x* = 0 where the loss divides by |x*|."""
    if loss.residual is not relative_ends:
        return
    zero = (flat(pairs.ends) == 0).all(1)
    if bool(zero.any()):
        raise ValueError(
            f"the end of start {int(zero.nonzero()[0])} of {len(pairs)} is 0, and loss = "
            f"{loss.name!r} is relative to the ends: leave that start out, or give a Loss of your "
            "own, such as features(lambda x: x)"
        )


def relative_ends(states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
    """(x - x*)/|x*| of the last state, (batch, D)."""
    ends = flat(pairs.ends.to(states))
    return (flat(states[-1]) - ends) / ends.norm(dim=1, keepdim=True)


def endpoint(scale: float = float("inf"), share: float = 0.0) -> Loss:
    """The relative error of the last state.

    Args:
        scale: c of `Loss`; `tune` takes that of `balanced`.
        share: b of `Loss`.
    """
    return Loss("endpoint", relative_ends, scale, share)


class Usual(Protocol):
    """The errors of what is to be bettered, |r| over samples: `measure.Errors`."""

    @property
    def rms(self) -> float:
        """Root mean square."""

    @property
    def median(self) -> float:
        """Half of the samples have less."""


def balanced(usual: Usual) -> Loss:
    """The endpoint loss for a fit that begins with the mean square: both RMS and median fall.

    rho(s)/c^2 = log(1 + s/c^2) + 100 s/rms^2,   c = 0.03 median. Where the errors are no numbers,
    the mean square.

    Args:
        usual: errors of what is to be bettered.
    """
    if not (math.isfinite(usual.rms) and math.isfinite(usual.median)):
        return endpoint()
    scale = max(0.03 * usual.median, _LEAST)
    return endpoint(scale, 100 * (scale / max(usual.rms, _LEAST)) ** 2)


def robust(usual: Usual) -> Loss:
    """The endpoint loss for a fit that begins far from its end: c = 3 median, b = 0.02.

    Where the errors are no numbers, the mean square.

    Args:
        usual: errors of what is to be bettered.
    """
    if not math.isfinite(usual.median):
        return endpoint()
    return endpoint(max(3 * usual.median, _LEAST), 0.02)


def trajectory(schedule: Schedule, scale: float = float("inf")) -> Loss:
    """The relative error of every state at a grid point but the first: its mean square.

    r = (x_g - x*(t_g)) / (|x*(t_g)| sqrt(G)), g = 1 .. G. Where the plan's times are no times of
    the teacher's path, or move, the path is interpolated: see `path_at`.

    Args:
        schedule: alpha_t, sigma_t, of the plan and the pairs.
        scale: c of `Loss`.

    Raises:
        ValueError: when asked about pairs without a path.
    """

    def residual(states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
        path = path_at(schedule, pairs, times[1:]).to(states)
        gap, path = ((x.reshape(*x.shape[:2], -1)) for x in (states[1:] - path, path))
        error = gap / path.norm(dim=2, keepdim=True)
        return error.transpose(0, 1).flatten(1) / len(path) ** 0.5

    return Loss("trajectory", residual, scale)


def features(
    function: Callable[[Tensor], Tensor], scale: float = float("inf"), name: str = "features"
) -> Loss:
    """The difference of a function of the ends, r = f(x) - f(x*), in the function's own units.

    Args:
        function: differentiable, (batch, *event) -> (batch, ...), such as a classifier's layer.
        scale: c of `Loss`, in units of f.
        name: for the record of a tuned plan.
    """

    def residual(states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
        with torch.no_grad():
            wanted = function(pairs.ends.to(states))
        return flat(function(states[-1]) - wanted)

    return Loss(name, residual, scale)


def path_at(schedule: Schedule, pairs: Pairs, times: Tensor) -> Tensor:
    """The teacher's path at any times, (g, n, *event), differentiable in them.

    x/hypot(alpha, sigma) is interpolated by the cubic in theta = arctan(sigma/alpha) through the
    four times of the path nearest around: in these coordinates a path is smooth at both ends.

    Raises:
        ValueError: if the pairs hold no path, or times lie outside it.
    """
    if pairs.times is None or pairs.states is None:
        raise ValueError(
            "these pairs hold the ends of the teacher's paths only; a trajectory loss needs pairs "
            "with times and states"
        )
    known, size = _polar(schedule, pairs.times)
    theta, size_at = _polar(schedule, times.to(pairs.times))
    beyond = (theta > known[0] + 1e-9) | (theta < known[-1] - 1e-9)
    if bool(beyond.any()):
        raise ValueError(
            f"t = {float(times[beyond][0]):.6g} lies outside the teacher's path, "
            f"{float(pairs.times[0]):.6g} to {float(pairs.times[-1]):.6g}"
        )
    width = min(4, len(known))
    right = torch.searchsorted(-known, -theta.detach())
    first = (right - width // 2).clamp(0, len(known) - width)
    nodes = first[:, None] + torch.arange(width, device=first.device)
    weights = _lagrange(theta, known[nodes]) / size[nodes] * size_at[:, None]
    columns = [1] * (pairs.states.ndim - 1)
    at = zip(weights.unbind(1), nodes.unbind(1), strict=True)
    path = sum(w.reshape(-1, *columns).to(pairs.states) * pairs.states[k.to("cpu")] for w, k in at)
    return torch.as_tensor(path)


def _polar(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """(theta, hypot(alpha, sigma)) at some times.

    As in `check_grid`, a time at which alpha or sigma is 0 stays where it is, without a gradient:
    sigma may begin like sqrt(t) there.
    """
    alpha_t, sigma_t = (torch.as_tensor(v, dtype=t.dtype) for v in schedule(t.detach()))
    theta, size = torch.as_tensor(atan2(sigma_t, alpha_t)), torch.hypot(alpha_t, sigma_t)
    end = (alpha_t == 0) | (sigma_t == 0)
    inside = torch.where(end, t.new_tensor((schedule.t_min + schedule.t_max) / 2), t)
    alpha_t, sigma_t = (torch.as_tensor(v, dtype=t.dtype) for v in schedule(inside))
    moving = torch.as_tensor(atan2(sigma_t, alpha_t)), torch.hypot(alpha_t, sigma_t)
    return torch.where(end, theta, moving[0]), torch.where(end, size, moving[1])


def _lagrange(at: Tensor, nodes: Tensor) -> Tensor:
    """The Lagrange polynomials of nodes (g, w) at the points (g,), (g, w)."""
    columns = []
    for j in range(nodes.shape[1]):
        others = [k for k in range(nodes.shape[1]) if k != j]
        gaps = nodes[:, j : j + 1] - nodes[:, others]
        columns.append(((at[:, None] - nodes[:, others]) / gaps).prod(1))
    return torch.stack(columns, 1)
