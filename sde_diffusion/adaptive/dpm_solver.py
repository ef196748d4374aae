r"""Adaptive DPM-Solver-12 and -23: each sample chooses its steps in lambda.

Lu et al., "DPM-Solver", 2022, arXiv:2206.00927, appendix C ("adaptive step size"); data
prediction: "DPM-Solver++", 2022, arXiv:2211.01095. Noise and data prediction are one formula
under the exchange of alpha with sigma and of h with -h. With F the prediction, F_i its value at
lambda_t + r_i h and (a, c, u) = (alpha, sigma, h) for noise, (sigma, alpha, -h) for data,

    order 1     x_s = (a_s/a_t) x_t - c_s (e^u - 1) F
    order 2     the same - c_s (e^u - 1)/2 (F_1 - F)/r_1,            F_1 at the state of order 1
    order 3     the same as order 1 - c_s psi(u) (F_2 - F)/r_2,      psi(u) = (e^u - 1)/u - 1,
                F_2 at (a_2/a_t) x_t - c_2 [(e^{r_2 u} - 1) F + r_2 psi(r_2 u) (F_1 - F)/r_1]

with r_1 = 1/2 for the pair of orders 1 and 2, r_1 = 1/3 and r_2 = 2/3 for 2 and 3. A pair shares
its outputs: 2 network calls, or 3, of which the first is kept where the step is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    leave_pure_noise,
    tensors,
    walk,
)
from .solution import Solution


@torch.no_grad()
def dpm_solver_adaptive(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    order: int = 3,
    prediction: str = "data",
    rtol: float = 0.05,
    atol: float = 0.0078,
    first_step: float = 0.05,
    safety: float = 0.9,
    max_steps: int = 1000,
    progress: bool = False,
) -> Solution:
    """DPM-Solver-12 or -23 with steps h in lambda that each sample chooses.

    A step is taken (with the solution of the higher order) if E <= 1, E the root mean square over
    a sample's numbers of (x_high - x_low) / max(atol, rtol |x_low|, rtol |x_low of the step
    before|), and h <- safety h E^(-1/order), either way. Where the times end at sigma = 0 the
    steps go to `schedule.t_clean`, and one DDIM step from there; where they start at alpha = 0,
    where lambda is -inf, the first step is one of DDIM under the same tolerance.

    Where x starts far larger than the data (VE, EDM), so does rtol |x of the step before|, and
    with a loose rtol a single step may leap over all of the data's scale: take rtol = 1e-3 or less
    there, or `per_sample_ode`.

    Lu et al., "DPM-Solver", 2022, arXiv:2206.00927, appendix C (with order 3, rtol 0.05, atol
    0.0078 for data in [-1, 1], first_step 0.05); with "data", the same for DPM-Solver++,
    arXiv:2211.01095. In the paper E is the largest of a batch.

    Args:
        denoiser: E[x_0 | x_t]; asked at one time a sample.
        x: state at times[0], shape (batch, *event).
        times: noisy to clean; only the ends are used.
        order: 2 (DPM-Solver-12) or 3 (DPM-Solver-23), of the solution that is kept.
        prediction: what is a polynomial in lambda, "noise" or "data".
        rtol, atol: tolerances of x.
        first_step: h of the first step tried.
        safety: in (0, 1).
        max_steps: steps that a sample may try.
        progress: show a progress bar (needs the extra "bench").

    Raises:
        ValueError: unknown order or prediction, tolerance or step not positive, bad times or state.
        FloatingPointError: numbers that are not finite; steps that shrink to nothing.
        RuntimeError: if max_steps are not enough.
    """
    noise = look_up("prediction", prediction, {"noise": True, "data": False})
    if order not in (2, 3):
        raise ValueError(f"order = {order!r} must be 2 (DPM-Solver-12) or 3 (DPM-Solver-23)")
    if not 0 < first_step < float("inf") or not 0 < safety < 1:
        raise ValueError(
            f"first_step = {first_step}, safety = {safety}: the step in lambda must be positive "
            "and finite (0.05), the safety between 0 and 1 (0.9)"
        )
    x, t_start, t_stop, t_end = enter(denoiser, x, times, rtol, atol, max_steps)
    schedule, asked = denoiser.schedule, Asked(denoiser, x)
    r_1, r_2 = 1 / order, 2 / 3  # of the inner points

    def time_of(lambda_: Tensor) -> Tensor:
        t = torch.as_tensor(schedule.time_of(lambda_))
        return torch.where(lambda_ == stop, t_stop, t)

    def scales(t: Tensor) -> tuple[Tensor, Tensor]:
        """(a, c): what multiplies x, what multiplies the prediction."""
        alpha_t, sigma_t = tensors(*schedule(t))
        return (alpha_t, sigma_t) if noise else (sigma_t, alpha_t)

    def predict(x: Tensor, d: Tensor, t: Tensor) -> Tensor:
        alpha_t, sigma_t = tensors(*schedule(t))
        return (x - column(alpha_t, x) * d) / column(sigma_t, x) if noise else d

    def attempt(who: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Callable[[Tensor], None]]:
        place = who.to(x.device)
        x_t, t = x[place], origin(who, p)
        u = (q - p) if noise else (p - q)
        a_t, _ = scales(t)
        out = predict(x_t, asked.first(who, x_t, t), t)

        def point(r: float, slope: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            """(state, time) at lambda_t + r h, from a weight of the change of the prediction."""
            s = time_of(q if r == 1 else p + r * (q - p))
            a_s, c_s = scales(s)
            y = column(a_s / a_t, x) * x_t - column(c_s * torch.expm1(r * u), x) * out
            return y - column(c_s * weight, x) * slope, s

        def change(y: Tensor, s: Tensor, r: float) -> Tensor:
            """(F - F_t)/r at an inner point."""
            return (predict(y, asked(who, y, s), s) - out) / r

        none = torch.zeros_like(u)
        slope = change(*point(r_1, out, none), r_1)
        first = point(1, out, none)[0]
        second = point(1, slope, torch.expm1(u) / 2)[0]
        low, high = first, second
        if order == 3:
            slope = change(*point(r_2, slope, _psi(r_2 * u) * r_2), r_2)
            low, high = second, point(1, slope, _psi(u))[0]
        largest = torch.maximum(low.abs(), before[place].abs())
        error = error_norm(high - low, (rtol * largest).clamp(min=atol))

        def take(taken: Tensor) -> None:
            keep = taken.to(x.device)
            x[place[keep]], before[place[keep]] = high[keep], low[keep]
            asked.forget(who[taken])

        return error, take

    if bool(schedule.alpha(t_start) == 0) and t_start != t_stop:
        began = leave_pure_noise(asked, x, t_start, t_stop, rtol, atol)
    else:
        began = torch.full((len(x),), t_start, dtype=torch.float64)
    before = x.clone()
    stop = float(schedule.half_log_snr(t_stop))
    position = torch.where(began == t_stop, stop, tensors(schedule.half_log_snr(began))[0])

    def origin(who: Tensor, p: Tensor) -> Tensor:
        """Times of p, at the start to the last bit."""
        return torch.where(p == position[who], began[who], time_of(p))

    rate = 1 / order
    control = Control(rate, 0.0, rate, safety, 0.0, float("inf"), patient=False)
    walk(attempt, position, stop, first_step, control, max_steps, time_of, progress)
    return Solution(leave(asked, x, t_stop, t_end), asked.calls, asked.each)


def _psi(u: Tensor) -> Tensor:
    """(e^u - 1)/u - 1, without cancellation near 0."""
    small = u.abs() < 1e-2
    safe = torch.where(small, 1.0, u)
    series = u * (1 / 2 + u * (1 / 6 + u * (1 / 24 + u * (1 / 120 + u * (1 / 720 + u / 5040)))))
    return torch.where(small, series, torch.expm1(safe) / safe - 1)
