r"""DDPM and DDIM: the discrete process, on any grid of any schedule.

With h = lambda_s - lambda_t, the posterior of the forward process given x_0 is

    x_s | x_t, x_0 ~ N((sigma_s/sigma_t) e^{-h} x_t + alpha_s (1 - e^{-2h}) x_0,
                       sigma_s^2 (1 - e^{-2h}) I),

for every alpha and sigma, not only variance-preserving ones. DDPM puts d = E[x_0 | x_t] in the
place of x_0; DDIM mixes that posterior with the deterministic map, by eta.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar, expm1, sqrt
from ..schedule import Schedule
from ..trace import Trace
from .solver import Claim, solver


@solver(
    "Song et al. 2021, arXiv:2010.02502",
    Claim(1, point_exact=True, exact=("data", "lambda", 1)),
    Claim(1, {"eta": 0.5}, point_exact=True, strong=1.0),
    Claim(1, {"eta": 1.0}, point_exact=True, strong=1.0),
)
def ddim(schedule: Schedule, times: list[Scalar], eta: float | Sequence[float] = 0.0) -> Plan:
    """Denoising diffusion implicit models.

    x_s = alpha_s d + sigma_s sqrt(1 - tau) eps + sigma_s sqrt(tau) z with
    eps = (x_t - alpha_t d) / sigma_t and tau = eta^2 (1 - e^{-2h}).

    Song et al., "Denoising diffusion implicit models", 2021, arXiv:2010.02502, eq. 12 and 16
    (there for alpha^2 + sigma^2 = 1).

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0, the start alpha = 0.
        eta: in [0, 1], or one such number a step; 0 is deterministic (and equals DPM-Solver-1), 1
            equals DDPM with the posterior variance.

    Raises:
        ValueError: if eta lies outside [0, 1], or there is not one a step.
    """
    trace = Trace(times[0])
    x = trace.x
    for (t, s), eta_t in zip(pairwise(times), each_step(eta, len(times) - 1), strict=True):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x, d = trace.denoise(x, t)
        shrink = alpha_t * sigma_s / (alpha_s * sigma_t)  # e^{-h}
        x = alpha_s * d + sigma_s * kept(eta_t, shrink) / sigma_t * (x - alpha_t * d)
        if eta_t and sigma_s > 0:
            x = x + sigma_s * eta_t * sqrt(1 - shrink**2) * trace.noise(t, s)
    return trace.end(x, times[-1])


def each_step(eta: Scalar | Sequence[Scalar], steps: int) -> list[Scalar]:
    """eta of every step, from one for all or one for each; ValueError outside [0, 1]."""
    if isinstance(eta, np.ndarray | Tensor) and eta.ndim > 1:
        raise ValueError(
            f"eta has the shape {tuple(eta.shape)}: give one number, or one a step, for all samples"
        )
    if isinstance(eta, np.ndarray) or (isinstance(eta, Tensor) and not eta.requires_grad):
        eta = eta.tolist()
    alone = isinstance(eta, int | float) or (isinstance(eta, Tensor) and eta.ndim == 0)
    etas: list[Any] = [eta] * steps if alone else list(eta)  # type: ignore[arg-type]
    if len(etas) != steps:
        raise ValueError(f"eta has {len(etas)} numbers for {steps} steps: give one, or one a step")
    for i, value in enumerate(etas):
        if not 0 <= value <= 1:
            place = "" if alone else f"[{i}]"
            raise ValueError(
                f"eta{place} = {float(value)} must lie in [0, 1]: 0 is deterministic, 1 is DDPM"
            )
    return etas


def kept(eta: Scalar, shrink: Scalar) -> Scalar:
    """sqrt(1 - eta^2 (1 - e^{-2h})): the factor on the noise that is kept, e^{-h} at eta = 1.

    (There the root is taken by hand: of a square that is 0 at the ends it has no gradient, and of
    a difference from 1 no digits.)
    """
    if isinstance(eta, Tensor) or eta != 1:
        return sqrt((1 - eta**2) + (eta * shrink) ** 2)
    return shrink


@solver(
    "Ho et al. 2020, arXiv:2006.11239",
    Claim(1, strong=1.0),
    Claim(1, {"variance": "posterior"}, point_exact=True, strong=1.0),
)
def ddpm(schedule: Schedule, times: list[Scalar], variance: str = "beta") -> Plan:
    """Ancestral sampling of denoising diffusion probabilistic models.

    x_s = (sigma_s/sigma_t) e^{-h} x_t + alpha_s (1 - e^{-2h}) d + sqrt(v) z, with one of the two
    variances of the paper (no noise in a step to sigma = 0, as there):

        "posterior"   v = betatilde = sigma_s^2 (1 - e^{-2h})          (exact for a point)
        "beta"        v = beta = sigma_{t|s}^2 = sigma_t^2 (1 - e^{-2h})   (VP, white data)

    Ho et al., "Denoising diffusion probabilistic models", 2020, arXiv:2006.11239, eq. 6-7,
    section 3.2 and algorithm 2. On a grid that leaves out steps of the discrete process,
    beta is that of the longer step, 1 - alphabar_t / alphabar_s.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; the end may have sigma = 0.
        variance: "posterior" or "beta".

    Raises:
        ValueError: if the variance is neither.
    """
    scale_of = {
        "posterior": lambda sigma_t, sigma_s: sigma_s,
        "beta": lambda sigma_t, sigma_s: sigma_t,
    }
    scale = look_up("variance", variance, scale_of)
    trace = Trace(times[0])
    x = trace.x
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x, d = trace.denoise(x, t)
        shrink = alpha_t * sigma_s / (alpha_s * sigma_t)  # e^{-h}
        gain = -expm1(2 * (schedule.half_log_snr(t) - schedule.half_log_snr(s)))  # 1 - e^{-2h}
        x = sigma_s / sigma_t * shrink * x + alpha_s * gain * d
        if sigma_s > 0:
            x = x + scale(sigma_t, sigma_s) * sqrt(gain) * trace.noise(t, s)
    return trace.end(x, times[-1])
