r"""Several conditions, some of them negative: d = d_u + sum_i w_i (d_i - d_u).

In scores: grad log p_t(x) + sum_i w_i grad log p_t(y_i | x), the product of experts at each t; with
w_i = 1 and conditions independent given x_t, the score under all of them. As for one condition, the
densities over t are not those of one noised law.

A negative condition is one with w_i < 0. That is not the same as the "negative prompt" of image
generators, which stands in the place of the unconditional denoiser:
`classifier_free(positive, negative, scale=w)`, d = d_n + w (d_p - d_n).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..denoise import Denoiser
from ..scalar import Scalar
from ..states import along
from .classifier_free import pair
from .guided import Guided, Rule, alone
from .scales import GuidanceScale, checked_scale, scale_at


class Composed(Guided):
    """d = d_u + sum_i w_i (d_i - d_u); what has the factor 0 is not asked.

    Args:
        conditionals: d_i.
        unconditional: d_u.
        scales: w_i, each a number or a function of t.
    """

    shown = ("scales",)

    def __init__(
        self,
        conditionals: Sequence[Denoiser],
        unconditional: Denoiser,
        scales: Sequence[GuidanceScale],
    ) -> None:
        super().__init__(*conditionals, unconditional)
        self.scales = [checked_scale(scale, f"scales[{i}]") for i, scale in enumerate(scales)]

    def unguided(self) -> Denoiser:
        if len(self.scales) > 1:
            raise ValueError(
                f"of {len(self.scales)} conditions none stands alone where there is no guidance: "
                "let the scales be functions of t, which are 1/n outside an interval"
            )
        return super().unguided()

    def rule(self, t: Scalar) -> Rule:
        w = [scale_at(scale, t, f"scales[{i}]") for i, scale in enumerate(self.scales)]
        numbers = [w_i for w_i in w if not isinstance(w_i, Tensor)]
        rest: Scalar = 1 - sum(w)
        if not isinstance(rest, Tensor) and abs(rest) < 1e-15 * (1 + sum(map(abs, numbers))):
            rest = 0.0  # but for rounding
        factors = [*w, rest]
        asked = [(i, c) for i, c in enumerate(factors) if isinstance(c, Tensor) or c != 0]
        if len(asked) == 1 and not isinstance(asked[0][1], Tensor) and asked[0][1] == 1:
            return alone(asked[0][0])

        def combine(x: Tensor, *answers: Tensor) -> Tensor:
            total = torch.zeros_like(x)
            for (_, c), d in zip(asked, answers, strict=True):
                total = total + along(c, x) * d if isinstance(c, Tensor) else total.add(d, alpha=c)
            return total

        return Rule(tuple(i for i, _ in asked), combine)


def composed(
    conditionals: Sequence[Denoiser],
    unconditional: Denoiser | None = None,
    *,
    scales: Sequence[GuidanceScale] | Tensor,
) -> Guided:
    """Guidance by several conditions at once, d = d_u + sum_i w_i (d_i - d_u).

    Liu et al., "Compositional visual generation with composable diffusion models", 2022,
    arXiv:2206.01714.

    Args:
        conditionals: d_i, each with its condition bound.
        unconditional: d_u; None: as for `classifier_free`, of the first.
        scales: w_i, as many; below 0 for what is not wanted. With one condition it is
            `classifier_free`.

    Raises:
        TypeError, ValueError: as `classifier_free`; no conditions, or not a scale for each.
    """
    if not isinstance(conditionals, Sequence) or not conditionals:
        raise ValueError("give a list of one conditional denoiser or more")
    if isinstance(scales, Tensor | np.ndarray) and scales.ndim == 1:
        scales = list(scales)
    if not isinstance(scales, Sequence) or len(scales) != len(conditionals):
        given = len(scales) if isinstance(scales, Sequence) else repr(scales)
        raise ValueError(f"scales: {given} for {len(conditionals)} conditions: give one for each")
    _, unconditional = pair(conditionals[0], unconditional)
    for conditional in conditionals[1:]:
        pair(conditional, unconditional)
    return Composed(conditionals, unconditional, scales)
