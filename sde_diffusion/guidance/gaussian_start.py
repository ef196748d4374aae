r"""The first network call spared, where mean and covariance of the data are known.

At high noise every data set looks Gaussian: with mean m and covariance C,

    E[x_0 | x_t = x] ~ m + alpha C (alpha^2 C + sigma^2)^-1 (x - alpha m),

off by about alpha^2/sigma^2, or by alpha/sigma times what is left out of C. At the noisy end
(sigma/alpha = 80, say) that is as good as what a network answers, and costs no call. Other than
`transform.analytic_first_step`, which is for data of mean 0 and one variance, it needs to be told
of the data: their mean at least, one array of the shape of a sample.

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
from ..normal import check_variances, real, spectrum
from ..scalar import Scalar
from ..schedule import Schedule
from ..states import along
from .guided import Guided
from .interval import LimitedInterval

_FINITE = 1e300  # beyond it sigma/alpha counts as infinite
_END = 1 - 1e-6  # a time at the noisy end lies above its own noise level times this


class GaussianLaw(Denoiser):
    """d of data N(m, C): no network is asked.

    Args:
        schedule: alpha_t, sigma_t.
        mean: m, (*event).
        variances: of the coordinates, () or (*event), or with a basis (D,).
        basis: the directions that the variances belong to, (D, D), columns; None: the coordinates.
    """

    asks = False

    def __init__(
        self, schedule: Schedule, mean: Tensor, variances: Tensor, basis: Tensor | None = None
    ) -> None:
        self.schedule, self.mean = schedule, mean
        self.variances, self.basis = variances, basis

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        self._check(x)
        alpha_t, sigma_t = (along(c, x) for c in self.schedule(t))
        mean, v = self.mean.to(x), self.variances.to(x)
        if self.basis is None:
            return mean + alpha_t * v / (alpha_t**2 * v + sigma_t**2) * (x - alpha_t * mean)
        alpha_t, sigma_t = (along(c, x.flatten(1)) for c in self.schedule(t))
        gains = alpha_t * v / (alpha_t**2 * v + sigma_t**2)
        return self._turned(x, alpha_t * mean.flatten(), gains)

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        self._check(x)
        return [Call(self._at(t, x)) for t in times]

    def _at(self, t: float, x: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
        alpha_t, sigma_t = (float(c) for c in self.schedule(t))
        gains = alpha_t * self.variances / (alpha_t**2 * self.variances + sigma_t**2)
        if self.basis is None:
            rest, gains = ((1 - alpha_t * gains) * self.mean).to(x), gains.to(x)
            return lambda x, out: torch.addcmul(rest, gains, x)
        centre, gains = alpha_t * self.mean.flatten().to(x), gains.to(x)
        return lambda x, out: self._turned(x, centre, gains)

    def _turned(self, x: Tensor, centre: Tensor, gains: Tensor) -> Tensor:
        """m + basis gains basis^T (x - centre)."""
        assert self.basis is not None
        basis = self.basis.to(x)
        moved = ((x.flatten(1) - centre) @ basis * gains) @ basis.T
        return self.mean.to(x) + moved.reshape(x.shape)

    def _check(self, x: Tensor) -> None:
        if x.shape[1:] != self.mean.shape:
            raise ValueError(
                f"samples of shape {tuple(x.shape[1:])}, and the mean given to gaussian_start has "
                f"{tuple(self.mean.shape)}"
            )


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
    covariance: float | Tensor = 1.0,
    above: float | None = None,
) -> Guided:
    """The denoiser, but at high noise that of Gaussian data, which costs no network call.

    `gaussian_start(..).cost(plan.asked_at).calls` tells how many calls of the network are left.

    Args:
        denoiser: E[x_0 | x_t].
        mean: m of the data, (*event), as `data.mean(0)`.
        covariance: C of the data: one variance, those of the coordinates (*event), as
            `data.var(0)`, or all of it (D, D), as `data.flatten(1).T.cov()`, D the numbers of a
            sample.
        above: the noise level sigma/alpha above which the law is asked in the denoiser's place;
            default: at the noisy end of the schedule, t_max, alone.

    Raises:
        TypeError: `denoiser` is none; a mean or covariance of integers.
        ValueError: a covariance that is none, or of no shape above; numbers that are not finite; a
            level that is not positive.
    """
    check_denoiser(denoiser)
    if not (isinstance(mean, Tensor) and mean.is_floating_point()):
        raise TypeError("mean must be a tensor of floats, of the shape of one sample: data.mean(0)")
    digits = torch.finfo(getattr(covariance, "dtype", torch.float64)).eps
    mean, given = real("mean", mean), real("covariance", covariance).to(mean.device)
    size = mean.numel()
    whole = given.shape == (size, size) != mean.shape
    if given.ndim and not whole and given.shape != mean.shape:
        raise ValueError(
            f"covariance has shape {tuple(given.shape)} and mean {tuple(mean.shape)}: give one "
            f"variance, one for each coordinate, data.var(0), or {(size, size)}, "
            "data.flatten(1).T.cov()"
        )
    basis = None
    if whole:  # of fewer samples than numbers it has eigenvalues 0, but for rounding
        rounding = digits * size * given.abs().max()
        given, basis = spectrum(given + rounding * torch.eye(size).to(given))
    check_variances(given)
    schedule = denoiser.schedule
    end = min(float(schedule.rho(schedule.t_max)), _FINITE)
    level = _END * end if above is None else checked_number(above, "above")
    if not level > 0:
        raise ValueError(f"above = {above}: a noise level sigma/alpha > 0")
    return GaussianStart(denoiser, GaussianLaw(schedule, mean, given, basis), level)
