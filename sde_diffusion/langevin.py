r"""Langevin samplers: predictor-corrector (score_sde) and annealed dynamics (NCSN).

Langevin dynamics at one noise level, dx = score dtau + sqrt(2) dw, leaves p_t as it is; steps of
it along the way mend what the steps between levels got wrong. The size of the published
corrector's steps depends on norms of the sample, so these are no plans; they are functions
(denoiser, x, times, **options) -> `Solution` on a grid of times, each level of which they visit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .adaptive.solution import Solution
from .counts import check_count, check_one
from .denoise import Denoiser, check_denoiser
from .names import look_up
from .noise import Noise, noise_from, plain_draws
from .run import check_state_for
from .scalar import Scalar
from .schedule import Schedule
from .states import along
from .times import check_grid

Predictor = Callable[[Schedule, float, float], tuple[Scalar, Scalar, Scalar]]
"""(schedule, t, s) -> (a, b, c) of the step a x + b d + c z from t to s."""


def reverse_diffusion(schedule: Schedule, t: float, s: float) -> tuple[Scalar, Scalar, Scalar]:
    """x_s = (2 - alpha_{t|s}) x + sigma_{t|s}^2 score + sigma_{t|s} z.

    The forward step x_t = alpha_{t|s} x_s + sigma_{t|s} z with its drift and noise turned round:
    for VE and VP the first lines of algorithms 2 and 3 of Song et al. (2021), arXiv:2011.13456.
    """
    alpha_t, sigma_t = schedule(t)
    alpha_ts, sigma_ts = schedule.transition(s, t)
    part = (sigma_ts / sigma_t) ** 2
    return 2 - alpha_ts - part, alpha_t * part, sigma_ts


def ancestral(schedule: Schedule, t: float, s: float) -> tuple[Scalar, Scalar, Scalar]:
    """A draw of x_s given x_t and x_0 = d: the variance is the posterior's (DDPM's betatilde)."""
    alpha_s, sigma_s = schedule(s)
    alpha_ts, sigma_ts = schedule.transition(s, t)
    part = sigma_ts / schedule.sigma(t)
    keep = sigma_s / schedule.sigma(t)
    return alpha_ts * keep**2, alpha_s * part**2, part * sigma_s


def euler_maruyama(schedule: Schedule, t: float, s: float) -> tuple[Scalar, Scalar, Scalar]:
    """x_s = x - h (f x - g^2 score) + g sqrt(h) z, h = t - s; needs alpha_t > 0."""
    (alpha_t, sigma_t), (alpha_dot, sigma_dot) = schedule(t), schedule.derivatives(t)
    if alpha_t == 0:
        raise ValueError(
            f"alpha = 0 at t = {t:g}, where f and g are infinite and Euler-Maruyama has no step: "
            "use another predictor, or start the grid at a smaller t"
        )
    h, growth = t - s, sigma_dot / sigma_t
    on_x = 1 - h * (2 * growth - alpha_dot / alpha_t)
    return on_x, 2 * h * (growth * alpha_t - alpha_dot), (h * schedule.g2(t)) ** 0.5


PREDICTORS: dict[str, Predictor] = {
    predictor.__name__: predictor for predictor in (reverse_diffusion, ancestral, euler_maruyama)
}


def langevin_size(score: Tensor, z: Tensor, sigma: float, snr: float, norm: str) -> Tensor:
    """eps = 2 (snr |z|/|score|)^2 of each sample, (batch,), by the norms that `norm` says."""
    if norm == "level":
        return torch.full((len(z),), 2 * (snr * sigma) ** 2, dtype=z.dtype, device=z.device)
    of_z, of_score = (v.reshape(len(v), -1).norm(dim=1) for v in (z, score))
    if norm == "batch":
        of_z, of_score = (v.mean().expand(len(z)) for v in (of_z, of_score))
    return 2 * (snr * of_z / of_score) ** 2


@torch.no_grad()
def predictor_corrector(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    predictor: str = "reverse_diffusion",
    corrector_steps: int = 1,
    snr: float = 0.16,
    norm: str = "level",
    corrector_first: bool = False,
    denoise: bool = True,
    noise: Noise | int | Sequence[int] | None = None,
) -> Solution:
    """A step to the next level, then Langevin steps at that level.

    x <- x + eps score(x, s) + sqrt(2 eps) z,    eps = 2 (snr |z| / |score|)^2

    Song et al., "Score-based generative modeling through SDEs", 2021, arXiv:2011.13456,
    algorithms 1 to 5 (appendix G). Their algorithm 5 (VP) multiplies eps by 1 - beta_i, which is
    1 in continuous time and is left out here. No corrector where sigma = 0.

    Args:
        denoiser: E[x_0 | x_t].
        x: state at times[0], shape (batch, *event).
        times: noisy to clean.
        predictor: a name of `PREDICTORS`: "reverse_diffusion", "ancestral" (betatilde for a
            variance; the published code for VP: beta) or "euler_maruyama".
        corrector_steps: Langevin steps a level; 0: the predictor alone.
        snr: the ratio r of the papers, above 0; 0.16 for VE on CIFAR-10.
        norm: "level": |z|/|score| = sigma, what it is in many dimensions where the data is near a
            point or a thin set, so that eps = 2 snr^2 sigma^2; "batch": the means of |z| and of
            |score| over the batch, as published; "sample": the norms of each sample. With "batch"
            a sample depends on its batch. With "sample" it does not, but eps grows without bound
            where the score vanishes, and a step that depends on x and z has another law: of no
            weight on images, of much in a few dimensions (on a ring in the plane, 100 levels,
            snr = 0.1, the variance is 1.8 times the data's).
        corrector_first: Langevin steps before a step to the next level, at the noisier of the two
            (the published code), and not after it (the paper).
        denoise: leave out the last noise of the run, as published.
        noise: a seed, or one seed a sample.

    Raises:
        ValueError: unknown predictor or norm, snr or number of steps out of range, bad times or
            state, alpha = 0 with "euler_maruyama".
        FloatingPointError: if the result is not finite.
    """
    rule = look_up("predictor", predictor, PREDICTORS)
    look_up("norm", norm, {"level": 0, "sample": 0, "batch": 0})
    check_count("corrector_steps", corrector_steps, 0)
    _check_positive("snr", snr, math.inf)
    x, grid = _enter(denoiser, x, times)
    schedule, draw, z = denoiser.schedule, plain_draws(noise_from(noise), x), torch.empty_like(x)
    calls = 0
    for t, s in pairwise(grid):
        a, b, c = rule(schedule, t, s)
        level = t if corrector_first else s
        corrections = corrector_steps if schedule.sigma(level) > 0 else 0
        last = denoise and s == grid[-1]

        def correct(x: Tensor, level: float, quiet: bool) -> Tensor:
            alpha, sigma = schedule(level)
            score = (float(alpha) * denoiser(x, level) - x) / float(sigma) ** 2
            draw(z, level, level)
            eps = along(langevin_size(score, z, float(sigma), snr, norm), x)
            x = x + eps * score
            return x if quiet else x + (2 * eps) ** 0.5 * z

        if corrector_first:
            for _ in range(corrections):
                x = correct(x, level, quiet=False)
        x_next = float(a) * x + float(b) * denoiser(x, t)
        if c and not (last and (corrector_first or not corrections)):
            x_next = x_next + float(c) * draw(z, t, s)
        x = x_next
        if not corrector_first:
            for i in range(corrections):
                x = correct(x, level, quiet=last and i == corrections - 1)
        calls += 1 + corrections
    return Solution(_checked_end(x, grid[-1]), calls)


@torch.no_grad()
def annealed_langevin(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    step: float = 0.2,
    inner_steps: int = 100,
    noise: Noise | int | Sequence[int] | None = None,
) -> Solution:
    """Langevin steps at one noise level after another, from y = x/alpha at rho = sigma/alpha.

    y <- y + (a/2) score(y, rho) + sqrt(a) z = y + (step/2) (d - y) + rho sqrt(step) z,
    a = step rho^2

    Song & Ermon, "Generative modeling by estimating gradients of the data distribution", 2019,
    arXiv:1907.05600, algorithm 1, whose a_i = eps sigma_i^2/sigma_L^2: step = eps/sigma_L^2, 0.2
    for its eps = 2e-5 and sigma_L = 0.01. Where the times end at sigma = 0 the last step there is
    x = alpha d: the denoising of Jolicoeur-Martineau et al. (2021), arXiv:2009.05475, and Song &
    Ermon (2020), arXiv:2006.09011, algorithm 1.

    Around data in one point the noise that results is rho / sqrt(1 - step/4), and for step >= 4
    without bound.

    Args:
        denoiser: E[x_0 | x_t].
        x: state at times[0], shape (batch, *event).
        times: the levels, noisy to clean, alpha > 0; in the paper a geometric series of rho, as
            `times.uniform_lambda` gives.
        step: in (0, 4).
        inner_steps: Langevin steps a level (the paper's T).
        noise: a seed, or one seed a sample.

    Raises:
        ValueError: step or number of steps out of range, bad times or state, alpha = 0.
        FloatingPointError: if the result is not finite.
    """
    _check_positive("step", step, 4.0)
    check_count("inner_steps", inner_steps)
    x, grid = _enter(denoiser, x, times)
    schedule, draw, z = denoiser.schedule, plain_draws(noise_from(noise), x), torch.empty_like(x)
    if schedule.alpha(grid[0]) == 0:
        raise ValueError(
            f"alpha = 0 at t = {grid[0]:g}, where the noise-to-signal ratio is infinite: start the "
            "grid at a smaller t"
        )
    levels = [t for t in grid if schedule.sigma(t) > 0]
    y = x / float(schedule.alpha(grid[0]))
    for t in levels:
        alpha_t, rho_t = float(schedule.alpha(t)), float(schedule.rho(t))
        for _ in range(inner_steps):
            d = denoiser(alpha_t * y, t)
            y = y + (step / 2) * (d - y) + (rho_t * math.sqrt(step)) * draw(z, t, t)
    calls = len(levels) * inner_steps
    if levels[-1] != grid[-1]:
        y = denoiser(float(schedule.alpha(levels[-1])) * y, levels[-1])
        calls += 1
    return Solution(_checked_end(float(schedule.alpha(grid[-1])) * y, grid[-1]), calls)


LANGEVIN: dict[str, Callable[..., Solution]] = {
    sampler.__name__: sampler for sampler in (annealed_langevin, predictor_corrector)
}


def _enter(
    denoiser: Denoiser, x: Tensor, times: Sequence[float] | Tensor
) -> tuple[Tensor, list[float]]:
    check_denoiser(denoiser)
    check_state_for(denoiser, x)
    grid = [float(t) for t in check_grid(denoiser.schedule, times)]
    return x.to(torch.promote_types(x.dtype, torch.float32), copy=True), grid


def _check_positive(name: str, value: float, most: float) -> None:
    check_one(name, value, "0.1")
    if not 0 < value < most:
        raise ValueError(f"{name} = {value} must be above 0 and below {most:g}")


def _checked_end(x: Tensor, t: float) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise FloatingPointError(
            f"the state at t = {t:g} is not finite; look at the network's output, or take smaller "
            "Langevin steps"
        )
    return x
