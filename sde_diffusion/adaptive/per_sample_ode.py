r"""Embedded Runge-Kutta pairs on the probability-flow ODE, steps chosen by each sample.

In the straight coordinates y = x/(alpha + sigma), phi = sigma/(alpha + sigma), every schedule is
the line of flow matching (Lipman et al. 2023, arXiv:2210.02747), and its ODE is

    dy/dphi = E[eps | x] - E[x_0 | x] = (y - d)/phi,        phi from 1 (noise) to 0 (data),

regular at alpha = 0, with straight lines for solutions where d and eps stay what they are: an
Euler step is a DDIM step, and all the pairs below are exact for data in one point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..names import look_up
from .per_sample import (
    Asked,
    Control,
    column,
    enter,
    error_norm,
    leave,
    phi_of,
    tensors,
    time_of_phi,
    walk,
)
from .solution import Solution


@dataclass(frozen=True)
class Pair:
    """An embedded pair whose last stage is the first of the next step (FSAL).

    Attributes:
        order: of the solution that is kept.
        a: row i gives the point of stage i + 1 by the slopes of stages 0 .. i; the last row is
            the solution.
        e: weights of the solution less those of the embedded one, of order `order` - 1.
    """

    order: int
    a: tuple[tuple[float, ...], ...]
    e: tuple[float, ...]


PAIRS = {
    "bosh3": Pair(
        3,
        ((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        (-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    ),
    "dopri5": Pair(
        5,
        (
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    ),
}


@torch.no_grad()
def per_sample_ode(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    method: str = "dopri5",
    rtol: float = 1e-4,
    atol: float = 1e-4,
    first_step: float | None = None,
    max_steps: int = 1000,
    progress: bool = False,
) -> Solution:
    """Solve the probability-flow ODE with an embedded pair and steps of each sample's own.

    In the straight coordinates of the module, with E the root mean square over a sample's numbers
    of (error of y)/(atol + rtol max(|y_t|, |y_s|)), and proportional-integral control of the steps.
    A step tried costs 3 ("bosh3") or 6 ("dopri5") network calls; the first costs one more. Where
    the times end at sigma = 0, the ODE is solved to `schedule.t_clean` and the output there, which
    is known, is the result: alpha d.

    Bogacki & Shampine, "A 3(2) pair of Runge-Kutta formulas", 1989; Dormand & Prince, "A family of
    embedded Runge-Kutta formulae", 1980; Soederlind, 2002, for the control.

    Args:
        denoiser: E[x_0 | x_t]; asked at one time a sample.
        x: state at times[0], shape (batch, *event).
        times: noisy to clean; only the ends are used. alpha may be 0 at the start.
        method: "bosh3" or "dopri5".
        rtol, atol: tolerances of y = x/(alpha + sigma), which at the clean end is x.
        first_step: size in phi of the first step tried; by default tolerance^(1/order).
        max_steps: steps that a sample may try.
        progress: show a progress bar (needs the extra "bench").

    Raises:
        ValueError: unknown method, tolerance or step not positive, bad times or state.
        FloatingPointError: numbers that are not finite; steps that shrink to nothing.
        RuntimeError: if max_steps are not enough.
    """
    pair = look_up("method", method, PAIRS)
    x, t_start, t_stop, t_end = enter(denoiser, x, times, rtol, atol, max_steps)
    if first_step is not None and not 0 < first_step <= 1:
        raise ValueError(f"first_step = {first_step} must lie in (0, 1], the range of phi")
    schedule, asked = denoiser.schedule, Asked(denoiser, x)
    start, stop = float(phi_of(schedule, t_start)), float(phi_of(schedule, t_stop))

    def time_of(phi: Tensor) -> Tensor:
        return time_of_phi(schedule, phi, (start, t_start), (stop, t_stop))

    def slope(who: Tensor, y: Tensor, phi: Tensor) -> Tensor:
        t = time_of(phi)
        alpha_t, sigma_t = tensors(*schedule(t))
        d = asked(who, column(alpha_t + sigma_t, y) * y, t)
        return (y - d) / column(phi, y)

    def scale(t: float) -> float:
        alpha_t, sigma_t = schedule(t)
        return float(alpha_t + sigma_t)

    position = torch.full((len(x),), start, dtype=torch.float64)
    y = x / scale(t_start)
    slopes = slope(torch.arange(len(x)), y, position)

    def attempt(who: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Callable[[Tensor], None]]:
        place = who.to(y.device)
        y_t, h = y[place], q - p
        y_s, k = y_t, [slopes[place]]
        for row in pair.a:
            y_s = y_t + column(h, y) * _sum(row, k)
            c = sum(row)
            k.append(slope(who, y_s, q if abs(c - 1) < 1e-12 else p + c * h))
        largest = torch.maximum(y_t.abs(), y_s.abs())
        error = error_norm(column(h, y) * _sum(pair.e, k), atol + rtol * largest)

        def take(taken: Tensor) -> None:
            keep = taken.to(y.device)
            y[place[keep]], slopes[place[keep]] = y_s[keep], k[-1][keep]

        return error, take

    first = max(rtol, atol) ** (1 / pair.order) if first_step is None else first_step
    control = Control(0.6 / pair.order, 0.2 / pair.order, retry=1 / pair.order)
    walk(attempt, position, stop, first, control, max_steps, time_of, progress)
    x = leave(asked, scale(t_stop) * y, t_stop, t_end, y - stop * slopes)
    return Solution(x, asked.calls, asked.each)


def _sum(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total + weight * slope
    return total
