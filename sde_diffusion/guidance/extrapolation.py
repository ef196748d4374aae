r"""A line through two denoisers: d = d_1 + w (d_0 - d_1), which is d_0 at w = 1 and d_1 at w = 0.

In scores it is s_1 + w (s_0 - s_1), since a score is an affine function of d whose constant part is
the same for both; likewise for noise, velocity and flow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..scalar import Scalar
from ..states import along
from .guided import Guided, Rule, alone
from .scales import GuidanceScale, checked_scale, scale_at


class Extrapolation(Guided):
    """d = d_1 + w (d_0 - d_1); where w is 1 or 0, one of the two alone is asked.

    Args:
        first: d_0.
        second: d_1.
        scale: w, a number, or a function of t.
        name: of the guidance.

    Raises:
        TypeError, ValueError: as `Guided`; a scale that is no number, not finite.
    """

    shown = ("scale",)

    def __init__(
        self, first: Denoiser, second: Denoiser, scale: GuidanceScale, name: str = "Extrapolation"
    ) -> None:
        super().__init__(first, second)
        self.scale, self._name = checked_scale(scale), name

    @property
    def name(self) -> str:
        return self._name

    def rule(self, t: Scalar) -> Rule:
        w = scale_at(self.scale, t)
        if isinstance(w, Tensor):
            return Rule((0, 1), lambda x, d_0, d_1: torch.lerp(d_1, d_0, along(w, x)))
        if w in (0, 1):
            return alone(1 - int(w))
        return Rule((0, 1), lambda x, d_0, d_1: torch.lerp(d_1, d_0, w))
