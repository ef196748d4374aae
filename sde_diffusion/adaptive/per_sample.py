r"""Steps that each sample chooses for itself: what all adaptive samplers of this package share.

A sample at position p of its own (lambda, phi or t) tries a step of its own size h. The method
says by how much the tolerance was exceeded, E; a step with E <= 1 is taken, and

    h <- h min(largest, max(smallest, safety E^(-integral) E_prev^proportional)),

after a rejection h <- h safety E^(-retry), at least `smallest` (Soederlind, "Automatic control
and adaptive time-stepping", Numerical Algorithms 31, 2002; Hairer & Wanner, "Solving ODEs II",
section IV.2). One network call serves all samples that are still under way, each at its own
time; samples that have arrived are left out of it. So a sample's result depends on the rest of
its batch no more than the network's answers do: not at all, to the last bit, where these do not;
where they differ by rounding, by rounding, unless that turns an E that equals 1 to all digits
into a rejection (then by the tolerance).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..answers import wrong_output
from ..counts import check_one
from ..denoise import Denoiser, check_denoiser
from ..extras import optional
from ..run import check_state_for
from ..scalar import Scalar
from ..schedule import Schedule
from ..times import check_grid, check_steps

Attempt = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Callable[[Tensor], None]]]
"""(who, p, q) -> (E, take): samples `who` (indices) try to step from p to q, float64, one a
sample; take(mask) takes those of these steps that `mask` says."""

_SMALLEST = 1e-10  # a step below this part of the interval is a step that shrinks to nothing


@dataclass(frozen=True)
class Control:
    """How the next step follows from the error E of this one; see the module.

    With `patient`, h does not grow straight after a rejection.
    """

    integral: float
    proportional: float
    retry: float
    safety: float = 0.9
    smallest: float = 0.2
    largest: float = 5.0
    patient: bool = True

    def after_success(self, error: Tensor, previous: Tensor) -> Tensor:
        """Factor of h; the error before was a rejection's if it is above 1."""
        factor = self.safety * error**-self.integral * previous.clamp(max=1.0) ** self.proportional
        factor = factor.clamp(self.smallest, self.largest)
        return torch.where(previous > 1, factor.clamp(max=1.0), factor) if self.patient else factor

    def after_failure(self, error: Tensor) -> Tensor:
        """Factor of h, below 1."""
        return (self.safety * error**-self.retry).clamp(self.smallest, self.safety)


