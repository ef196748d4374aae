r"""Guidance by the gradient of an energy, log p(y | .), that the user gives.

    of the noisy state:     d + w (sigma^2/alpha) grad_x log p(y | x_t)
    of the denoised data:   d + w (sigma^2/alpha) J^T grad log p(y | x_0 = d),   J = dd/dx.

With w = 1 and the exact log p(y | x_t) the first is E[x_0 | x_t, y], by Tweedie's formula, and its
samples have the law p(x_0 | y). With w > 1 they have no law that is written so simply: p_t(x)
p_t(y | x)^w, over t, is not the noised law of anything. The second puts one point, d, in place of
the law of x_0 given x_t, which is exact at sigma = 0 only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..conditions import one_count, samples_of, select_conditions
from ..denoise import Denoiser
from ..gradient import asks_for_gradients, denoise_with_pull, gradient_of_log, score_to_mean
from ..scalar import Scalar
from ..states import along
from .guided import Guided, Rule, alone
from .scales import GuidanceScale, checked_scale, scale_at


class Energy(Guided):
    """What both kinds share: the function, its scale, and the conditions of samples."""

    shown = ("log_p", "scale")

    def __init__(
        self,
        denoiser: Denoiser,
        log_p: Callable[..., Tensor],
        scale: GuidanceScale,
        condition: Sequence[Any],
    ) -> None:
        super().__init__(denoiser)
        if not callable(log_p):
            raise TypeError(f"log_p must be a function, not {type(log_p).__name__}")
        if isinstance(condition, Tensor | str) or not isinstance(condition, Sequence):
            raise TypeError(
                f"condition is {type(condition).__name__}; give a tuple of what log_p takes after "
                "its other arguments: condition=(labels,)"
            )
        self.log_p, self.scale = log_p, checked_scale(scale)
        self.condition = tuple(condition)
        one_count((samples_of(self.condition), super().samples))  # refuses different numbers

    @property
    def samples(self) -> int | None:
        return one_count((samples_of(self.condition), super().samples))

    def select(self, who: Tensor) -> Energy:
        chosen = super().select(who)
        assert isinstance(chosen, Energy)
        chosen.condition = select_conditions(self.condition, who)
        return chosen

    def rule(self, t: Scalar) -> Rule:
        w = scale_at(self.scale, t)
        if not isinstance(w, Tensor) and w == 0:
            return alone(0)
        return self.guide(t, w * score_to_mean(self.schedule, t))

    @abstractmethod
    def guide(self, t: Scalar, factor: Scalar) -> Rule:
        """What is done where the gradient is multiplied by `factor` = w sigma^2/alpha."""


class Classifier(Energy):
    """Guidance by a classifier of the noisy state; see `classifier`."""

    def guide(self, t: Scalar, factor: Scalar) -> Rule:

        def combine(x: Tensor, d: Tensor) -> Tensor:
            keep = asks_for_gradients(x, t)
            gradient = gradient_of_log(lambda x: self.log_p(x, t, *self.condition), x, keep)
            return d + along(factor, x) * gradient

        return Rule((0,), combine)


class Universal(Energy):
    """Guidance by a function of the denoised data; see `universal`.

    Its `cost` counts forward calls alone; the gradient takes the time of about two more for each.
    """

    def guide(self, t: Scalar, factor: Scalar) -> Rule:
        def both(x: Tensor) -> tuple[Tensor, Tensor]:
            d, pull = denoise_with_pull(self.branches[0], x, t)
            gradient = gradient_of_log(lambda d: self.log_p(d, *self.condition), d)
            return d, d + along(factor, x) * pull(gradient)

        return Rule((), lambda x: both(x)[1], both)  # the branch is asked inside, with its graph


def classifier(
    denoiser: Denoiser,
    log_p: Callable[..., Tensor],
    *,
    scale: GuidanceScale = 1.0,
    condition: Sequence[Any] = (),
) -> Guided:
    """Guidance by a classifier of the noisy state: d + w (sigma^2/alpha) grad_x log p(y | x_t).

    Dhariwal & Nichol, "Diffusion models beat GANs on image synthesis", 2021, arXiv:2105.05233.
    (Song et al. 2021, arXiv:2011.13456, have it with w = 1.) Their gradient scale is this w. One
    call of the network, and one of log_p with its gradient, a step.

    Args:
        denoiser: of the data without y.
        log_p: (x, t, *condition) -> log p(y | x_t = x), one number a sample, (batch,), up to a
            constant; differentiable in x. t is a time as the denoiser is asked: a float, or one a
            sample, (batch,). A classifier of noisy data: one of clean data belongs in `universal`.
        scale: w, a number, or a function of t; 1 gives the conditional law, 0 the unguided one.
        condition: what else log_p is told, e.g. the wanted labels, (batch,): tensors of one entry
            a sample, which follow their samples when a method asks for some of the batch alone.

    Raises:
        TypeError: log_p is no function; condition is no tuple.
        ValueError: scale not finite; when run, as `gradient_of_log`, or at alpha = 0.
        RuntimeError: when run in inference mode.
    """
    return Classifier(denoiser, log_p, scale, condition)


def universal(
    denoiser: Denoiser,
    log_p: Callable[..., Tensor],
    *,
    scale: GuidanceScale = 1.0,
    condition: Sequence[Any] = (),
) -> Guided:
    """Guidance by a function of the denoised data: d + w (sigma^2/alpha) grad_x log p(y | d(x)).

    Bansal et al., "Universal guidance for diffusion models", 2023, arXiv:2302.07121: its forward
    guidance, with the loss -log p and s(t) = w sigma_t. The gradient goes through the network, so
    a step costs about three calls of it, and its memory. For y = A x_0 + noise the methods of
    `sde_diffusion.inverse` know more about what d leaves out.

    Args:
        denoiser: of the data without y, differentiable.
        log_p: (d, *condition) -> log p(y | x_0 = d), one number a sample, (batch,), up to a
            constant; differentiable in d. A classifier of clean data, minus a loss, a reward.
        scale: w, a number, or a function of t.
        condition: as for `classifier`.

    Raises:
        TypeError, ValueError, RuntimeError: as `classifier`; when run, if autograd does not see
            through the network.
    """
    return Universal(denoiser, log_p, scale, condition)
