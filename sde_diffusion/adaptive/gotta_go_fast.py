r"""The adaptive SDE solver of "Gotta go fast", steps chosen by each sample.

The reverse SDE (Anderson 1982), time running down by h, in the output d = E[x_0 | x_t]:

    dx = F dt + g dW,    F(x, t) = f x - g^2 score
                                 = -f x + 2 alpha' d + 2 (sigma'/sigma)(x - alpha d)

    x'  = x - h F(x, t) + g(t) dW                                   Euler-Maruyama
    x~  = x - h F(x', t - h) + g(t - h) dW                          with the same dW
    x'' = (x' + x~)/2                                               stochastic improved Euler
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..noise import Noise, noise_from
from ..schedule import Schedule
from .paths import BrownianPaths
from .per_sample import (
    Asked,
    Control,
    column,
    enter,
    error_norm,
    leave,
    leave_pure_noise,
    tensors,
    walk,
)
from .solution import Solution


@torch.no_grad()
def gotta_go_fast(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    rtol: float = 0.02,
    atol: float = 0.0078,
    noise: Noise | int | Sequence[int] | None = None,
    extrapolate: bool = True,
    first_step: float = 0.01,
    safety: float = 0.9,
    exponent: float = 0.9,
    max_steps: int = 10_000,
    progress: bool = False,
) -> Solution:
    """Solve the reverse SDE by Euler-Maruyama and improved Euler, steps by their difference.

    A step is taken if E <= 1, E the root mean square over a sample's numbers of
    (x' - x'') / max(atol, rtol |x'|, rtol |x' of the step before|); h <- safety h E^(-exponent),
    either way. A step tried costs 2 network calls, tried again 1: the output where it begins is
    kept. So is the Brownian path (see `paths`; the published code draws anew after a
    rejection, which favours small increments). Where the times end at sigma = 0, steps go to
    `schedule.t_clean` and the result is alpha d, the denoising at the end of the paper; where they
    start at alpha = 0, where g is infinite, the first step is one of DDIM.

    Jolicoeur-Martineau, Li, Piche-Taillefer, Kachman & Mitliagkas, "Gotta go fast when generating
    data with score-based models", 2021, arXiv:2105.14080, algorithm 1.

    Args:
        denoiser: E[x_0 | x_t]; asked at one time a sample.
        x: state at times[0], shape (batch, *event).
        times: noisy to clean; only the ends are used.
        rtol, atol: tolerances of x; 0.0078 is 2/256, for images in [-1, 1].
        noise: a seed, or one seed a sample (then a sample does not depend on its batch).
        extrapolate: keep x'' (the paper's choice), else x'.
        first_step: first step tried, as a part of t_max - t_min.
        safety, exponent: of the rule for h, in (0, 1) and (0, 1]; the paper's theta and r.
        max_steps: steps that a sample may try.
        progress: show a progress bar (needs the extra "bench").

    Raises:
        ValueError: tolerance, step or exponent out of range, bad times, state or seeds.
        FloatingPointError: numbers that are not finite; steps that shrink to nothing.
        RuntimeError: if max_steps are not enough.
    """
    for name, value in (("first_step", first_step), ("safety", safety), ("exponent", exponent)):
        if not 0 < value <= 1 or (name == "safety" and value == 1):
            raise ValueError(f"{name} = {value} is out of range; take 0.01, 0.9 and 0.9")
    x, t_start, t_stop, t_end = enter(denoiser, x, times, rtol, atol, max_steps)
    schedule, asked = denoiser.schedule, Asked(denoiser, x)
    paths = BrownianPaths(noise_from(noise), x)
    if bool(schedule.alpha(t_start) == 0) and t_start != t_stop:
        position = leave_pure_noise(asked, x, t_start, t_stop, rtol, atol)
    else:
        position = torch.full((len(x),), t_start, dtype=torch.float64)
    before = x.clone()

    def attempt(who: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Callable[[Tensor], None]]:
        place = who.to(x.device)
        x_t, h, dw = x[place], column(t - s, x), paths.increment(who, t, s)
        drift = _drift(schedule, x_t, asked.first(who, x_t, t), t)
        euler = x_t - h * drift + _diffusion(schedule, t, x) * dw
        drift = _drift(schedule, euler, asked(who, euler, s), s)
        improved = (euler + x_t - h * drift + _diffusion(schedule, s, x) * dw) / 2
        largest = torch.maximum(euler.abs(), before[place].abs())
        error = error_norm(euler - improved, (rtol * largest).clamp(min=atol))

        def take(taken: Tensor) -> None:
            keep = taken.to(x.device)
            x[place[keep]] = improved[keep] if extrapolate else euler[keep]
            before[place[keep]] = euler[keep]
            paths.move(who[taken], s[taken])
            asked.forget(who[taken])

        return error, take

    first = first_step * (schedule.t_max - schedule.t_min)
    control = Control(exponent, 0.0, exponent, safety, 0.0, float("inf"), patient=False)
    walk(attempt, position, t_stop, first, control, max_steps, lambda t: t, progress)
    return Solution(leave(asked, x, t_stop, t_end), asked.calls, asked.each)


def _drift(schedule: Schedule, x: Tensor, d: Tensor, t: Tensor) -> Tensor:
    alpha_t, sigma_t = tensors(*schedule(t))
    alpha_dot, sigma_dot = tensors(*schedule.derivatives(t))
    growth = sigma_dot / sigma_t
    on_x = 2 * growth - alpha_dot / alpha_t
    return column(on_x, x) * x + column(2 * (alpha_dot - growth * alpha_t), x) * d


def _diffusion(schedule: Schedule, t: Tensor, x: Tensor) -> Tensor:
    return column(tensors(schedule.g2(t))[0].sqrt(), x)
