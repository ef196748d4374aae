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
from ..normal import Values, check_variances, estimate, gains, real, spectrum
from ..scalar import Scalar
from ..schedule import Schedule
from ..states import along, flat
from .guided import Guided
from .interval import OneOfTwo, rounded

_DIGITS = torch.finfo(torch.float32).eps  # what a covariance is mostly computed in
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
        rows = x if self.basis is None else flat(x)
        alpha_t, sigma_t = (along(c, rows) for c in self.schedule(t))
        mean, v = self.mean.to(x), self.variances.to(x)
        gain = gains(v, alpha_t, sigma_t)
        if self.basis is None:
            return mean + gain * (x - alpha_t * mean)
        mean = mean.flatten()
        return estimate(rows, mean, alpha_t * mean, gain, self.basis.to(x)).reshape(x.shape)

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        self._check(x)
        return [Call(self._at(t, x)) for t in times]

    def _at(self, t: float, x: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
        alpha_t, sigma_t = (float(c) for c in self.schedule(t))
        gain = gains(self.variances, alpha_t, sigma_t)
        if self.basis is None:
            rest, gain = ((1 - alpha_t * gain) * self.mean).to(x), gain.to(x)
            return lambda x, out: torch.addcmul(rest, gain, x)
        mean, gain, basis = (v.to(x) for v in (self.mean.flatten(), gain, self.basis))
        centre = alpha_t * mean
        return lambda x, out: estimate(flat(x), mean, centre, gain, basis).reshape(x.shape)

    def _check(self, x: Tensor) -> None:
        if x.shape[1:] != self.mean.shape:
            raise ValueError(
                f"samples of shape {tuple(x.shape[1:])}, and the mean given to gaussian_start has "
                f"{tuple(self.mean.shape)}"
            )


class GaussianStart(OneOfTwo):
    """A denoiser below a noise level, a Gaussian law above it.

    Args:
        denoiser: asked at noise levels up to `above`.
        law: of the data, for the others.
        above: noise level sigma/alpha.
    """

    shown = ("above",)

    def __init__(self, denoiser: Denoiser, law: GaussianLaw, above: float) -> None:
        super().__init__(law, denoiser)
        self.law, self.above = law, above

    @property
    def below(self) -> Denoiser:
        """The denoiser alone."""
        return self.branches[1]

    def inside(self, t: Scalar) -> bool | Tensor:
        """Whether the denoiser is asked at a time, or at which of several."""
        asked: bool | Tensor = self.schedule.rho(t) <= rounded(self.above)
        return asked

    def unguided(self) -> Denoiser:
        raise ValueError(
            "gaussian_start has no guidance of its own: put it around everything else, as "
            "gaussian_start(limited_interval(classifier_free(...), low, high), mean, covariance)"
        )


def gaussian_start(
    denoiser: Denoiser,
    mean: Tensor,
    covariance: Values = 1.0,
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
            default: at the noisy end of the schedule, t_max, alone. Where the grid begins below
            t_max, give a level somewhat below that of its start, or no call is spared.

    Raises:
        TypeError: `denoiser` is none; a mean or covariance of integers.
        ValueError: a covariance that is none, or of no shape above; numbers that are not finite; a
            level that is not positive, or above which the schedule has no time.
    """
    check_denoiser(denoiser)
    if not (isinstance(mean, Tensor) and mean.is_floating_point()):
        raise TypeError("mean must be a tensor of floats, of the shape of one sample: data.mean(0)")
    if isinstance(covariance, bool):
        raise TypeError(f"covariance = {covariance}: give a variance, data.var(), or an array")
    mean, given = real("mean", mean).clone(), real("covariance", covariance)
    given = given.to(mean.device, copy=True)
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
        own = getattr(covariance, "dtype", None)
        digits = max(_DIGITS, torch.finfo(own).eps if isinstance(own, torch.dtype) else 0.0)
        shift = digits * size * given.abs().max()
        variances, basis = spectrum(given + shift * torch.eye(size).to(given))
        given = (variances - shift).clamp(min=0)
    check_variances(given)
    schedule = denoiser.schedule
    end = min(float(schedule.rho(schedule.t_max)), _FINITE)
    level = _END * end if above is None else checked_number(above, "above")
    if not 0 < level <= _END * end:
        raise ValueError(
            f"above = {above}: give a noise level sigma/alpha between 0 and that of t_max, "
            f"{float(schedule.rho(schedule.t_max)):g}, or leave it out for t_max alone"
        )
    return GaussianStart(denoiser, GaussianLaw(schedule, mean, given, basis), level)
