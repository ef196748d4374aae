r"""Autoguidance: away from a worse version of the same model, d = d_b + w (d_g - d_b).

The bad one is smaller, less trained, or both, and makes the errors of the good one, larger: what
points away from them sharpens the samples without moving them towards one condition.
"""

from __future__ import annotations

from ..denoise import Denoiser
from .classifier_free import same_question
from .extrapolation import Extrapolation
from .guided import Guided, check_denoisers
from .scales import GuidanceScale


def autoguidance(good: Denoiser, bad: Denoiser, *, scale: GuidanceScale) -> Guided:
    """Guidance by a bad version of the model, d = d_b + w (d_g - d_b).

    Karras et al., "Guiding a diffusion model with a bad version of itself", 2024,
    arXiv:2406.02507.

    Args:
        good: d_g; w = 1 is it alone.
        bad: d_b, under the same condition, for the same schedule.
        scale: w, a number, or a function of t.

    Raises:
        TypeError, ValueError: as `classifier_free`; the same denoiser twice.
    """
    check_denoisers(good, bad)
    if same_question(good, bad):
        raise ValueError("good and bad are one denoiser: give a worse version of it as bad")
    return Extrapolation(good, bad, scale, "autoguidance")
