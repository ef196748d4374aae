r"""Restart: down by an ODE solver, back up by the forward process, and down again.

Noise added between two levels contracts what errors have gathered, while the way down is an ODE's
and so cheap in steps. The way up is the forward process, exact for any gap:

    x_high = (alpha_high/alpha_low) x_low + sigma_{high|low} z.

Xu et al., "Restart sampling for improving generative processes", 2023, arXiv:2306.14878.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..form import Form, number_of
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar, log
from ..schedule import Schedule
from ..trace import Trace
from ..transform import replay
from .solver import SOLVERS, Claim, solver

Interval = tuple[float, float, int, int | None]


@solver(
    "Xu et al. 2023, arXiv:2306.14878",
    Claim(2),
    Claim(1, {"base": "ddim"}, point_exact=True),
)
def restart(
    schedule: Schedule,
    times: list[Scalar],
    base: str | Callable[..., Plan] = "heun",
    intervals: tuple[Interval, ...] = ((0.3, 0.9, 2, None),),
    s_noise: float = 1.0,
) -> Plan:
    """Restart sampling over any deterministic solver.

    At each interval (low, high, K, steps), levels of the noise-to-signal ratio sigma/alpha (the
    sigma of EDM), the plan stops at `low`, and K times goes back up to `high` by the forward
    process and down again by the base solver in `steps` steps. With K = 0 it is the base.

    Xu et al., 2023, arXiv:2306.14878, section 3 and algorithm 1 ("Restart"; base Heun, steps even
    in sigma^(1/7)); tables 3-5 list intervals, as ((0.06, 0.3, 2, 3),) for CIFAR-10.

    Args:
        schedule: alpha_t, sigma_t.
        times: noisy to clean; rows of restarts count as stages, not as grid points.
        base: name of a deterministic solver, or a function (schedule, times) -> Plan. A multistep
            method starts afresh in each piece.
        intervals: (low, high, K, steps), from the noisiest to the cleanest `low`. steps = None
            takes the points of the grid between low and high.
        s_noise: factor on the noise of the way up (the paper's S_noise, 1.003 there).

    Raises:
        ValueError: levels out of order or outside the grid or the schedule; K < 0; steps < 1; a
            stochastic base; s_noise < 0.
    """
    if s_noise < 0:
        raise ValueError(f"s_noise = {s_noise} must not be negative; 1 is the exact noise")
    make = look_up("base", base, SOLVERS) if isinstance(base, str) else base
    grid = frozenset(map(number_of, times))
    trace = Trace(times[0])
    x, left = trace.x, times
    for low, high, count, steps in _checked(intervals):
        if count == 0:
            continue
        bottom, top = _levels(schedule, left, low, high, count, steps)
        above = [t for t in left if t > bottom]
        left = [bottom, *(t for t in left if t < bottom)]
        x = _down(trace, x, make(schedule, [*above, bottom]), grid)
        if steps is None:
            down = [top, *(t for t in times if bottom < t < top), bottom]
        else:
            down = [top, *_even(schedule, high, low, steps), bottom]
        for _ in range(count):
            scale, deviation = schedule.transition(bottom, top)
            x = scale * x + s_noise * deviation * trace.noise(bottom, top)
            x = _down(trace, x, make(schedule, down))
    if len(left) > 1:
        x = _down(trace, x, make(schedule, left), grid)
    return trace.end(x, times[-1])


def _checked(intervals: Sequence[Interval]) -> Sequence[Interval]:
    """The intervals; TypeError unless each is (low, high, K, steps)."""
    if not isinstance(intervals, list | tuple) or not all(map(_is_interval, intervals)):
        raise TypeError(
            f"intervals = {intervals!r} must be a list of (low, high, K, steps), low and high "
            "levels of sigma/alpha, K and steps integers (steps may be None), as "
            "((0.3, 0.9, 2, None),)"
        )
    return intervals


def _is_interval(interval: Any) -> bool:
    if not isinstance(interval, list | tuple) or len(interval) != 4:
        return False
    low, high, count, steps = interval
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (count, steps or 0))
    return whole and all(isinstance(level, int | float) for level in (low, high))


def _levels(
    schedule: Schedule,
    left: list[Scalar],
    low: float,
    high: float,
    count: int,
    steps: int | None,
) -> tuple[Scalar, Scalar]:
    """The times of an interval's ends."""
    first, last, ends = (number_of(schedule.rho(t)) for t in (left[0], left[-1], schedule.t_max))
    if not (0 < low < high <= ends and last <= low < first):
        raise ValueError(
            f"the interval ({low:g}, {high:g}) of sigma/alpha must have 0 < low < high <= "
            f"{ends:g}, the schedule's noisiest, and low in [{last:.4g}, {first:.4g}), where the "
            "grid has yet to go; give intervals=((low, high, K, steps), ...) inside"
        )
    if count < 0 or (steps is not None and steps < 1):
        raise ValueError(f"K = {count} and steps = {steps}: at least 0 restarts of at least 1 step")
    close = 1e-9 * (schedule.t_max - schedule.t_min)

    def time(level: float) -> Scalar:  # a point of the grid, if it lies there but for rounding
        t = schedule.time_of(-log(level))
        return next((u for u in left if abs(number_of(u) - number_of(t)) < close), t)

    return time(low), time(high)


def _even(schedule: Schedule, high: float, low: float, steps: int) -> list[Scalar]:
    """Times between two levels, even in (sigma/alpha)^(1/7)."""
    a, b = high ** (1 / 7), low ** (1 / 7)
    levels = [(a + (b - a) * i / steps) ** 7 for i in range(1, steps)]
    return [schedule.time_of(-log(level)) for level in levels]


def _down(
    trace: Trace,
    x: Form,
    plan: Plan,
    grid: frozenset[float] = frozenset(),
) -> Form:
    """The base solver's rows; its points are grid points where they lie on the grid."""
    if plan.stochastic:
        raise ValueError(f"base {plan.name} draws noise; Restart adds its own to an ODE solver")
    return replay(trace, x, plan, grid=grid)[0]
