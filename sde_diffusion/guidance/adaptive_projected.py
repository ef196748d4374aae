r"""Adaptive projected guidance: of the step d_c - d_u, less along d_c than across it.

With b the momentum, r the threshold and eta the weight of the parallel part, at each call

    delta <- (d_c - d_u) + b delta_before
    delta <- delta min(1, r / |delta|)
    delta = delta_par + delta_orth,      delta_par = <delta, d_c> d_c / |d_c|^2
    d = d_c + (w - 1) (delta_orth + eta delta_par).

Norms and products are over all numbers of one sample. With b = 0, r = inf and eta = 1 it is
classifier-free guidance. Sadat, Hilliges & Weber, "Eliminating oversaturation and artifacts of high
guidance scales in diffusion models", 2024, arXiv:2410.02416.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ..counts import checked_number
from ..denoise import Denoiser
from ..scalar import Scalar
from ..states import along, inner
from .classifier_free import pair
from .guided import Guided, Rule, alone
from .scales import GuidanceScale, checked_scale, scale_at


class AdaptiveProjected(Guided):
    """See `adaptive_projected`."""

    shown = ("scale", "eta", "norm_threshold", "momentum")

    def __init__(
        self,
        conditional: Denoiser,
        unconditional: Denoiser,
        scale: GuidanceScale,
        eta: float,
        norm_threshold: float,
        momentum: float,
    ) -> None:
        super().__init__(conditional, unconditional)
        self.scale = checked_scale(scale)
        eta = checked_number(eta, "eta")
        norm_threshold = checked_number(norm_threshold, "norm_threshold")
        momentum = checked_number(momentum, "momentum")
        if not math.isfinite(eta):
            raise ValueError(f"eta = {eta} must be finite")
        if not norm_threshold > 0:
            raise ValueError(
                f"norm_threshold = {norm_threshold} must be positive; math.inf is no threshold "
                "(for no guidance use the conditional model, or scale=1)"
            )
        if not abs(momentum) < 1:
            raise ValueError(
                f"momentum = {momentum} must lie between -1 and 1, or the sum of what went before "
                "grows without end; the paper takes -0.5"
            )
        self.eta, self.norm_threshold, self.momentum = eta, norm_threshold, momentum

    def rule(self, t: Scalar) -> Rule:
        if self.momentum:
            raise ValueError(
                f"momentum = {self.momentum:g} adds up d_c - d_u from call to call of one run, and "
                "here calls are asked one by one, at any time and in any order (an ODE package, an "
                "adaptive or a parallel run): use a plan with run or sample, or momentum=0"
            )
        return self._rule(t, None)

    def rules(self, times: Sequence[float]) -> list[Rule]:
        memory = _Sum(self.momentum) if self.momentum else None  # of this run
        return [self._rule(t, memory) for t in times]

    def _rule(self, t: Scalar, memory: _Sum | None) -> Rule:
        more = scale_at(self.scale, t) - 1
        if memory is None and not isinstance(more, Tensor) and more == 0:
            return alone(0)

        def combine(x: Tensor, d_c: Tensor, d_u: Tensor) -> Tensor:
            delta = d_c - d_u if memory is None else memory.add(d_c - d_u)
            if self.norm_threshold < math.inf:
                delta = delta * (self.norm_threshold / _norm(delta)).clamp(max=1.0)
            step = delta + (self.eta - 1) * project(delta, d_c)
            return d_c + along(more, x) * step

        return Rule((0, 1), combine)


class _Sum:
    """delta + b (delta_before + b (..)), over the calls of one run."""

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.value: Tensor | None = None

    def add(self, delta: Tensor) -> Tensor:
        self.value = delta if self.value is None else delta + self.momentum * self.value
        return self.value


def adaptive_projected(
    conditional: Denoiser,
    unconditional: Denoiser | None = None,
    *,
    scale: GuidanceScale,
    eta: float = 0.0,
    norm_threshold: float = math.inf,
    momentum: float = 0.0,
) -> Guided:
    """Classifier-free guidance whose step is projected, bounded and remembered (APG).

        d = d_c + (w - 1) (delta_orth + eta delta_par),   delta = d_c - d_u,

    delta_par along d_c. Sadat, Hilliges & Weber, 2024, arXiv:2410.02416. Two evaluations a
    step, in one call; one at w = 1.
    The part along d_c is what saturates images: it makes them larger. What is along depends on
    where 0 lies: data should be centred. Diffusers' AdaptiveProjectedGuidance begins at d_u with w
    unless `use_original_formulation` is set, which with eta other than 1, a threshold or momentum
    is another guidance; with it set, its guidance_scale is w - 1. Its None is momentum = 0.

    Args:
        conditional, unconditional: as for `classifier_free`.
        scale: w, a number, or a function of t; 1 is the conditional model.
        eta: weight of the parallel part; 0 in the paper, 1 for classifier-free guidance.
        norm_threshold: r > 0, the largest norm of delta, over all numbers of a sample; it grows
            with the root of their number. The paper has 2.5 to 15, by model.
        momentum: b in (-1, 1), of what calls before this one gave; -0.5 in the paper ("reverse").
            It counts calls, the stages inside a step too, so that the result depends on the number
            of steps. It lives in one run: a plan with `run` or `sample`. With it d is no
            function of the state alone: take a plan of low order, `ddim` or `dpm_solver_pp_2m`, as
            the default extrapolates further back and may go astray.

    Raises:
        TypeError, ValueError: as `classifier_free`; a number out of range; when asked outside a run
            with momentum.
    """
    return AdaptiveProjected(
        *pair(conditional, unconditional), scale, eta, norm_threshold, momentum
    )


def project(delta: Tensor, onto: Tensor) -> Tensor:
    """The part of delta along `onto`, sample by sample; 0 where that is 0."""
    norm = _norm(onto)
    unit = onto / norm.where(norm > 0, 1.0)
    return unit * inner(delta, unit)


def _norm(a: Tensor) -> Tensor:
    return inner(a, a).sqrt()
