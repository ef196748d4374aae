r"""Decoupled annealing: a sample of x_0 given x_t and y, then noise anew.

At each level t: x_0 ~ N(d, r_t^2 I) p(y | x_0), then x_s = alpha_s x_0 + sigma_s z. The states of
two levels depend on each other through x_0 alone, so that a sampler can leave a mode into which
early levels led. What is drawn depends on the state by more than a sum: no plan, but a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..adaptive.solution import Solution
from ..counts import check_count
from ..denoise import Denoiser
from ..noise import Noise, noise_from, plain_draws
from ..run import check_state_for, run
from ..solvers import SOLVERS
from ..states import inner
from ..times import check_grid, default
from .measurement import Measurement
from .operator import LinearOperator
from .posterior import Here, Linearised, check_posed, check_setting

POWERS = 10  # iterations for the norm of A'


@torch.no_grad()
def daps(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    measurement: Measurement,
    variance: float = 0.3,
    ode_steps: int = 1,
    langevin_steps: int | None = None,
    step: float = 0.1,
    noise: Noise | int | Sequence[int] | None = None,
) -> Solution:
    """At each level a draw of x_0 given x_t and y, which is then noised to the next; any A.

    x_0 ~ p(x_0) = N(x_0; d, r_t^2 I) N(y; A(x_0), sigma_y^2 I)/Z,  x_s = alpha_s x_0 + sigma_s z
    r_t^2 = v sigma^2/(v alpha^2 + sigma^2)

    Zhang, Chu, Berner, Meng, Anandkumar & Song, "Improving diffusion inverse problem solving with
    decoupled noise annealing", 2024, arXiv:2407.01521. For linear A the draw is exact: x_0 from
    the first factor, moved by r_t^2 A^T (r_t^2 A A^T + sigma_y^2 I)^{-1} (y + sigma_y z - A x_0).
    Otherwise, or if asked, by Langevin steps from d,

        x_0 <- x_0 + h grad log p(x_0) + sqrt(2 h) z,    h = step/(1/r_t^2 + |A'|^2/sigma_y^2),

    |A'| the norm of dA/dx at d: the worse A is conditioned, the more steps until x_0 is a draw of
    that law (on line integrals 200 are too few). Exact levels for data N(m, v I) with
    ode_steps = 1 and linear A.

    Args:
        denoiser: d = E[x_0 | x_t].
        x: state at times[0], (batch, *event).
        times: the levels, noisy to clean.
        measurement: y, A and sigma_y; sigma_y > 0 for Langevin steps.
        variance: v > 0, of the data in one coordinate, around one of its modes; inf for the
            paper's r_t = sigma/alpha, where alpha > 0.
        ode_steps: calls a level. 1: d is the mean; more: d is the end of the probability-flow
            trajectory from x_t, by so many steps of DDIM, as in the paper.
        langevin_steps: at each level; None: exact for linear A, otherwise 100.
        step: of Langevin, in (0, 1], in units of the narrowest direction's variance.
        noise: a seed, or one seed a sample.

    Returns:
        Solution: the state at the last time and the number of calls.

    Raises:
        TypeError: no Denoiser or no Measurement.
        ValueError: a setting out of range, bad times or state, Langevin steps without noise.
        FloatingPointError: if the result is not finite.
    """
    check_posed(denoiser, measurement)
    check_setting("variance", variance, above=True)
    check_setting("step", step, above=True, most=1.0)
    check_count("ode_steps", ode_steps)
    check_count("langevin_steps", langevin_steps, or_none=True)
    exact = langevin_steps is None and isinstance(measurement.operator, LinearOperator)
    if not exact and measurement.noise == 0:
        raise ValueError(
            "a measurement without noise: Langevin steps have no length; give its noise level"
        )
    check_state_for(denoiser, x)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    schedule, grid = denoiser.schedule, [float(t) for t in check_grid(denoiser.schedule, times)]
    draw, calls = _draws(noise, x), 0
    for t, s in pairwise(grid):
        alpha_t, sigma_t = schedule(t)
        here = Here(denoiser, measurement, x, t, alpha_t, sigma_t)
        d = here.prior() if ode_steps == 1 else _endpoint(here, ode_steps)
        calls += ode_steps
        r2 = float(here.spread(variance))
        if exact:
            clean = _exact(here, d, r2, draw)
        else:
            clean = _langevin(measurement, d, r2, langevin_steps or 100, step, draw)
        alpha_s, sigma_s = schedule(s)
        x = alpha_s * clean + sigma_s * draw(x) if sigma_s else alpha_s * clean
    if not bool(torch.isfinite(x).all()):
        raise FloatingPointError(
            f"the state at t = {grid[-1]:g} is not finite; look at the network's output, or take "
            "smaller Langevin steps"
        )
    return Solution(x, calls)


def _draws(noise: Noise | int | Sequence[int] | None, x: Tensor) -> Callable[[Tensor], Tensor]:
    """v -> normal numbers in v's shape, (batch, *any), from a stream of draws in x's."""
    stream = plain_draws(noise_from(noise), x)

    def draw(v: Tensor) -> Tensor:
        wanted, size = v[0].numel(), x[0].numel()
        parts = [stream(torch.empty_like(x), 0.0, 0.0) for _ in range(-(-wanted // size))]
        return torch.cat([z.flatten(1) for z in parts], 1)[:, :wanted].reshape(v.shape)

    return draw


def _endpoint(here: Here, steps: int) -> Tensor:
    """x_0 at the end of the probability-flow trajectory from here, by DDIM."""
    schedule = here.denoiser.schedule
    times = default(schedule, steps, t_start=float(here.t))
    x = run(SOLVERS["ddim"](schedule, times), here.denoiser, here.x)
    return x / schedule.alpha(float(times[-1]))


def _exact(here: Here, d: Tensor, r2: float, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """A draw of N(d, r^2 I) N(y; A x, sigma_y^2 I): a draw of both, and what y says of it."""
    x, noise = d + math.sqrt(r2) * draw(d), here.measurement.noise
    r = here.measurement.residual(x)
    r = r + noise * draw(r)
    return x + r2 * here.operator.adjoint_solve(r, r2, noise**2)


def _langevin(
    measurement: Measurement,
    d: Tensor,
    r2: float,
    steps: int,
    step: float,
    draw: Callable[[Tensor], Tensor],
) -> Tensor:
    """Langevin steps from d towards N(d, r^2 I) N(y; A(x), sigma_y^2 I)."""
    var_y = measurement.noise**2
    h = step / (1 / r2 + _norm2(Linearised(measurement, d)) / var_y)
    x = d
    for _ in range(steps):
        around = Linearised(measurement, x)
        slope = (d - x) / r2 + around.pull(around.residual) / var_y
        x = x + h * slope + (2 * h).sqrt() * draw(x)
    return x


def _norm2(around: Linearised) -> Tensor:
    """|A'|^2, the largest eigenvalue of A'^T A', (batch, 1, .., 1), by the power method."""
    v = around.pull(around.residual) + 1e-3 * around.d
    for _ in range(POWERS):
        length = inner(v, v).sqrt()
        v = around.pull(around.push(v / torch.where(length > 0, length, 1)))
    return inner(v, v).sqrt()
