r"""Classifier-free guidance: away from the unconditional denoiser, beyond the conditional one.

    d = d_u + w (d_c - d_u),        s = (1 - w) grad log p_t(x) + w grad log p_t(x | y).

At w = 1 that is the conditional model, at w = 0 the unconditional one. At each t the score is that
of p_t(x) p_t(y | x)^w, but these densities, over t, are not those of one noised law: for w other
than 0 and 1 what a sampler draws is not the tilted law p(x_0) p(y | x_0)^w. Between normal laws
N(0, 1) and N(m, s^2) it is known: the ODE ends with deviation s^w, the reverse SDE with another,

    s^(4w) int_0^inf (1 + u)^(2w - 2) (s^2 + u)^(-2w) du     (its square),

and the tilted law has 1/sqrt(1 - w + w/s^2). For s = 1/2 and w = 3 these are 0.125, 0.258, 0.316.
With s = 1 all agree: guidance is exact between normal laws of one covariance.

The scale has as many conventions as packages:

    here, diffusers (guidance_scale), ComfyUI (cfg), around k-diffusion (cond_scale)   w
    Ho & Salimans 2022 (w), azula (CFGDenoiser: guidance)                              w - 1
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..denoise import Denoiser, NetworkDenoiser
from .branches import asked_alike, of_this_library
from .extrapolation import Extrapolation
from .guided import Guided, check_denoisers
from .scales import GuidanceScale


def classifier_free(
    conditional: Denoiser, unconditional: Denoiser | None = None, *, scale: GuidanceScale
) -> Guided:
    """Classifier-free guidance, d = d_u + w (d_c - d_u).

    Ho & Salimans, "Classifier-free diffusion guidance", 2022, arXiv:2207.12598 (whose w is w - 1
    here).

    Args:
        conditional: d_c, with its condition bound: `denoiser.given(labels)`.
        unconditional: d_u: the same with the null condition, with a negative one (a negative
            prompt), or another model. None: the network of the conditional one without its
            condition, for networks of this library (trained with drop > 0).
        scale: w, a number, or a function of t; where it is 1 or 0 only one of the two is asked.

    Raises:
        TypeError: branches that are no Denoisers; a scale that is no number.
        ValueError: no condition; another package's network without the unconditional one; other
            schedules; a scale that is not finite.
    """
    return Extrapolation(*pair(conditional, unconditional), scale, "classifier_free")


def pair(conditional: Denoiser, unconditional: Denoiser | None) -> tuple[Denoiser, Denoiser]:
    """The conditional denoiser and the unconditional one, if guidance between them is any.

    Raises:
        TypeError, ValueError: as `classifier_free`.
    """
    if unconditional is None:
        return conditional, without_condition(conditional)
    check_denoisers(conditional, unconditional)
    if same_question(conditional, unconditional):
        raise ValueError(
            "guidance without a condition: both denoisers are the same network under the same "
            "condition, so that no scale has an effect; bind one: denoiser.given(labels)"
        )
    return conditional, unconditional


def without_condition(conditional: Denoiser) -> Denoiser:
    """The same network without its condition.

    Raises:
        TypeError: if it is no NetworkDenoiser.
        ValueError: if it has no condition, or the network is another package's.
    """
    check_denoisers(conditional)
    if not isinstance(conditional, NetworkDenoiser):
        raise TypeError(
            f"of a {type(conditional).__name__} it is not known how to leave the condition out: "
            "give the unconditional denoiser too"
        )
    if not effective(conditional):
        raise ValueError(
            "guidance without a condition: none is bound to the denoiser; bind one, "
            "denoiser.given(labels), or give the unconditional denoiser too"
        )
    if not of_this_library(conditional):
        raise ValueError(
            f"how {type(conditional.network).__name__} is asked without a condition is not known: "
            "give the unconditional denoiser too, as denoiser.given(null_embedding)"
        )
    return conditional.given()


def same_question(a: Denoiser, b: Denoiser) -> bool:
    """Whether two denoisers are one, or one network under the very same condition."""
    if a is b:
        return True
    if not (isinstance(a, NetworkDenoiser) and isinstance(b, NetworkDenoiser)):
        return False
    told = [effective(denoiser) for denoiser in (a, b)]
    alike = type(a) is type(b) and asked_alike(a, b) and len(told[0]) == len(told[1])
    return alike and all(map(_equal, *told))


def effective(denoiser: NetworkDenoiser) -> tuple[Any, ...]:
    """Its condition, without what tells the network nothing."""
    told = list(denoiser.condition)
    if of_this_library(denoiser) and len(told) == 2 and isinstance(told[1], Tensor):
        if bool(told[1].all()):  # (context, drop), and dropped for all
            return ()
        if not bool(told[1].any()):
            del told[1]
    while told and told[-1] is None:
        del told[-1]
    return tuple(told)


def _equal(a: object, b: object) -> bool:
    if a is b or not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return a is b
    return a.shape == b.shape and a.dtype is b.dtype and a.device == b.device and a.equal(b)
