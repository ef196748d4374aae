r"""Feynman-Kac steering: rewards of x_0, without their gradients.

The target is p(x_0) exp(lambda r(x_0)) / Z. On the way the reward is asked of d = E[x_0 | x_t] at
grid points 1, .., k, r_i = r(d_i), and weighs a particle by the product of potentials G_i:

    "difference"  G_i = exp(lambda (r_i - r_{i-1}))        the product is exp(lambda r_k)
    "max"         G_i = exp(lambda max_{j <= i} r_j)
    "sum"         G_i = exp(lambda sum_{j <= i} r_j)

and at the end by exp(lambda r(x_0)) / prod_i G_i, so that all have the same target. "max" and
"sum" draw towards it earlier and harder, and must take more back at the end: of k grid points each
multiplies by the tilt exp(lambda r) again, so that on the way its power is about k with "max" and
k^2/2 with "sum". They are for few points, and need to be told which.

A point d in place of the law of x_0 | x_t takes narrow rewards for narrower than they are there,
and selects before there is anything to select by. For r = -c |x - m|^2/2 and x_0 | x_t ~
N(d, q_t I),

    log E[exp(r(x_0)) | x_t] = r(d)/(1 + c q_t) + const,     q_t = sigma^2/(alpha^2 + sigma^2)

(the q_t of data of variance 1), so a reward of curvature c is tempered to lambda/(1 + c q_t) on
the way. The target is the same, whatever c.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Unpack

import numpy as np
from torch import Tensor

from ..denoise import Denoiser
from ..guidance.guided import check_same_schedule
from ..inverse.posterior import check_setting, remaining
from ..names import look_up
from ..plan import Plan
from .engine import Options, check_populations, run_particles
from .guide import Guide, Seen
from .result import Population

Reward = Callable[[Tensor], Tensor]
"""r: x_0 (n, *event) -> (n,)."""

GROWING = ("max", "sum")  # whose products grow with the number of grid points

Potential = Callable[[Tensor], Tensor]
"""lambda r_1 .. lambda r_i of each particle, (.., i), -> log prod_{j <= i} G_j, (..)."""

POTENTIALS: dict[str, Potential] = {
    "difference": lambda rewards: rewards[..., -1],
    "max": lambda rewards: rewards.cummax(-1).values.sum(-1),
    "sum": lambda rewards: rewards.cumsum(-1).sum(-1),
}


def steer(
    plan: Plan,
    denoiser: Denoiser,
    reward: Reward,
    shape: Sequence[int],
    *,
    scale: float = 1.0,
    curvature: float = 0.0,
    potential: str | Potential = "difference",
    at: Sequence[int] | Tensor | None = None,
    proposal: Denoiser | None = None,
    **options: Unpack[Options],
) -> Population:
    """Samples of p(x_0) exp(lambda r(x_0)) / Z by Feynman-Kac steering, without gradients.

    Singhal et al., "A general framework for inference-time scaling and steering of diffusion
    models", 2025, arXiv:2501.06848.

    Args:
        plan: a plan that draws noise.
        denoiser: the model.
        reward: r, (n, *event) -> (n,); before the end it is asked of d and must be finite; at the
            end -inf says that a result is impossible.
        shape: (populations, K, *event).
        scale: lambda; negative: away from the reward.
        curvature: c >= 0, about the largest second derivative of -lambda r, by which it is tempered
            on the way: 1/sigma_y^2 where r is the log-likelihood of a measurement with that noise;
            0: as published. A narrow reward without it needs very many particles.
        potential: a name of `POTENTIALS`, or a `Potential`; "max" and "sum" need `at`, few points.
        at: numbers of the grid points where particles are weighed, 0 (noisy) .. ; default: all.
        proposal: a denoiser to follow in place of the model (guided, say), asked beside it at
            every grid point; the weights make up for it, so the target stays the same. It must tend
            to the model's d as sigma -> 0, where steps have too little noise to make up for a
            difference; one that does not shows in a small `ess` at the last points and in
            `log_evidence` that differs between populations.
        options: resampling, threshold, seed, start, dtype, device, batch, progress: see `Options`.

    Returns:
        The weighted particles; `log_evidence` is log E[exp(lambda r(x_0))] under the model.

    Raises:
        TypeError, ValueError, FloatingPointError: as `run_particles`; an unknown potential; grid
            points that the plan does not have, or none given for "max" and "sum"; a proposal of
            another schedule; rewards that are complex, of a wrong shape or not finite.
    """
    guide = SteeringGuide(denoiser, reward, scale, curvature, potential, at, proposal)
    if guide.at is not None and isinstance(plan, Plan):
        steps = sum(row.on_grid for row in plan.rows) - 1
        wrong = [i for i in sorted(guide.at) if not 0 <= i < steps]
        if wrong:
            raise ValueError(f"at has {wrong[0]}: the plan's grid points are 0 .. {steps - 1}")
    return run_particles(plan, guide, shape, **options)


class SteeringGuide(Guide):
    """Weighs by rewards of d; proposes from the model or from another denoiser.

    Args:
        denoiser, reward, scale, curvature, potential, at, proposal: see `steer`.

    Raises:
        TypeError, ValueError: a reward that is no function, a scale that is not finite, a negative
            curvature, an unknown potential, a proposal that is no Denoiser or is of another
            schedule.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        reward: Reward,
        scale: float = 1.0,
        curvature: float = 0.0,
        potential: str | Potential = "difference",
        at: Sequence[int] | Tensor | None = None,
        proposal: Denoiser | None = None,
    ) -> None:
        if not callable(reward):
            raise TypeError(f"reward = {reward!r} must be a function (n, *event) -> (n,)")
        number = isinstance(scale, int | float) and not isinstance(scale, bool)
        if not number or not math.isfinite(scale):
            raise ValueError(f"scale = {scale!r} must be a finite number")
        check_setting("curvature", curvature, finite=True)
        if proposal is not None and not isinstance(proposal, Denoiser):
            raise TypeError(f"proposal must be a Denoiser, not {type(proposal).__name__}")
        if proposal is not None and isinstance(denoiser, Denoiser):
            check_same_schedule(denoiser.schedule, proposal.schedule)
        self.denoiser, self.reward, self.scale = denoiser, reward, float(scale)
        self.curvature = float(curvature)
        self.potential = (
            potential if callable(potential) else look_up("potential", potential, POTENTIALS)
        )
        if at is None and not callable(potential) and potential in GROWING:
            raise ValueError(
                f"potential = {potential!r} multiplies by the tilt again at every grid point where "
                "particles are weighed, and must take it all back at the end: say at which few, "
                "as at=[10, 20, 30], or take 'difference'"
            )
        self.at = None if at is None else _points(at)
        self.proposal = proposal

    def see(self, x: Tensor, t: float, index: int, who: Tensor) -> Seen:
        d = self.denoiser.select(who)(x, t)
        push = None if self.proposal is None else self.proposal.select(who)(x, t) - d
        if self.at is not None and index not in self.at:
            return Seen(d, push)
        left = remaining(1.0, *map(float, self.denoiser.schedule(t)))
        return Seen(d, push, self._reward(d) / (1 + self.curvature * left))

    def end(self, x: Tensor, who: Tensor) -> Tensor:
        return self._reward(x)

    def log_potential(self, values: Tensor) -> Tensor:
        return self.potential(values)

    def check(self, populations: int, event_shape: tuple[int, ...]) -> None:
        if self.proposal is not None:
            check_populations(self.proposal, populations)

    def _reward(self, x_0: Tensor) -> Tensor:
        rewards = self.reward(x_0)
        if not isinstance(rewards, Tensor) or rewards.shape != x_0.shape[:1]:
            given = tuple(rewards.shape) if isinstance(rewards, Tensor) else type(rewards).__name__
            raise ValueError(
                f"the reward returned {given} for {len(x_0)} particles; it must return one number "
                f"for each, shape ({len(x_0)},)"
            )
        if rewards.is_complex():
            raise ValueError(
                f"the reward returned {rewards.dtype}; it must be real: of numbers c take c.real "
                "or c.abs()"
            )
        if not rewards.is_floating_point():
            rewards = rewards.to(x_0.dtype)
        return self.scale * rewards


def _points(at: Sequence[int] | Tensor) -> frozenset[int]:
    """Numbers of grid points, as integers."""
    given = at.tolist() if isinstance(at, Tensor) else at
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise TypeError(f"at = {at!r} must be a list of numbers of grid points: at=[{at}]")
    points = list(given)
    for i in points:
        if isinstance(i, bool) or not isinstance(i, int | np.integer):
            raise ValueError(
                f"at has {i!r}: the number of a grid point is an integer, 0 (noisy) .."
            )
    return frozenset(int(i) for i in points)
