r"""Euler-Maruyama on the reverse SDE."""

from __future__ import annotations

from itertools import pairwise

from ..plan import Plan
from ..scalar import Scalar, sqrt
from ..schedule import Schedule
from ..trace import Trace
from .solver import Claim, solver


@solver("Song et al. 2021, arXiv:2011.13456", Claim(1, strong=1.0))
def euler_maruyama(schedule: Schedule, times: list[Scalar]) -> Plan:
    """Euler-Maruyama on the reverse SDE dx = [f x - g^2 score] dt + g dw (time runs backwards).

    x_s = x_t + (s - t) [f x_t - g^2 score] + g sqrt(t - s) z, score = (alpha_t d - x_t) /
    sigma_t^2, f and g^2 at t. Weak and strong order 1 (g does not depend on x).

    Song et al., "Score-based generative modeling through SDEs", 2021, arXiv:2011.13456, eq. 6;
    Anderson, "Reverse-time diffusion equation models", 1982. As there, the last step to
    sigma = 0 takes noise like any other; denoise afterwards if that is unwanted.

    Args:
        schedule: alpha_t, sigma_t, f and g^2.
        times: noisy to clean; alpha > 0 at the start.
    """
    trace = Trace(times[0])
    x = trace.x
    for t, s in pairwise(times):
        alpha_t, sigma_t = schedule(t)
        f, g2 = schedule.f(t), schedule.g2(t)
        x, d = trace.denoise(x, t)
        score = (alpha_t * d - x) / sigma_t**2
        x = x + (s - t) * (f * x - g2 * score) + sqrt(g2 * (t - s)) * trace.noise(t, s)
    return trace.end(x, times[-1])
