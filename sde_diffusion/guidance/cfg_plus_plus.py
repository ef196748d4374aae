r"""CFG++: guidance of the data alone, with the unconditional noise put back.

On the steps of DDIM from t to s it is

    x_s = alpha_s d_w + sigma_s eps_u,    d_w = d_u + w (d_c - d_u),
                                          eps_u = (x_t - alpha_t d_u)/sigma_t.

DDIM with a guided d' has (x_t - alpha_t d')/sigma_t for the noise, and so in all the factor
alpha_s (1 - e^{-h}) on d', h = lambda_s - lambda_t; both agree if

    d' = d_u + w/(1 - e^{-h}) (d_c - d_u).

CFG++ is classifier-free guidance with a scale of each step's own. It grows without bound as steps
shrink, like w/h: what CFG++ samples from at one w depends on the number of steps, and with twice as
many the guidance is twice as strong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from ..counts import checked_number
from ..denoise import Denoiser
from ..plan import Plan
from ..times import check_grid
from .classifier_free import pair
from .extrapolation import Extrapolation
from .guided import Guided, check_denoisers
from .scales import checked_scale


def cfg_plus_plus(
    conditional: Denoiser,
    unconditional: Denoiser | None = None,
    *,
    scale: float,
    times: Sequence[float] | Tensor,
    eta: float = 0.0,
) -> Guided:
    """CFG++ on a grid: classifier-free guidance with w/(1 - e^{-h}) for the step with increment h.

    With DDIM on that grid it is the paper's sampler. Any other solver may run it if it asks at the
    grid points alone; then the scales are the same, but its noise is no unconditional one, and a
    stage at the end of a step (as of `heun`) has the scale of the step that begins there.

    Chung et al., "CFG++: Manifold-constrained classifier free guidance for diffusion models", 2024,
    arXiv:2406.08070.

    Args:
        conditional, unconditional: as for `classifier_free`.
        scale: w (the paper's lambda), in [0, 1] there.
        times: the grid of the sampler, noisy to clean: `plan.times`, or what the solver is given.
        eta: of DDIM: with the share tau = eta^2 (1 - e^{-2h}) of the noise drawn anew, the scale
            is w/(1 - sqrt(1 - tau) e^{-h}).

    Raises:
        TypeError, ValueError: as `classifier_free`; no grid; eta outside [0, 1]. When asked at a
            time that is not of the grid, or at its end.
    """
    check_denoisers(conditional)
    eta = checked_number(eta, "eta")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta} must lie in [0, 1]")
    if callable(scale):
        raise TypeError("the scale of CFG++ is one number: it varies with the steps by itself")
    w = checked_scale(scale)
    assert not callable(w)
    if not isinstance(times, Tensor | np.ndarray | Sequence) or isinstance(times, str):
        what = f"a {type(times).__name__}" if isinstance(times, Plan) else repr(times)
        raise TypeError(f"times = {what} must be the grid of the sampler, as plan.times")
    schedule = conditional.schedule
    scales: dict[float, float] = {}
    for t, s in pairwise(float(t) for t in check_grid(schedule, times)):
        h = float(schedule.half_log_snr(s) - schedule.half_log_snr(t))
        tau = -(eta**2) * math.expm1(-2 * h)
        scales[t] = w / (1 - math.sqrt(1 - tau) * math.exp(-h))

    def at(t: float) -> float:
        known = min(scales, key=lambda u: abs(u - t))
        if not math.isclose(known, t, rel_tol=1e-6, abs_tol=1e-12):
            raise ValueError(
                f"CFG++ has a scale for each step of its grid, and at t = {float(t):.9g} none "
                "begins: give the solver the same times, and take one that asks at grid points "
                "alone (ddim, dpm_solver_pp_2m)"
            )
        return scales[known]

    at.__name__ = f"{w:g}/(1 - exp(-h))" if eta == 0 else f"{w:g}, eta={eta:g}"  # as repr tells it
    return Extrapolation(*pair(conditional, unconditional), at, "cfg_plus_plus")
