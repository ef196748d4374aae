r"""How far a plan's samples are from the teacher's: a robust sum over samples.

    L = mean over samples of rho(|r|^2),     r = residual(states of the sample, its pair)

rho(s) = s is the mean square. Between modes paths part: a sample that ends in another mode has a
residual of order 1 that no small change of the numbers mends, and a mean square is a count of
these. A rho that grows slower than s weighs them down (Huber, "Robust statistics", 1981).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .pairs import Pairs

Residual = Callable[[Tensor, Tensor, Pairs], Tensor]
"""(states at the grid points (g, batch, *event), their times (g,), pairs) -> (batch, m)."""


@dataclass(frozen=True)
class Loss:
    """mean rho(|r|^2) with rho(s) = c^2 log(1 + s/c^2); c = infinity is rho(s) = s.

    Attributes:
        name: for people and for the record of a tuned plan.
        residual: states, times, pairs -> r, differentiable.
        scale: c > 0, in units of |r|: samples with |r| beyond it count little.
    """

    name: str
    residual: Residual
    scale: float = float("inf")

    def penalty(self, squares: Tensor) -> Tensor:
        """rho(s), (batch,)."""
        if self.scale == float("inf"):
            return squares
        return self.scale**2 * (squares / self.scale**2).log1p()

    def weight(self, squares: Tensor) -> Tensor:
        """rho'(s), (batch,): what a sample counts in least squares."""
        return 1 / (1 + squares / self.scale**2)


def relative_ends(states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
    """(x - x*)/|x*| of the last state, (batch, D)."""
    ends = pairs.ends.to(states).flatten(1)
    return (states[-1].flatten(1) - ends) / ends.norm(dim=1, keepdim=True)


def endpoint(scale: float = float("inf")) -> Loss:
    """The relative error of the last state."""
    return Loss("endpoint", relative_ends, scale)
