r"""Rescaled guidance: the guided prediction brought back towards the spread of the conditional one.

With F the prediction of a network and std over the numbers of one sample,

    F = k F_guided,    k = phi std(F_conditional)/std(F_guided) + 1 - phi.

Any prediction is F = (d - a x)/b with numbers a, b of the time, so that in terms of d

    d = k d_guided + (1 - k) a x,    k from the spreads of d - a x.

So it matters which prediction is rescaled: a is 0 for data, 1/alpha for noise (and score),
alpha/(alpha^2 + sigma^2) for velocity.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..counts import checked_number
from ..denoise import Denoiser, NetworkDenoiser
from ..names import look_up
from ..predictions import AFFINE, check_defined
from ..scalar import Scalar
from ..states import along
from .guided import Guided, Rule, check_guided, itself
from .interval import LimitedInterval


class Rescaled(Guided):
    """A guided denoiser whose prediction has its spread mixed with the first branch's.

    Args:
        guided: the guidance.
        phi: share of the rescaled prediction.
        prediction: which prediction is rescaled.
        sigma_data: for "edm".
    """

    timesteps: int | None = None  # with schedule and sigma_data: how a prediction is read

    def __init__(self, guided: Guided, phi: float, prediction: str, sigma_data: float) -> None:
        super().__init__(*guided.branches)
        self.guided, self.phi, self.prediction = guided, phi, prediction
        self.sigma_data = sigma_data

    def __repr__(self) -> str:
        return f"Rescaled({self.guided!r}, phi={self.phi:g}, prediction={self.prediction!r})"

    @property
    def samples(self) -> int | None:
        return self.guided.samples

    @property
    def conditioned(self) -> bool:
        return self.guided.conditioned

    def rule(self, t: Scalar) -> Rule:
        return self._rescaled(self.guided.rule(t), t)

    def rules(self, times: Sequence[float]) -> list[Rule]:
        return list(map(self._rescaled, self.guided.rules(times), times))

    def select(self, who: Tensor) -> Guided:
        return self._around(self.guided.select(who))

    def mapped(self, change: Callable[[Denoiser], Denoiser]) -> Guided:
        return self._around(self.guided.mapped(change))

    def _around(self, guided: Guided) -> Guided:
        chosen = copy.copy(self)
        chosen.guided, chosen.branches = guided, guided.branches
        return chosen

    def _rescaled(self, rule: Rule, t: Scalar) -> Rule:
        needs, combine, both = rule
        if needs == (0,) and combine is itself:
            return rule
        if not isinstance(t, Tensor):
            check_defined(self.prediction, self.schedule, [t])
        a = AFFINE[self.prediction](self, t, *self.schedule(t))[1]

        def rescaled(x: Tensor, first: Tensor, d: Tensor) -> Tensor:
            origin = along(a, x) * x
            without, spread = _spread(first - origin), _spread(d - origin)
            k = 1 + self.phi * (torch.where(spread > 0, without / spread, 1.0) - 1)
            return torch.lerp(origin, d, k)

        if both is not None:

            def of_both(x: Tensor) -> tuple[Tensor, Tensor]:
                first, d = both(x)
                return first, rescaled(x, first, d)

            return Rule((), lambda x: of_both(x)[1], of_both)
        asked = needs if 0 in needs else (*needs, 0)
        at, count = asked.index(0), len(needs)
        return Rule(
            asked, lambda x, *answers: rescaled(x, answers[at], combine(x, *answers[:count]))
        )


def _spread(prediction: Tensor) -> Tensor:
    """Standard deviation over the numbers of each sample, (batch, 1, .., 1)."""
    if math.prod(prediction.shape[1:]) < 2:
        raise ValueError(
            f"states of shape {tuple(prediction.shape)} have one number a sample, and no spread to "
            "rescale"
        )
    return prediction.flatten(1).std(1).reshape(-1, *[1] * (prediction.ndim - 1))


def rescale(guided: Guided, phi: float = 0.7, prediction: str | None = None) -> Guided:
    """Guidance whose prediction keeps the spread that it has without guidance.

    F = phi F_g std(F_c)/std(F_g) + (1 - phi) F_g, with std over each sample (and F = F_g where
    that is 0).

    Lin et al., "Common diffusion noise schedules and sample steps are flawed", 2023,
    arXiv:2305.08891, section 3.4.

    Args:
        guided: any guidance; the spread is that of its first branch.
        phi: in [0, 1]; 0 changes nothing. The paper has 0.7.
        prediction: what is rescaled: "noise", "data", "velocity", "flow", "score" or "edm"; the
            result depends on it. None: what the network predicts, as in the paper and diffusers.

    Raises:
        TypeError: if it is no guided denoiser; phi is no number.
        ValueError: phi out of range; an unknown prediction, or none where the first branch is no
            network; several conditions at once; thresholding or an interval, which come after
            it; states of one number.
    """
    check_guided(guided, "rescale")
    phi = checked_number(phi, "phi")
    if not 0 <= phi <= 1:
        raise ValueError(f"phi = {phi} must lie in [0, 1]: the share of the rescaled prediction")
    first = guided.branches[0]
    if guided.unguided() is not first or isinstance(guided, LimitedInterval):
        raise ValueError(
            f"{type(guided).__name__} lies around a guidance, which is rescaled first: "
            "static_thresholding(rescale(classifier_free(...))), "
            "limited_interval(rescale(classifier_free(...)), low, high)"
        )
    if prediction is None:
        if not isinstance(first, NetworkDenoiser):
            raise ValueError(
                f"a {type(first).__name__} does not say what it predicts, and the result depends "
                'on it: give prediction="data", "noise" or "velocity"'
            )
        prediction = first.prediction
    look_up("prediction", prediction, AFFINE)
    if phi == 0:
        return guided
    return Rescaled(guided, float(phi), prediction, getattr(first, "sigma_data", 0.5))
