r"""Guidance in a limited interval of noise levels: d of the guided denoiser where

    low < sigma_t/alpha_t <= high,

and of the conditional one alone elsewhere. At high noise guidance pushes samples to a few modes
before they know where they belong; at low noise it does little. Both ends are spared its cost.

At both ends d jumps. A multistep method keeps its order if it begins anew there
(`transform.afresh`); otherwise it falls to the first, and a high order does worse than a low one.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from ..counts import checked_number
from ..denoise import Denoiser
from ..scalar import Scalar
from .guided import Guided, Rule, alone, check_guided

_ROUNDING = 1e-9


def rounded(end: float) -> float:
    """An end of an interval of noise levels, so that a grid point made from it lies on it."""
    return (1 + _ROUNDING) * end


class OneOfTwo(Guided):
    """One denoiser at some times, another at the others: `branches`, (outside, inside)."""

    @abstractmethod
    def inside(self, t: Scalar) -> bool | Tensor:
        """Whether the second is asked at a time, or at which of several."""

    def rule(self, t: Scalar) -> Rule:
        return alone(int(self.inside(t)))

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        if not (isinstance(t, Tensor) and t.ndim):
            return super().__call__(x, t)
        guided = torch.as_tensor(self.inside(t), device=x.device)
        parts = [side.nonzero()[:, 0] for side in (~guided, guided)]  # each sample asks its own
        for branch, who in zip(self.branches, parts, strict=True):
            if len(who) == len(x):
                return branch(x, t)
        answers = [
            branch.select(who)(x[who], t[who.to(t.device)])
            for branch, who in zip(self.branches, parts, strict=True)
        ]
        return torch.cat(answers)[torch.cat(parts).argsort()]


class LimitedInterval(OneOfTwo):
    """One denoiser at noise levels in (low, high], another elsewhere.

    Args:
        outside, inside: the two.
        low, high: ends of the interval of sigma_t/alpha_t.
    """

    shown = ("low", "high")

    def __init__(self, outside: Denoiser, inside: Denoiser, low: float, high: float) -> None:
        super().__init__(outside, inside)
        self.low, self.high = low, high

    def inside(self, t: Scalar) -> bool | Tensor:
        """Whether a time has a noise level in (low, high], or which of several."""
        rho_t = self.schedule.rho(t)
        return (rho_t > rounded(self.low)) & (rho_t <= rounded(self.high))

    @property
    def jumps(self) -> tuple[float, ...]:
        own = {end for end in (self.low, self.high) if 0 < end < math.inf}
        return tuple(sorted(own.union(super().jumps), reverse=True))


def limited_interval(guided: Guided, low: float, high: float) -> Guided:
    """Guidance at noise levels low < sigma_t/alpha_t <= high alone.

    Kynkaanniemi et al., "Applying guidance in a limited interval improves sample and distribution
    quality in diffusion models", 2024, arXiv:2404.07724.

    d jumps at both ends. From 6 steps on the default of `sample`, where neither solver nor times
    are named, begins anew there (`default_plan(.., jumps=[low, high])`). Other multistep methods of
    high order extrapolate across and may go far astray: run them by
    `transform.afresh(solver, schedule, times, [low, high])`, or take `ddim`, `dpm_solver_pp_2m` or
    a stochastic method of low order.

    Args:
        guided: any guidance: outside, its first branch alone is asked, of classifier-free guidance
            the conditional one, of autoguidance the good one.
        low, high: the interval of sigma_t/alpha_t, 0 <= low < high <= inf; as time:
            `schedule.rho(t)`.

    Raises:
        TypeError: if it is no guided denoiser.
        ValueError: an empty interval; several conditions at once, none of which stands alone;
            thresholding, which comes after it.
    """
    check_guided(guided, "limit")
    if guided.unguided() is not guided.branches[0]:
        raise ValueError(
            f"{type(guided).__name__} lies around a guidance and would fall away outside the "
            "interval; limit that: static_thresholding(limited_interval(classifier_free(...), "
            "low, high))"
        )
    low, high = checked_number(low, "low"), checked_number(high, "high")
    if not 0 <= low < high <= math.inf:
        raise ValueError(
            f"the interval ({low}, {high}] of sigma/alpha is empty or below 0: give 0 <= low < high"
        )
    return LimitedInterval(guided.unguided(), guided, low, high)
