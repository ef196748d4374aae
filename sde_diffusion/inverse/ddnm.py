r"""The null-space model: what y determines is taken from y, the rest from the mean.

    d_y = A^+ y + (I - A^+ A) d = d + A^+ (y - A d),

and with noise, in the singular vectors of A, only as much of it as does not spoil the sample.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..scalar import ratio
from .measurement import Measurement
from .operator import LinearOperator, inverse
from .posterior import Here, Posterior, check_linear, check_posed


def ddnm(denoiser: Denoiser, measurement: Measurement) -> Posterior:
    """The mean, projected onto the data that agree with y; no gradient; A linear.

    d_y = d + A^T U diag(l_i/s_i^2) U^T (y - A d),    A A^T = U diag(s_i^2) U^T,
    l_i = min(1, s_i sigma/(alpha sigma_y))

    Wang, Yu & Zhang, "Zero-shot image restoration using denoising diffusion null-space model",
    2022, arXiv:2212.00490. Without noise l_i = 1: A d_y = y. With noise (their DDNM+) the noise
    of A^+ y, sigma_y/s_i along each singular vector, is let in as long as x_t has as much of its
    own. Their algorithm also draws that much less noise in the step, which is a matter of the plan
    and left out here.

    Args:
        denoiser: d = E[x_0 | x_t].
        measurement: y, A and sigma_y; A linear. With sigma_y > 0 the singular vectors are needed:
            masks, blurs and down-sampling know them at any size, and those of others are found in
            float64, for at most `operator.decomposed` (4096) measured numbers.

    Raises:
        TypeError: A not linear.
        ValueError: noise, and singular vectors neither known nor few enough to be found.
    """
    check_posed(denoiser, measurement)
    check_linear("ddnm", measurement)
    if measurement.noise == 0:
        return Posterior(denoiser, measurement, _project)
    cast(LinearOperator, measurement.operator).check_spectral()
    return Posterior(denoiser, measurement, _filtered)


def _project(here: Here) -> Tensor:
    d = here.prior()
    return d + here.operator.pseudo_inverse(here.measurement.residual(d))


def _filtered(here: Here) -> Tensor:
    d = here.prior()
    r = here.measurement.residual(d)
    let_in = ratio(here.sigma, here.alpha * here.measurement.noise)
    let_in = let_in.to(r) if isinstance(let_in, Tensor) else r.new_tensor(let_in)

    def weights(squares: Tensor) -> Tensor:
        """l_i/s_i^2, and 0 where s_i = 0."""
        one_by_s = inverse(squares).sqrt()
        share = let_in.reshape(-1, *[1] * (squares.ndim - 1))
        return torch.minimum(one_by_s, share) * one_by_s

    return d + here.operator.adjoint(here.operator.spectral(r, weights))