class Asked:
    """The denoiser at one time a sample, with an exact account of what was asked.

    Attributes:
        calls: network calls so far.
        each: how many of them each sample took part in.
    """

    def __init__(self, denoiser: Denoiser, x: Tensor) -> None:
        self.denoiser = denoiser
        self.calls = 0
        self.each = torch.zeros(len(x), dtype=torch.int64)
        self._first = torch.empty_like(x)
        self._known = torch.zeros(len(x), dtype=torch.bool)

    def __call__(self, who: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """d of the samples `who`, in the states x, at times t (float64, CPU, one a sample)."""
        self.calls += 1
        self.each[who] += 1
        times = t.to(x.device, torch.float32 if x.device.type == "mps" else torch.float64)
        everyone = len(who) == len(self._first)  # in their order, as `walk` names them
        denoiser = self.denoiser if everyone else self.denoiser.select(who)
        try:
            d = denoiser(x, times)
        except Exception as error:
            error.add_note(
                "Adaptive samplers with steps of each sample's own ask the denoiser at one time a "
                "sample, t of shape (batch,). If this one takes one number only, wrap the "
                "function in FunctionDenoiser(function, schedule)."
            )
            raise
        if not isinstance(d, Tensor) or d.shape != x.shape:
            raise ValueError(wrong_output(d, x))
        d = d.to(x.dtype)
        finite = torch.isfinite(d).reshape(len(d), -1).all(1).cpu()
        if not bool(finite.all()):
            i = int((~finite).nonzero()[0])
            raise FloatingPointError(
                f"the denoiser's answer for sample {int(who[i])} at t = {float(t[i]):.6g} is not "
                "finite; look at the network, and at the range of times it was trained on"
            )
        return d

    def first(self, who: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The output where a step begins: asked once, however often the step is tried."""
        new = ~self._known[who]
        if bool(new.any()):
            place = new.to(x.device)
            self.keep(who[new], self(who[new], x[place], t[new]))
        return self._first[who.to(x.device)]

    def keep(self, who: Tensor, d: Tensor) -> None:
        """d is the output where the next step of `who` begins."""
        self._first[who.to(d.device)] = d
        self._known[who] = True

    def forget(self, who: Tensor) -> None:
        """The samples `who` have moved."""
        self._known[who] = False


def enter(
    denoiser: Denoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    rtol: float,
    atol: float,
    max_steps: int,
) -> tuple[Tensor, float, float, float]:
    """(state of one's own, t_start, t_stop, t_end), all checked.

    t_stop = t_end, or t_clean if sigma(t_end) = 0 (or t_start, if that is already below).
    """
    check_denoiser(denoiser)
    check_state_for(denoiser, x)
    for name, value in (("rtol", rtol), ("atol", atol)):
        check_one(name, value, "1e-3")
        if not 0 < value < math.inf:
            raise ValueError(f"{name} = {value}: a tolerance must be positive and finite")
    check_steps(max_steps)
    schedule = denoiser.schedule
    grid = [float(t) for t in check_grid(schedule, times)]
    start, end = grid[0], grid[-1]
    denoiser.bind([start], x)  # refuses a prediction that says nothing of the data at the start
    stop = min(start, schedule.t_clean) if bool(schedule.sigma(end) == 0) else end
    return x.to(torch.promote_types(x.dtype, torch.float32), copy=True), start, stop, end


def leave(asked: Asked, x: Tensor, stop: float, end: float, d: Tensor | None = None) -> Tensor:
    """x at t_stop carried to t_end: itself, or alpha d where sigma = 0 there (one DDIM step)."""
    schedule = asked.denoiser.schedule
    if bool(schedule.sigma(end) == 0):
        if d is None:
            d = asked(torch.arange(len(x)), x, torch.full((len(x),), stop, dtype=torch.float64))
        x = float(schedule.alpha(end)) * d
    if not bool(torch.isfinite(x).all()):
        raise FloatingPointError(f"the solution is not finite at t = {end:g}")
    return x


def walk(
    attempt: Attempt,
    start: Tensor,
    end: float,
    first: float,
    control: Control,
    max_steps: int,
    time_of: Callable[[Tensor], Tensor],
    progress: bool = False,
) -> None:
    """All samples from their positions `start`, (batch,) float64, to `end`.

    Args:
        attempt: tries a step; see `Attempt`.
        start, end: positions; all samples go the same way.
        first: size of the first step, positive.
        control: how steps follow from errors.
        max_steps: steps that a sample may try.
        time_of: positions to times, for what is said when it fails.
        progress: show a progress bar.

    Raises:
        FloatingPointError: an error estimate is not finite, or a step shrinks to nothing.
        RuntimeError: max_steps are not enough.
    """
    p, h = start.clone(), torch.full_like(start, first)
    span = (end - start).abs()
    previous = torch.ones_like(start)
    who = (span > 0).nonzero()[:, 0]
    direction = -1.0 if bool((start > end).any()) else 1.0
    with _progress(progress, len(start)) as show:
        for _ in range(max_steps):
            if not len(who):
                return
            left = (end - p[who]).abs()
            q = torch.where(h[who] >= left * (1 - 1e-10), end, p[who] + direction * h[who])
            tried = torch.minimum(h[who], left)
            error, take = attempt(who, p[who], q)
            _check_error(error, who, time_of(p[who]))
            taken = error <= 1
            error = error.clamp(min=1e-10)
            take(taken)
            p[who] = torch.where(taken, q, p[who])
            grown = control.after_success(error, previous[who])
            h[who] = tried * torch.where(taken, grown, control.after_failure(error))
            previous[who] = error
            _check_size(h[who], span[who], taken, who, time_of(p[who]))
            who = who[p[who] != end]
            show(1 - (end - p).abs() / span.clamp(min=1e-300))
    if len(who):
        raise RuntimeError(
            f"sample {int(who[0])} is at t = {float(time_of(p[who])[0]):.6g} after max_steps = "
            f"{max_steps} attempts; relax rtol or atol, or allow more max_steps"
        )


def error_norm(difference: Tensor, scale: Tensor) -> Tensor:
    """Root mean square of difference / scale for each sample; float64, on the CPU."""
    return (difference / scale).reshape(len(scale), -1).square().mean(1).sqrt().double().cpu()


def column(values: Tensor, like: Tensor) -> Tensor:
    """One number a sample, as a factor of states like these, (batch, 1, .., 1)."""
    return values.to(like.dtype).to(like.device).reshape(-1, *[1] * (like.ndim - 1))


def tensors(*coefficients: Scalar) -> list[Tensor]:
    """Coefficients of the schedule at times of shape (batch,), as float64 tensors."""
    return [torch.as_tensor(c, dtype=torch.float64) for c in coefficients]


def phi_of(schedule: Schedule, t: Scalar) -> Scalar:
    """phi = sigma/(alpha + sigma), 0 at data and 1 at noise."""
    alpha_t, sigma_t = schedule(t)
    return sigma_t / (alpha_t + sigma_t)


def time_of_phi(schedule: Schedule, phi: Tensor, *known: tuple[float, float]) -> Tensor:
    """Times of phi, (batch,) float64; the known (phi, t), ends of an interval, to the last bit."""
    t = torch.as_tensor(schedule.time_of(torch.log1p(-phi) - torch.log(phi)))
    for position, time in known:
        t = torch.where(phi == position, time, t)
    return t


def leave_pure_noise(
    asked: Asked, x: Tensor, start: float, stop: float, rtol: float, atol: float
) -> Tensor:
    r"""From alpha = 0, where lambda = -inf, to times (batch,) where it is finite; x is overwritten.

    With y = x/(alpha + sigma) and phi = sigma/(alpha + sigma), dy/dphi = (y - d)/phi is regular
    at phi = 1. One Euler step (which is DDIM) of size h has the error h/2 (slope at its end -
    slope at its start); the output at its end, which that asks for, is the first of the next
    step, and kept. A sample whose error exceeds the tolerance tries a smaller step. Noise that
    the reverse SDE would draw here changes nothing: x is pure noise.
    """
    schedule = asked.denoiser.schedule
    n = len(x)
    phi_stop = float(phi_of(schedule, stop))
    h = torch.full((n,), min(math.sqrt(max(rtol, atol)), (1 - phi_stop) / 2), dtype=torch.float64)
    who = torch.arange(n)
    times = torch.full((n,), start, dtype=torch.float64)
    y = x / float(schedule.sigma(start))
    slope = y - asked(who, x, times)
    while len(who):
        t = time_of_phi(schedule, 1 - h[who])
        alpha_t, sigma_t = tensors(*schedule(t))
        place = who.to(x.device)
        z = y[place] - column(h[who], x) * slope[place]
        state = column(alpha_t + sigma_t, x) * z
        d = asked(who, state, t)
        change = (z - d) / column(1 - h[who], x) - slope[place]
        largest = torch.maximum(y[place].abs(), z.abs())
        error = error_norm(column(h[who] / 2, x) * change, atol + rtol * largest)
        _check_error(error, who, t)
        taken = error <= 1
        keep = taken.to(x.device)
        x[place[keep]] = state[keep]
        asked.keep(who[taken], d[keep])
        times[who[taken]] = t[taken]
        factor = (0.9 * error.clamp(min=1e-10) ** -0.5).clamp(0.2, 0.9)
        h[who] = torch.where(taken, h[who], h[who] * factor)
        _check_size(h[who], torch.ones(len(who)), taken, who, t)
        who = who[~taken]
    return times


def _check_error(error: Tensor, who: Tensor, t: Tensor) -> None:
    if not bool(torch.isfinite(error).all()):
        i = int((~torch.isfinite(error)).nonzero()[0])
        raise FloatingPointError(
            f"the state of sample {int(who[i])} leaves the finite numbers at t = "
            f"{float(t[i]):.6g}; look at the network's output there, or take a smaller first_step"
        )


def _check_size(h: Tensor, span: Tensor, taken: Tensor, who: Tensor, t: Tensor) -> None:
    stuck = (h < _SMALLEST * span) & ~taken
    if bool(stuck.any()):
        i = int(stuck.nonzero()[0])
        raise FloatingPointError(
            f"the steps of sample {int(who[i])} shrink to nothing at t = {float(t[i]):.6g}: the "
            "denoiser jumps there, or rounding exceeds the tolerance; relax rtol or atol, use "
            "float64 states, or end before that time"
        )


@contextmanager
def _progress(show: bool, n: int) -> Iterator[Callable[[Tensor], None]]:
    """A function that shows how far each sample has come, as parts of 1."""
    if not show:
        yield lambda parts: None
        return
    with optional("rich.progress", "progress bars").Progress(transient=True) as bar:
        task = bar.add_task("adaptive", total=float(n))
        yield lambda parts: bar.update(task, completed=float(parts.sum()))
