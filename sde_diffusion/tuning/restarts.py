r"""A whole table fitted from several first guesses.

The loss of a table has many local minima, and which one a fit ends in is a matter of where it
begins, and of chance; the way there is long, but a few hundred starts show it as well as many. So

    1. each guess is fitted on few starts, `tries` times, with other signs in the estimate of H (see
       `objective`) each time: a few iterations, which tell the hopeless ones;
    2. the best go on, on few starts, until they converge;
    3. the best of these go on, on all starts, with the wide loss and then with the loss
       itself, and the best of all is the plan.

The best by the loss on starts that the fit has not seen: those for validation, and in the first two
rounds the other train starts (successive halving: Jamieson & Talwalkar, "Non-stochastic best arm
identification and hyperparameter optimization", 2016, arXiv:1502.07943).

A robust loss has minima where many samples end in another mode, from which no small step leads out,
because those hardly count. So all but the last fits have the wide loss: the mean square, to which
these matter most. From there the loss itself brings the usual error down, and leaves them where
they are (graduated non-convexity: Blake & Zisserman, "Visual reconstruction", 1987).

The guesses are the plan given, the table of the default of `sample` where it has one for so many
calls, and third-order Adams steps in the angle theta = arctan(sigma/alpha) with an analytic first
step (but where a call at the start costs nothing), on the grids

    theta_k = theta_end + (theta_start - theta_end) (1 - k/n)^p,      p = 1, 3/2,

and on one that is even in log(sigma/alpha), from 25 to 0.1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from ..counts import check_count
from ..denoise import Denoiser
from ..few_steps import fitted_plan
from ..form import number_of
from ..plan import Plan
from ..schedule import Schedule
from ..solvers.angular import angular
from ..transform import analytic_first_step
from .base import Base
from .family import Family
from .fit import Fit, Progress, Watch, unit_of
from .least_squares import least_squares
from .loss import Loss
from .measure import measure
from .pairs import Pairs
from .table import table

_POWERS = (1.0, 1.5)
_EVEN = (25.0, 0.1)  # sigma/alpha of the first call and of the last
_FEW = 1024  # starts of the early fits
_LOOK, _EARLY, _WIDE = 6, 30, 12  # the most iterations of the fits with the wide loss
_SECOND, _LAST = 3, 2  # fits that reach the second round, and the last


def restarts(
    base: Base,
    denoiser: Denoiser,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    *,
    state: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    max_iterations: int = 40,
    ftol: float = 1e-3,
    chunk: int = 128,
    guesses: Sequence[Plan] = (),
    usual: bool = True,
    tries: int = 2,
    seed: int = 0,
) -> tuple[Plan, Fit]:
    """The best table found, with as many calls and the same ends as the plan given.

    Args:
        base: with a deterministic plan: its number of calls, its ends, and a first guess.
        denoiser: the model.
        loss: of a plan's states against the pairs.
        train: starts to fit on, best fifty for each number; the early fits take the first of them.
        validation: starts to choose on.
        state: of the last `Progress`, to go on as if there had been no break.
        watch: called after each iteration.
        max_iterations: of each of the fits on all starts.
        ftol: of `least_squares`, in every fit.
        chunk: samples run at once.
        guesses: plans of as many calls with the same ends, to try beside the usual ones: say, one
            fitted to another model, or on another schedule (`transform.on_schedule`), or one of one
            call less (`grown`).
        usual: whether to try the usual ones, too, and the plan itself.
        tries: fits of each guess in the first round, at least 1.
        seed: of the signs.

    Returns:
        (the plan, its fit).

    Raises:
        TypeError: a guess that is no plan.
        ValueError: a stochastic plan; a guess with another number of calls or other ends; fewer
            train starts than free numbers; tries below 1.
    """
    began = time.monotonic()
    check_count("tries", tries)
    task = denoiser, train, validation
    fits = _Fits(base.schedule, base.known, *task, chunk, ftol, watch, state)
    begun = _tried(base, guesses, usual)
    tried = [(guess, seed * tries + k) for guess in begun for k in range(tries)]
    wide = replace(loss, scale=math.inf)
    looked = [(fits(guess, wide, _LOOK, signs, few=True), signs) for guess, signs in tried]
    looked = sorted(looked, key=lambda one: one[0].loss)[:_SECOND]
    early = [(fits(one.plan, wide, _EARLY, signs, few=True), signs) for one, signs in looked]
    early = sorted(early, key=lambda one: one[0].loss)[:_LAST]
    if wide != loss:
        most = min(_WIDE, max_iterations)
        early = [(fits(one.plan, wide, most, signs), signs) for one, signs in early]
    last = [fits(one.plan, loss, max_iterations, signs) for one, signs in early]
    found, fit, _ = min(last, key=lambda one: one.loss)
    spent = time.monotonic() - began
    return found, Fit(fit.numbers, fit.train, fit.validation, fits.iterations, spent, fit.stopped)


def free_numbers(base: Base, guesses: Sequence[Plan] = (), usual: bool = True) -> int:
    """The most numbers that a fit frees, and so the fewest train starts.

    Raises:
        TypeError, ValueError: as `restarts`.
    """
    tables = (
        table(p, base.schedule, first_call=not base.known) for p in _tried(base, guesses, usual)
    )
    return max(len(family.start) for family in tables)


def _tried(base: Base, guesses: Iterable[Plan], usual: bool) -> list[Plan]:
    """All guesses: those given, the usual ones, and the plan where its first call can move."""
    plan, schedule = base.plan, base.schedule
    if plan.stochastic:
        raise ValueError(f"{plan.name} draws noise: a whole table is a deterministic sampler")
    if isinstance(guesses, str | Plan) or not isinstance(guesses, Iterable):
        raise TypeError(f"guesses is a {type(guesses).__name__}: give a list of plans")
    if not isinstance(usual, bool):
        raise TypeError(f"usual = {usual!r}: give True, or False to try the guesses alone")
    guesses = tuple(guesses)
    for guess in guesses:
        _check(guess, plan, base.known)
    if not (usual or guesses):
        raise ValueError("usual = False and no guesses: there is nothing to begin with")
    if not usual:
        return [*guesses]
    tried = [*guesses, *first_guesses(plan, schedule, base.known)]
    if base.known or float(schedule.alpha(plan.asked_at[0])) > 0:
        tried.append(plan)
    return tried


def first_guesses(like: Plan, schedule: Schedule, known: bool = False) -> list[Plan]:
    """Angular steps with an analytic first step on some grids; the default's table, if it has one.

    Args:
        like: a plan with the same number of calls and the same ends.
        schedule: alpha_t, sigma_t.
        known: whether a call at the start costs nothing, so that none is spared there.
    """
    t_start, t_end = (number_of(like.rows[i].t) for i in (0, -1))
    first, last = (math.atan2(*map(float, reversed(schedule(t)))) for t in (t_start, t_end))
    steps, plans = like.nfe + (not known), []
    shares = [1 - k / steps for k in range(1, steps)]
    grids = [[last + (first - last) * share**power for share in shares] for power in _POWERS]
    if math.tan(last) < _EVEN[1] and math.tan(first) > _EVEN[0] and steps > 2:
        high, low = map(math.log, _EVEN)
        ramp = [high + (low - high) * k / (steps - 2) for k in range(steps - 1)]
        grids.append([math.atan(math.exp(level)) for level in ramp])
    for inner in grids:
        levels = [-math.log(math.tan(theta)) for theta in inner]
        times = [t_start, *(float(schedule.time_of(level)) for level in levels), t_end]
        steady = angular(schedule, times)
        plans.append(steady if known else analytic_first_step(steady, schedule))
    fitted = fitted_plan(schedule, like.nfe, t_start, t_end)
    return plans if fitted is None else [*plans, fitted]


def _check(guess: Plan, plan: Plan, known: bool) -> None:
    if not isinstance(guess, Plan):
        raise TypeError(
            f"a guess is {guess!r}: give plans, as SOLVERS['ddim'](schedule, times) or Plan.load"
        )
    if guess.nfe != plan.nfe:
        raise ValueError(f"the guess {guess.name} asks {guess.nfe} times, the plan {plan.nfe}")
    if known and not guess.rows[0].asks:
        raise ValueError(
            f"the guess {guess.name} does not ask at its start, where the denoiser's answer costs "
            "nothing: give plans that do"
        )
    for i, end in ((0, "starts"), (-1, "ends")):
        there, here = (number_of(p.rows[i].t) for p in (guess, plan))
        if not math.isclose(there, here, rel_tol=1e-9, abs_tol=1e-12):
            raise ValueError(f"the guess {guess.name} {end} at t = {there:g}, the plan at {here:g}")


class _Fitted(NamedTuple):
    """A fitted table, its fit, and the loss on all starts that the fit has not seen."""

    plan: Plan
    fit: Fit
    loss: float


@dataclass
class _Fits:
    """A sequence of fits that can be stopped: those done are remembered, the last goes on."""

    schedule: Schedule
    known: bool
    denoiser: Denoiser
    train: Pairs
    validation: Pairs
    chunk: int
    ftol: float
    watch: Watch | None
    state: Mapping[str, Any] | None
    done: list[tuple[Tensor, float, float, int, str]] = field(default_factory=list)
    iterations: int = 0

    def __call__(
        self, plan: Plan, loss: Loss, iterations: int, signs: int, few: bool = False
    ) -> _Fitted:
        """The plan's table fitted."""
        family = table(plan, self.schedule, first_call=not self.known)
        train, validation = self.train, self.validation
        if few:
            train = train.part(0, max(_FEW, len(family.start)))
            validation = validation.part(0, _FEW)
        told = partial(self._tell, family, unit_of(loss, validation))
        fit = self._remembered() or least_squares(
            family,
            self.denoiser,
            loss,
            train,
            validation,
            state=self._unfinished(),
            watch=told,
            max_iterations=iterations,
            ftol=self.ftol,
            chunk=self.chunk,
            seed=signs,
        )
        self.done.append((fit.numbers, fit.train, fit.validation, fit.iterations, fit.stopped))
        self.iterations += fit.iterations
        found = family.plan(fit.numbers)
        return _Fitted(found, fit, self._measured(found, loss, self.train.part(len(train))))

    def _measured(self, plan: Plan, loss: Loss, others: Pairs) -> float:
        """The loss on the validation starts and on others."""
        total = 0.0
        for pairs in (self.validation, others):
            if len(pairs):
                total += len(pairs) * measure(plan, self.denoiser, loss, pairs, self.chunk).loss
        return total / (len(self.validation) + len(others))

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

    def _tell(self, family: Family, unit: str, progress: Progress) -> None:
        if self.watch is not None:
            state = {"done": list(self.done), "inner": dict(progress.state)}
            at = self.iterations + progress.iteration
            losses = progress.train, progress.validation
            self.watch(Progress(at, progress.numbers, *losses, state, family, unit))
