r"""The first network call spared, where the mean of the data is known.

At high noise every data set looks Gaussian: with mean m and variances v of its coordinates,

    E[x_0 | x_t = x] ~ m + alpha v/(alpha^2 v + sigma^2) (x - alpha m),

off by alpha/sigma times what the covariance has beside diag v, and by alpha^2/sigma^2. At the
noisy end (sigma/alpha = 80, say) that is about as good as what a network answers, and costs no
call. Other than `transform.analytic_first_step`, which is for data of mean 0, it needs the mean of
the data, one array of the shape of a sample.

Wang & Vastola, "The unreasonable effectiveness of Gaussian score approximation for diffusion models
and its applications", 2024, arXiv:2412.09726; Dockhorn, Vahdat & Kreis, "GENIE", 2022,
arXiv:2210.05475 (an analytical first step).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..counts import checked_number
from ..denoise import Call, Denoiser, check_denoiser
from ..scalar import Scalar
from ..schedule import Schedule
from ..states import along
from .guided import Guided
from .interval import LimitedInterval

_FINITE = 1e300  # beyond it sigma/alpha counts as infinite
_END = 1 - 1e-6  # a time at the noisy end lies above its own noise level times this


class GaussianLaw(Denoiser):
    """d of data N(m, diag v): no network is asked."""

    asks = False

    def __init__(self, schedule: Schedule, mean: Tensor, variance: Tensor) -> None:
        self.schedule, self.mean, self.variance = schedule, mean, variance

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        self._check(x)
        alpha_t, sigma_t = (along(c, x) for c in self.schedule(t))
        mean, v = self.mean.to(x), self.variance.to(x)
        return mean + alpha_t * v / (alpha_t**2 * v + sigma_t**2) * (x - alpha_t * mean)

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        self._check(x)
        return [Call(self._at(t, x)) for t in times]

    def _check(self, x: Tensor) -> None:
        if x.shape[1:] != self.mean.shape:
            raise ValueError(
                f"samples of shape {tuple(x.shape[1:])}, and the mean given to gaussian_start has "
                f"{tuple(self.mean.shape)}"
            )

    def _at(self, t: float, x: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
        alpha_t, sigma_t = (float(c) for c in self.schedule(t))
        gain = alpha_t * self.variance / (alpha_t**2 * self.variance + sigma_t**2)
        rest, gain = ((1 - alpha_t * gain) * self.mean).to(x), gain.to(x)
        return lambda x, out: torch.addcmul(rest, gain, x)


class GaussianStart(LimitedInterval):
    """A denoiser below a noise level, a Gaussian law above it.

    Args:
        denoiser: asked at noise levels up to `above`.
        law: of the data, for the others.
        above: noise level sigma/alpha.
    """

    shown = ("high",)

    def __init__(self, denoiser: Denoiser, law: GaussianLaw, above: float) -> None:
        super().__init__(law, denoiser, 0.0, above)

    @property
    def below(self) -> Denoiser:
        """The denoiser alone."""
        return self.branches[1]

    @property
    def jumps(self) -> tuple[float, ...]:
        """Those of the denoiser: the law is to be close to it where one follows on the other."""
        return self.below.jumps

    def unguided(self) -> Denoiser:
        raise ValueError(
            "gaussian_start has no guidance of its own: put it around everything else, as "
            "gaussian_start(limited_interval(classifier_free(...), low, high), mean, variance)"
        )


def gaussian_start(
    denoiser: Denoiser,
    mean: Tensor,
    variance: float | Tensor = 1.0,
    above: float | None = None,
) -> Guided:
    """The denoiser, but at high noise that of Gaussian data, which costs no network call.

    `gaussian_start(..).cost(plan.asked_at).calls` tells how many calls of the network are left.

    Args:
        denoiser: E[x_0 | x_t].
        mean: m of the data, (*event), as `data.mean(0)`.
        variance: v of the data in each coordinate, one number or (*event), at least 0.
        above: the noise level sigma/alpha above which the law is asked in the denoiser's place;
            default: at the noisy end of the schedule, t_max, alone.

    Raises:
        TypeError: `denoiser` is none; a mean or variance of integers.
        ValueError: a variance that is negative or of another shape than the mean, numbers that are
            not finite, a level that is not positive.
    """
    check_denoiser(denoiser)
    if not (isinstance(mean, Tensor) and mean.is_floating_point()):
        raise TypeError("mean must be a tensor of floats, of the shape of one sample: data.mean(0)")
    given = torch.as_tensor(variance, device=mean.device)
    if not given.is_floating_point():
        given = given.double()
    if given.ndim and given.shape != mean.shape:
        raise ValueError(
            f"variance has shape {tuple(given.shape)} and mean {tuple(mean.shape)}: give one "
            "number, or one for each coordinate, as data.var(0)"
        )
    if not bool(torch.isfinite(mean).all() & torch.isfinite(given).all() & (given >= 0).all()):
        raise ValueError("mean and variance must be finite, and the variance at least 0")
    schedule = denoiser.schedule
    end = min(float(schedule.rho(schedule.t_max)), _FINITE)
    level = _END * end if above is None else checked_number(above, "above")
    if not level > 0:
        raise ValueError(f"above = {above}: a noise level sigma/alpha > 0")
    law = GaussianLaw(schedule, mean.double(), given.double())
    return GaussianStart(denoiser, law, level)
