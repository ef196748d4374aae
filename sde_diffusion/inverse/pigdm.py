r"""Pseudoinverse-guided diffusion: the likelihood of y for a prior of one variance around the mean.

p(x_0 | x_t) = N(d, r_t^2 I),    p(y | x_t) = N(A d, r_t^2 A A^T + sigma_y^2 I).
"""

from __future__ import annotations

from torch import Tensor

from ..denoise import Denoiser
from .measurement import Measurement
from .posterior import Here, Posterior, check_linear, check_posed, check_setting


def pigdm(denoiser: Denoiser, measurement: Measurement, variance: float = 0.1) -> Posterior:
    """One variance for all that x_t leaves open, the rest as it should be; A linear.

    d_y = d + (sigma^2/alpha) J^T A^T (r_t^2 A A^T + sigma_y^2 I)^{-1} (y - A d),
    r_t^2 = v sigma^2/(v alpha^2 + sigma^2)

    Song, Vahdat, Mardani & Kautz, "Pseudoinverse-guided diffusion models for inverse problems",
    ICLR 2023, whose r_t^2 is that of v = 1, the variance of all the data. On mixtures of variance 1
    samples are closer to the posterior with v = 0.1 than with 0.3, or as close. Without noise the
    gradient is J^T A^+ (y - A d)/r_t^2, whence the name; their algorithm replaces the weight
    1/r_t^2 by one of its own, which is left out here. Exact for data N(m, v I). Where data vary
    more than v in a direction the push would overshoot y, and grow from step to step: it is
    shortened so that A d_y is no farther from y than A d.

    Args:
        denoiser: d = E[x_0 | x_t], differentiable in x.
        measurement: y, A and sigma_y; A linear.
        variance: v > 0, of the data in one coordinate, around one of its modes, or less.

    Raises:
        TypeError: A not linear.
        ValueError: a variance that is not positive.
    """
    check_posed(denoiser, measurement)
    check_linear("pigdm", measurement)
    check_setting("variance", variance, above=True)

    def rule(here: Here) -> Tensor:
        gain = here.gain
        d, pull = here.prior_with_pull()
        around = here.around(d)
        a, b = here.spread(variance), here.measurement.noise**2
        push = pull(here.operator.adjoint_solve(around.residual, a, b))
        return d + around.no_farther(gain * push)

    return Posterior(denoiser, measurement, rule)
