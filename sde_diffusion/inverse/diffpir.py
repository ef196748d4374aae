r"""Plug-and-play restoration with a diffusion prior: a proximal step from the mean to the data.

d_y = argmin_z |y - A z|^2/(2 sigma_y^2) + strength |z - d|^2/(2 r_t^2).
"""

from __future__ import annotations

from torch import Tensor

from ..denoise import Denoiser
from ..states import along
from .measurement import Measurement
from .posterior import Here, Posterior, check_linear, check_posed, check_setting


def diffpir(
    denoiser: Denoiser,
    measurement: Measurement,
    strength: float = 1.0,
    variance: float = 1.0,
) -> Posterior:
    """The mean of x_0 given y and x_0 ~ N(d, r_t^2/strength I); no gradient; A linear.

    d_y = d + A^T (A A^T + strength sigma_y^2/r_t^2 I)^{-1} (y - A d),
    r_t^2 = v sigma^2/(v alpha^2 + sigma^2)

    Zhu, Zhang, Liang, Cao, Wen, Timofte & Van Gool, "Denoising diffusion models for plug-and-play
    image restoration", 2023, arXiv:2305.08995, whose lambda is the strength, and whose variance is
    rho_t^2 = (sigma/alpha)^2: `variance=math.inf`. That one leaves out what is known of data before
    x_t is seen; at high noise the step is then all but the pseudo-inverse of A, and y's own noise
    is divided by its small singular values. With v = 1, the variance of all the data, samples are
    closer to the posterior where A is a blur of smooth fields, and with v = 0.3 closer still; of
    digits v = inf is as close or a little closer, and where A A^T = I all are about equal. Without
    noise it is `ddnm`: d is projected onto A z = y. Large strength is the prior. Its ancestral
    noise is the plan's ("ddim" with eta, "ddpm").

    Args:
        denoiser: d = E[x_0 | x_t].
        measurement: y, A and sigma_y; A linear.
        strength: lambda > 0, of the prior against the data.
        variance: v > 0, of the data in one coordinate; may be infinite.

    Raises:
        TypeError: A not linear.
        ValueError: a strength or a variance that is not positive.
    """
    check_posed(denoiser, measurement)
    check_linear("diffpir", measurement)
    check_setting("strength", strength, above=True, finite=True)
    check_setting("variance", variance, above=True)

    def rule(here: Here) -> Tensor:
        d = here.prior()
        a = here.sigma**2
        # a/r_t^2 = alpha^2 + sigma^2/v, which is finite where alpha, sigma or 1/v is 0.
        b = strength * here.measurement.noise**2 * (here.alpha**2 + a / variance)
        return d + along(a, d) * here.operator.adjoint_solve(here.measurement.residual(d), a, b)

    return Posterior(denoiser, measurement, rule)
