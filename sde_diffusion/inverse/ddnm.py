r"""The null-space model: what y determines is taken from y, the rest from the mean.

    d_y = A^+ y + (I - A^+ A) d = d + A^+ (y - A d),

and with noise, in the singular vectors of A, only as much of it as does not spoil the sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..scalar import ratio
from .measurement import Measurement
from .operator import Constants, LinearOperator, inverse
from .posterior import Here, Posterior, check_linear, check_posed

LARGEST = 4096  # measured numbers of which A A^T is decomposed


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
        measurement: y, A and sigma_y; A linear, with sigma_y > 0 of at most 4096 measured numbers.

    Raises:
        TypeError: A not linear.
        ValueError: too many measured numbers.
    """
    check_posed(denoiser, measurement)
    check_linear("ddnm", measurement)
    if measurement.noise == 0:
        return Posterior(denoiser, measurement, _project)
    return Posterior(denoiser, measurement, _noisy(measurement))


def _project(here: Here) -> Tensor:
    d = here.prior()
    return d + here.operator.pseudo_inverse(here.measurement.residual(d))


def _noisy(measurement: Measurement) -> Callable[[Here], Tensor]:
    shape = tuple(measurement.operator.measured_shape)
    if torch.Size(shape).numel() > LARGEST:
        raise ValueError(
            f"measurements of shape {shape} are too many to decompose A A^T (at most {LARGEST} "
            "numbers); with noise take diffpir, which needs no singular vectors"
        )
    matrix = cast(LinearOperator, measurement.operator).matrix()
    basis, s, _ = torch.linalg.svd(matrix, full_matrices=False)
    constants = Constants(basis, s.where(s > 1e-12 * s[0], 0.0))

    def rule(here: Here) -> Tensor:
        d = here.prior()
        r = here.measurement.residual(d)
        u, s = constants.like(r)
        let_in = ratio(here.sigma, here.alpha * measurement.noise)
        let_in = let_in.to(r) if isinstance(let_in, Tensor) else r.new_tensor(let_in)
        weights = torch.minimum(inverse(s), let_in.reshape(-1, 1)) * inverse(s)  # l_i / s_i^2
        filtered = ((r.flatten(1) @ u) * weights) @ u.mT
        return d + here.operator.adjoint(filtered.reshape(r.shape))

    return rule
