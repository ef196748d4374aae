r"""CFG-Zero*: classifier-free guidance of the flow's velocity, the unconditional one rescaled.

With v = E[eps | x] - E[x_0 | x], the velocity of flow matching, and v_c, v_u the conditional and
the unconditional one,

    s* = <v_c, v_u> / |v_u|^2       the multiple of v_u nearest to v_c, one number a sample,
    v  = s* v_u + w (v_c - s* v_u),
    v  = 0                          in the first steps.

Fan, Zheng, Yeh & Liu, "CFG-Zero*: Improved classifier-free guidance for flow matching models",
2025, arXiv:2503.18886.

On flow matching, alpha = 1 - t and sigma = t, v = dx/dt. On any other schedule this v is the one
that the same denoiser has on flow matching at the same noise level, where y = x/(alpha + sigma),

    (alpha + sigma) d = x - sigma v,

so that the guided law depends on the schedule no more than that of other guidance; with v = 0
a step leaves y where it is. Below, u = sigma v = x - (alpha + sigma) d, finite at both ends.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..counts import checked_number
from ..denoise import Denoiser
from ..scalar import Scalar
from ..states import along, inner
from .classifier_free import pair
from .guided import Guided, Rule, alone
from .scales import GuidanceScale, checked_scale, scale_at


class CFGZeroStar(Guided):
    """See `cfg_zero_star`."""

    shown = ("scale", "zero_above")

    def __init__(
        self,
        conditional: Denoiser,
        unconditional: Denoiser,
        scale: GuidanceScale,
        zero_above: float,
    ) -> None:
        super().__init__(conditional, unconditional)
        self.scale = checked_scale(scale)
        zero_above = checked_number(zero_above, "zero_above")
        if math.isnan(zero_above):
            raise ValueError("zero_above is not a time; leave it out for no zero steps")
        self.zero_above = zero_above
        margin = 1e-9 * (self.schedule.t_max - self.schedule.t_min)
        self._last = zero_above + margin  # a grid point made from the level there lies on it

    @property
    def jumps(self) -> tuple[float, ...]:
        within = self.schedule.t_min < self.zero_above < self.schedule.t_max
        own = {float(self.schedule.rho(self.zero_above))} if within else set()
        return tuple(sorted(own.union(super().jumps), reverse=True))

    def rule(self, t: Scalar) -> Rule:
        alpha_t, sigma_t = self.schedule(t)
        total = alpha_t + sigma_t
        if not isinstance(t, Tensor) and t > self._last:
            return Rule((), lambda x: x / total)
        scale = scale_at(self.scale, t)
        if not isinstance(t, Tensor) and scale == 1:
            return alone(0)

        def combine(x: Tensor, d_c: Tensor, d_u: Tensor) -> Tensor:
            r = along(total, x)
            u_c, u_u = x - r * d_c, x - r * d_u
            w = along(scale, x)
            u = w * u_c + (1 - w) * optimised_scale(u_c, u_u) * u_u
            if isinstance(t, Tensor):
                u = u * along((t <= self._last).to(u), x)
            return (x - u) / r

        return Rule((0, 1), combine)


def cfg_zero_star(
    conditional: Denoiser,
    unconditional: Denoiser | None = None,
    *,
    scale: GuidanceScale,
    zero_above: float = math.inf,
) -> Guided:
    """Classifier-free guidance with the unconditional velocity rescaled to fit, and a still start.

        v = s* v_u + w (v_c - s* v_u),   s* = <v_c, v_u> / |v_u|^2,   v = E[eps | x] - E[x_0 | x];
        v = 0 at times t > zero_above.

    Fan, Zheng, Yeh & Liu, "CFG-Zero*", 2025, arXiv:2503.18886. Two evaluations a step, in
    one call; one at w = 1, none where v = 0. The samples have no law in closed form; with w = 1 and
    no zero steps they are the conditional model's.

    Args:
        conditional, unconditional: as for `classifier_free`.
        scale: w, a number, or a function of t; 1 is the conditional model.
        zero_above: the time above which v = 0. For the first K steps of a grid:
            `zero_above=times[K]` (the paper: the first 4 percent of the steps, or one). d jumps
            there: see `limited_interval`.

    Raises:
        TypeError, ValueError: as `classifier_free`; zero_above not a number.
    """
    return CFGZeroStar(*pair(conditional, unconditional), scale, zero_above)


def optimised_scale(v_c: Tensor, v_u: Tensor) -> Tensor:
    """s* = <v_c, v_u> / |v_u|^2 for each sample, (batch, 1, .., 1); 0 where v_u = 0."""
    norm = inner(v_u, v_u)
    return torch.where(norm > 0, inner(v_c, v_u) / norm.where(norm > 0, 1.0), 0.0)
