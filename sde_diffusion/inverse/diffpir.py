r"""Plug-and-play restoration with a diffusion prior: a proximal step from the mean to the data.

d_y = argmin_z |y - A z|^2/(2 sigma_y^2) + strength |z - d|^2/(2 rho_t^2),   rho = sigma/alpha.
"""

from __future__ import annotations

from torch import Tensor

from ..denoise import Denoiser, along
from .measurement import Measurement
from .posterior import Here, Posterior, check_linear, check_posed, check_setting


def diffpir(denoiser: Denoiser, measurement: Measurement, strength: float = 1.0) -> Posterior:
    """The mean of x_0 given y and x_0 ~ N(d, rho_t^2/strength I); no gradient; A linear.

    d_y = d + A^T (A A^T + strength sigma_y^2/rho_t^2 I)^{-1} (y - A d),    rho_t = sigma/alpha

    Zhu, Zhang, Liang, Cao, Wen, Timofte & Van Gool, "Denoising diffusion models for plug-and-play
    image restoration", 2023, arXiv:2305.08995, whose lambda is the strength. Without noise it is
    `ddnm`: d is projected onto A z = y. Large strength is the prior. Its ancestral noise is the
    plan's ("ddim" with eta, "ddpm").

    Args:
        denoiser: d = E[x_0 | x_t].
        measurement: y, A and sigma_y; A linear.
        strength: lambda > 0, of the prior against the data.

    Raises:
        TypeError: A not linear.
        ValueError: a strength that is not positive.
    """
    check_posed(denoiser, measurement)
    check_linear("diffpir", measurement)
    check_setting("strength", strength, above=True)

    def rule(here: Here) -> Tensor:
        d = here.prior()
        a, b = here.sigma**2, strength * (here.measurement.noise * here.alpha) ** 2
        return d + along(a, d) * here.operator.adjoint_solve(here.measurement.residual(d), a, b)

    return Posterior(denoiser, measurement, rule)
