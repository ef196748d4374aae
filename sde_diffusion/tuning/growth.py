r"""A whole table fitted call by call: from one network call to n, each plan grown from the last.

A table of many calls has many local minima, one of few calls few. So the fit begins with one call,
at sigma = alpha, and goes from k calls to k + 1 by a new call in one of the k + 1
gaps (before the first call, between two, after the last). With u = x/hypot(alpha, sigma) and the
angle theta = arctan(sigma/alpha), the new state lies on the chord,

    u_new = (1 - w) u_i + w u_(i+1),      theta_new = (1 - w) theta_i + w theta_(i+1),

at the geometric mean of the neighbours' noise levels sigma/alpha, and its output is used nowhere
yet: the grown plan is the same map, so that the loss only falls from there. Each gap gets a few
iterations on few starts; the best by validation loss gets more, on more. At n calls the plan that
was given is tried as well, and the winner is fitted on all starts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..denoise import Denoiser
from ..form import number_of
from ..plan import Plan, Row
from ..schedule import Schedule
from ..solvers.solver import made_for
from ..trace import Trace
from .fit import Fit, Progress, Watch
from .least_squares import least_squares
from .loss import Loss
from .pairs import Pairs
from .table import table

if TYPE_CHECKING:
    from .choices import Base


def grow(
    base: Base,
    denoiser: Denoiser,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    *,
    numbers: Tensor | None = None,
    state: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    max_iterations: int = 40,
    chunk: int = 128,
    first: Plan | None = None,
) -> tuple[Plan, Fit]:
    """The best table found, with as many calls and the same ends as the plan given.

    Args:
        base: with a deterministic plan: its number of calls, its ends, and a first guess.
        denoiser: the model.
        loss: of a plan's states against the pairs.
        train: starts to fit on, best fifty for each number; the early fits take the first of them.
        validation: starts to choose on.
        numbers, state: of the last `Progress`, to go on as if there had been no break.
        watch: called after each iteration.
        max_iterations: of the last fit, on all starts.
        chunk: samples run at once.
        first: a plan of fewer calls (or as many) to grow from, with the same ends, in place of one
            of one call: say, one fitted before, on this schedule or another (`table.carried`).

    Returns:
        (the plan, its fit).

    Raises:
        ValueError: a stochastic plan; fewer train starts than free numbers.
    """
    began = time.monotonic()
    if base.plan.stochastic:
        raise ValueError(f"{base.plan.name} draws noise: a table that is grown is deterministic")
    fits = _Fits(base.schedule, denoiser, loss, train, validation, chunk, watch, state)
    plan = one_call(base.plan, base.schedule) if first is None else first
    while plan.nfe < base.plan.nfe:
        guesses = [split(plan, base.schedule, gap) for gap in range(plan.nfe + 1)]
        if plan.nfe + 1 == base.plan.nfe and base.schedule.alpha(base.plan.asked_at[0]) > 0:
            guesses.append(base.plan)
        plan = fits.best(guesses)
        if plan.nfe < base.plan.nfe:
            plan = fits(plan, _MIDDLE, _MIDDLE_ITERATIONS)[0]
    plan, fit = fits(plan, len(train), max_iterations)
    spent = time.monotonic() - began
    return plan, Fit(fit.numbers, fit.train, fit.validation, fits.iterations, spent, fit.stopped)


_FEW, _FEW_ITERATIONS = 384, 5  # starts and iterations of a gap
_MIDDLE, _MIDDLE_ITERATIONS = 1024, 10  # of a plan that will be grown


def one_call(like: Plan, schedule: Schedule) -> Plan:
    """One network call at sigma = alpha, or as near as the ends allow, and a step of DDIM.

    Args:
        like: a plan with the same ends.
        schedule: alpha_t, sigma_t.
    """
    t_start, t_end = (number_of(like.rows[i].t) for i in (0, -1))
    noisy, clean = (float(schedule.half_log_snr(t)) for t in (t_start, t_end))
    inside = min(1.0, (clean - noisy) / 4)  # how far from the ends
    t = float(schedule.time_of(min(max(0.0, noisy + inside), clean - inside)))
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(t_end)
    trace = Trace(t_start)
    x, d = trace.denoise(_radius(schedule, t) / _radius(schedule, t_start) * trace.x, t)
    x = alpha_s * d + sigma_s * (x - alpha_t * d) / sigma_t
    return made_for(trace.end(x, t_end), schedule, "one call")


def split(plan: Plan, schedule: Schedule, gap: int) -> Plan:
    """The same map with one call more, whose output is not used yet.

    Args:
        plan: deterministic, with n calls.
        schedule: that it was made for.
        gap: 0 (before the first call) .. n (after the last).
    """
    t_start, t_end = (number_of(plan.rows[i].t) for i in (0, -1))
    times = [t_start, *plan.asked_at, t_end]
    radii = [_radius(schedule, t) for t in times]
    first = [1.0] + [0.0] * plan.nfe
    lines = [first, *plan.matrix().tolist()]
    t = _between(schedule, times, gap)
    w = (_angle(schedule, times[gap]) - _angle(schedule, t)) / (
        _angle(schedule, times[gap]) - _angle(schedule, times[gap + 1])
    )
    scales = (1 - w) * _radius(schedule, t) / radii[gap], w * _radius(schedule, t) / radii[gap + 1]
    new = [scales[0] * a + scales[1] * b for a, b in zip(lines[gap], lines[gap + 1], strict=True)]
    lines.insert(gap + 1, new)
    times.insert(gap + 1, t)
    rows = [Row("given", t_start)]
    for i, (line, time_) in enumerate(zip(lines[1:], times[1:], strict=True)):
        line = [*line[: gap + 1], 0.0, *line[gap + 1 :]]  # the new output is d_gap
        kind = "end" if i > plan.nfe else "denoise"
        rows.append(Row(kind, time_, {0: line[0]}, {j: line[1 + j] for j in range(i)}))
    return made_for(Plan(tuple(rows)), schedule, "grown")


def _between(schedule: Schedule, times: Sequence[float], gap: int) -> float:
    """The time of the geometric mean of two noise levels; beyond the calls, a third on the way."""
    levels = [float(schedule.half_log_snr(t)) for t in times]
    before, after = levels[gap], levels[gap + 1]
    if gap == 0:
        before = max(before, after - 2 * math.log(3))
    if gap == len(times) - 2:
        clean = float(schedule.half_log_snr(max(schedule.t_clean, times[-1])))
        after = min(before + 2 * math.log(3), clean)
    return float(schedule.time_of((before + after) / 2))


def _radius(schedule: Schedule, t: float) -> float:
    return math.hypot(*map(float, schedule(t)))


def _angle(schedule: Schedule, t: float) -> float:
    alpha_t, sigma_t = map(float, schedule(t))
    return math.atan2(sigma_t, alpha_t)


@dataclass
class _Fits:
    """A sequence of fits that can be stopped: those done are remembered, the last goes on."""

    schedule: Schedule
    denoiser: Denoiser
    loss: Loss
    train: Pairs
    validation: Pairs
    chunk: int
    watch: Watch | None
    state: Mapping[str, Any] | None
    done: list[tuple[Tensor, float, float, int, str]] = field(default_factory=list)
    iterations: int = 0

    def __call__(self, plan: Plan, starts: int, iterations: int) -> tuple[Plan, Fit]:
        """The plan's table fitted on the first starts: (the fitted plan, its fit)."""
        family = table(plan, self.schedule)
        fit = self._remembered() or least_squares(
            family,
            self.denoiser,
            self.loss,
            self.train.part(0, max(starts, len(family.start))),
            self.validation if starts >= len(self.train) else self.validation.part(0, starts),
            state=self._unfinished(),
            watch=self._tell,
            max_iterations=iterations,
            chunk=self.chunk,
        )
        self.done.append((fit.numbers, fit.train, fit.validation, fit.iterations, fit.stopped))
        self.iterations += fit.iterations
        return family.plan(fit.numbers), fit

    def best(self, plans: Sequence[Plan]) -> Plan:
        """The best of some plans after a few iterations each."""
        fitted = [self(plan, _FEW, _FEW_ITERATIONS) for plan in plans]
        return min(fitted, key=lambda found: found[1].validation)[0]

    def _remembered(self) -> Fit | None:
        """The next fit, if it was done before a break."""
        before = [] if self.state is None else self.state["done"]
        if len(self.done) >= len(before):
            return None
        numbers, train, validation, iterations, stopped = before[len(self.done)]
        return Fit(numbers, train, validation, iterations, 0.0, stopped)

    def _unfinished(self) -> Mapping[str, Any] | None:
        """The state of the fit that was going on at a break, once."""
        if self.state is None or len(self.done) > len(self.state["done"]):
            return None
        inner: Mapping[str, Any] = self.state["inner"]
        return inner

    def _tell(self, progress: Progress) -> None:
        if self.watch is not None:
            state = {"done": list(self.done), "inner": dict(progress.state)}
            at = self.iterations + progress.iteration
            self.watch(Progress(at, progress.numbers, progress.train, progress.validation, state))
