r"""Ito's density estimate: the density of a sample while it is drawn, with no divergence at all.

Along the reverse SDE, backwards in time, Ito's lemma for log p_t(x_t) has the term g^2/2 div s of
the quadratic variation, and the Fokker-Planck equation the same with the other sign; they cancel.
In y = x/alpha and rho = sigma/alpha, with s the score of y and -d rho^2 > 0 the clock,

    d log p(y) = <s, dy> - 1/2 |s|^2 (-d rho^2)          (Ito: s where the step begins)

(Skreta et al., "The superposition of diffusion models using the Ito density estimator", 2024,
arXiv:2412.17762, theorem 1, in these coordinates). Over a step from t to s with d = E[x_0 | x] held
fixed, s = (d - y)/rho^2, this is integrated exactly, whatever path the noise takes:

    log p_s(x_s) - log p_t(x_t) ~ log N(x_s; alpha_s d, sigma_s^2 I)
                                  - log N(x_t; alpha_t d, sigma_t^2 I).

Data in one point get their density without error. What is left is the change of d within a step,
against the noise of that step: zero on average to leading order, and of strong order 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..names import look_up
from ..noise import Noise, noise_from
from ..run import Point, run
from ..sample import starting_state
from ..solvers import SOLVERS
from .latents import Times, grid_of

REVERSE_SDE: dict[str, dict[str, Any]] = {
    "adams": {"tau": 1.0},
    "ddim": {"eta": 1.0},
    "ddpm": {"variance": "posterior"},
    "euler_maruyama": {},
    "sde_dpm_solver_pp_1": {},
    "sde_dpm_solver_pp_2m": {},
    "sde_dpm_solver_pp_3m": {},
    "seeds": {},
    "stochastic_heun": {},
    "stochastic_midpoint": {},
}
"""Solvers of the reverse SDE, and the options that make them so."""


@dataclass(frozen=True)
class DensitySamples:
    """Samples, and what the reverse SDE says of their density.

    Attributes:
        x: samples at time t, (batch, *event).
        log_prob: estimates of log p_t(x), (batch,), float64.
        log_prior: log p_T(x_T) that they start from.
        t: the clean end of the grid.
        nfe: network calls; as many as the sampler takes without an estimate.
    """

    x: Tensor
    log_prob: Tensor
    log_prior: Tensor
    t: float
    nfe: int


def sample_with_density(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    solver: str = "ddim",
    steps: int | None = None,
    times: Times = "default",
    t_end: float | None = None,
    seed: int | Sequence[int] | Noise | None = None,
    start: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    **options: Any,
) -> DensitySamples:
    """Draw samples by the reverse SDE, each with an estimate of its log-density, at no extra cost.

    log p_0 ~ log p_T(x_T) + sum log N(x_s; alpha_s d, sigma_s^2 I)/N(x_t; alpha_t d, sigma_t^2 I).

    Skreta et al., "The superposition of diffusion models using the Ito density estimator", 2024,
    arXiv:2412.17762. The error falls as steps^(-1/2), its mean faster.

    Args:
        denoiser: E[x_0 | x_t].
        shape: (batch, *event).
        solver: one of `REVERSE_SDE`, run with the noise of the reverse SDE ("ddim" with eta = 1).
        steps, times, t_end: the grid, as for `encode`; sigma > 0 at its end.
        seed, start, dtype, device: as for `sample`.
        options: further ones of the solver.

    Raises:
        ValueError, TypeError: a solver that is not one of the reverse SDE, or options that take
            its noise away; what `sample` refuses.
    """
    settings = look_up("solver of the reverse SDE", solver, REVERSE_SDE)
    for name, value in settings.items():
        if options.get(name, value) != value:
            raise ValueError(
                f"{name} = {options[name]!r}: the estimate holds for the noise of the reverse SDE "
                f"alone, which {solver} draws with {name} = {value!r}"
            )
    grid = grid_of(denoiser, steps, times, t_end)
    schedule = denoiser.schedule
    plan = SOLVERS[solver](schedule, grid, **{**settings, **options})
    noise = noise_from(seed)
    x_T = starting_state(denoiser, tuple(shape), grid[0], noise, start, dtype, device)
    log_prior = _log_normal(x_T, 0.0, float(schedule.sigma(grid[0])))
    total, previous = log_prior.clone(), x_T.clone()

    def follow(point: Point) -> None:
        nonlocal total, previous
        if point.index:
            (alpha_t, sigma_t), (alpha_s, sigma_s) = (
                map(float, schedule(grid[i])) for i in (point.index - 1, point.index)
            )
            d = point.denoised
            assert d is not None  # every grid point of these solvers is asked
            total = total + _log_normal(point.x, alpha_s * d.double(), sigma_s)
            total = total - _log_normal(previous, alpha_t * d.double(), sigma_t)
        previous = point.x.clone()

    x = run(plan, denoiser, x_T, noise=noise, callback=follow)
    return DensitySamples(x, total, log_prior, grid[-1], plan.nfe)


def _log_normal(x: Tensor, mean: Tensor | float, sigma: float) -> Tensor:
    """log N(x; mean, sigma^2 I), (batch,), float64."""
    e = ((x.double() - mean) / sigma).reshape(len(x), -1)
    constant = e.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(sigma))
    return -0.5 * e.square().sum(1) - constant
