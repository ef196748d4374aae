r"""A plan fitted to a model: from a solver's plan, or any other, to a better one of as many calls.

A plan is a table of numbers, and its end x(theta) a differentiable function of those that are left
free. From starting points x_T^n, whose exact ends x*^n a teacher finds once,

    theta = argmin  mean over n of  rho(|r(x^n(theta), x*^n)|^2)

on the train starts; the best of the iterations is chosen on others, the validation starts, and so
is the plan that is returned: the tuned one, or the base if the tuned one is no better there.

Watson et al., "Learning fast samplers for diffusion models by differentiating through sample
quality", 2022, arXiv:2202.05830, and what the ways of fitting name.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..certificates import invariants
from ..comparison.compare import describe
from ..counts import check_count, checked_number
from ..denoise import Denoiser
from ..guidance.gaussian_start import GaussianStart
from ..guidance.guided import cost_of
from ..names import look_up
from ..plan import Plan
from ..progress import Progress
from ..schedule import Schedule
from ..solvers.solver import made_for
from ..store import digest
from ..version import __version__
from .base import Base
from .begin import Solver, Times, begin, default_sampler
from .choices import KNOTS_OF_PATHS, LAWS, LOSSES, PATHWISE, WITH_PATH, Fitter
from .family import Family
from .fit import Fit, unit_of
from .kept import fingerprint, probe
from .loss import Loss, balanced, endpoint, robust
from .measure import Errors, measure
from .pairs import Pairs
from .record import GAIN, before, record_of, warn, warn_unused
from .reference import Reference, how_many, pairs_of
from .report import summary
from .resume import Keeper
from .stopped import best_kept, best_plan_file, check_answered, paths_kept
from .way import Way, way_of


@torch.inference_mode(False)
def tune(
    base: Solver,
    denoiser: Denoiser,
    starts: Tensor | int | None = None,
    reference: Reference = None,
    *,
    nfe: int | None = None,
    free: str | Callable[[Base], Family] = "table",
    loss: str | Loss = "endpoint",
    scale: float | None = None,
    method: str | Fitter | None = None,
    keep: int | None = None,
    validation: float | int = 0.25,
    shape: Sequence[int] | None = None,
    seed: int = 0,
    times: Times = "default",
    t_start: float | None = None,
    t_end: float | None = None,
    tolerance: float = 1e-6,
    chunk: int = 256,
    label: str | None = None,
    folder: str | Path | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
    **options: Any,
) -> Plan:
    """Fit a plan to a model; the result is an ordinary plan that knows how it was made.

    `tuning.report(plan)` tells what it betters, `plan.save` keeps it, `sample(solver=plan)` uses
    it. With a folder, the teacher's paths and the fit are kept there, and a call that was stopped
    goes on where it was when it is made again; without one they are lost.

    Args:
        base: what to begin with: a solver's name, with options after it ("adams order=3"), or its
            function (schedule, times) -> Plan, for which nfe is needed; or a `Plan`, or its path.
        denoiser: the model. One made by `guidance.gaussian_start` answers at the start for nothing:
            the first call of a table then stays there, and the plan is to be run with it, too.
        starts: x_T, (n, *event), or how many to draw as `sample` does; None with a reference that
            has its own. The last of them are the validation starts.
        reference: what the plan is fitted to: None (an accurate solution of the network's own
            ODE), a teacher's name or a `Plan` (see `teach`), the ends x* of the starts, or `Pairs`.
        nfe: calls of the denoiser a sample, at most (a solver that asks twice a step makes 3 of 4);
            of a `gaussian_start` those above its level cost nothing.
        free: what is free: a name of `FAMILIES` or `STRATEGIES`, or a function `Base` -> `Family`.
        loss: a name of `LOSSES`, or a `Loss` of one's own.
        scale: of a loss given by name: relative errors beyond it count little (`Loss`); inf: all
            count by their square; default: for "endpoint" what suits the errors of the default of
            `sample` (`loss.balanced` where a table is fitted in stages, else `loss.robust`), inf
            for the others.
        method: a name of `METHODS`, or a function of that kind; default: what suits `free`.
        keep: how many of the starts to use: half of them those whose end is most in doubt, half
            drawn from the others, and each counts for as many as it stands for
            (`tuning.choose_starts`); default: all, alike.
        validation: share of the starts used, below 1, or their number.
        shape: of one sample, (*event), with a number of starts.
        seed: of the starts, and of a stochastic plan's noise.
        times: the solver's grid: a name of `times.GRIDS`, a function (schedule, steps) -> times, or
            the times.
        t_start, t_end: ends of the grid; default: the grid's own.
        tolerance: of the teacher.
        chunk: samples that the teacher, the fit and the measurements take at once, at most.
        label: of the network, for the record and the folder; default: its class. That in a
            `gaussian_start` is labelled alone, so that the teacher's paths are found again.
        folder: where teacher's paths and the state of the fit are kept.
        dtype, device: of starts drawn; default: the network's, but float32 at least, and float64
            where it has none of its own.
        progress: tell on stderr how far it is.
        options: of the method (max_iterations and so on).

    Returns:
        The tuned plan, or the base where the tuned one has no smaller loss on the validation
        starts; a UserWarning says so then, where the default of `sample` is better than either,
        and where a `gaussian_start` has no answer at the plan's start.

    Raises:
        TypeError, ValueError: unknown names and options (with the nearest right one); no nfe, or
            one that is not the plan's; fewer train starts than free numbers, no validation starts;
            a reference of another schedule, shape, or time; a folder of another network.
        FloatingPointError: if the teacher, or the base, leaves the finite numbers, or if the
            network does so in mid-fit for good.
        KeyboardInterrupt: passed on, as is what the network raises, after the state was saved; the
            best plan so far is the exception's attribute `plan`, and with a folder in a file there.
    """
    began = time.monotonic()
    if not isinstance(denoiser, Denoiser):
        raise TypeError(
            f"tune needs a Denoiser second, not {type(denoiser).__name__}; say how to read the "
            "network: NetworkDenoiser(network, schedule, prediction='noise')"
        )
    schedule = denoiser.schedule
    target = _loss(loss, schedule, scale)
    if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
        raise ValueError(f"folder = {str(folder)!r} is a file: give a folder, or a new name")
    beginning = begin(base, schedule, nfe, times, t_start, t_end)
    if beginning.plan.rows[0].asks and not cost_of(denoiser, [beginning.t_start]).calls:
        beginning = replace(beginning, known=True)
    law = denoiser if isinstance(denoiser, GaussianStart) else None
    taught = denoiser if law is None else law.below  # whose ODE it is
    label = describe(taught) if label is None else label
    if law is not None and not beginning.known:
        warn_unused(law.above, beginning)
    _check_law(beginning.plan, target)
    also = list(inspect.signature(tune).parameters)[3:-1]
    check_count("chunk", chunk)
    options = {k: tuple(v) if isinstance(v, Iterator) else v for k, v in options.items()}
    if isinstance(starts, int) and not isinstance(starts, bool):
        check_count("starts", starts, 2)
    way = way_of(free, method, beginning, options, chunk, seed, also)
    if way.family is not None:
        _check_law(way.family.plan(), target)
    if keep is not None:
        check_count("keep", keep, 2)
    if keep is not None or getattr(reference, "weights", None) is not None:
        _check_weighed(target, way)
    count = how_many(starts, reference, keep)
    if count is not None:
        trained = count - held_out(count, validation)
        if trained < way.numbers:
            raise ValueError(
                f"{trained} train starts for {way.numbers} free numbers ({way.free}): "
                "give more starts (best fifty for each number), or free less"
            )
    if dtype is None:
        own = getattr(taught, "dtype", None) or torch.float64
        dtype = torch.promote_types(own, torch.float32)
    teaching: dict[str, Any] = {"shape": shape, "seed": seed, "dtype": dtype, "device": device}
    teaching |= {"tolerance": tolerance, "chunk": chunk, "label": label, "folder": folder}
    with_path = bool({target.name, way.free} & WITH_PATH)
    with paths_kept(folder):
        pairs = pairs_of(
            reference, taught, beginning, starts, with_path, keep, **teaching, progress=progress
        )
    train, held = split(pairs, validation)
    known, usual = {"base": beginning.plan}, default_sampler(beginning)
    if usual is not None and not usual.equals(beginning.plan):
        known["default"] = usual
    if loss == "endpoint" and scale is None:
        errors = measure(usual or beginning.plan, denoiser, endpoint(), held, chunk)
        target = (balanced if way.free == "table" and way.family is None else robust)(errors)
    compared = _Compared(denoiser, target, train, held, chunk, seed)
    found = {key: compared(plan) for key, plan in known.items()}
    begin_loss = found["base"][1].loss
    if not math.isfinite(begin_loss):
        raise FloatingPointError(
            f"the loss of {beginning.plan.name}, to begin with, is not finite on the validation "
            "starts: begin with another base, or look at the network's answers"
        )
    settled: list[Any] = [
        way.free,
        way.method,
        target.name,
        [target.scale, target.share] if isinstance(loss, Loss) else scale,
        repr(schedule),
        seed,
        repr(options),
    ]
    settled += [beginning.plan.matrix().tolist(), beginning.times, beginning.known, len(train)]
    weights = () if pairs.weights is None else (pairs.weights,)
    settled += [fingerprint(pairs.starts, pairs.ends, *weights), label, __version__]
    if law is not None:
        settled += [law.above, fingerprint(law.law.mean, law.law.variances)]
    file = None if folder is None else Path(folder) / "fits" / f"{digest(settled)}.npz"
    answers = probe(denoiser, pairs.starts, pairs.t_start, pairs.t_end)
    with Progress(0, progress) as telling:
        keeper = Keeper(file, answers, label, telling, way.family, best_plan_file(file))
        with best_kept(keeper, beginning.plan, begin_loss, unit_of(target, held)):
            tuned, fit = _fitted(way, beginning, compared, keeper)
            found["tuned"] = compared(tuned)
            again = lambda: compared(beginning.plan)[1].loss
            check_answered(found["tuned"][1].loss, keeper, again)
    plans = {**known, "tuned": tuned}
    bettered = found["tuned"][1].loss * GAIN < found["base"][1].loss
    best = "tuned" if bettered else "base"
    chosen = plans[best]
    record = record_of(chosen, target, way, fit, pairs, train, held)
    record["network calls"] = cost_of(denoiser, chosen.asked_at).calls
    if law is not None:
        record["law known above"] = law.above
    record |= {"options": {key: str(value) for key, value in options.items()}, "seed": seed}
    record |= {"drawn": isinstance(starts, int) and not isinstance(reference, Pairs)}
    record |= {"label": label, "schedule": repr(schedule), "chosen": best}
    kept = invariants(chosen, schedule)
    record |= {"off": kept.worst, "amplification": kept.amplification}
    record["results"] = {
        key: {"name": plans[key].name, "train": on[0].plain(), "validation": on[1].plain()}
        for key, on in found.items()
    }
    if beginning.plan.origin:  # a plan that was tuned before
        record["before"] = before(beginning.plan.origin)
    record |= {"seconds": time.monotonic() - began, "about": summary(record)}
    warn(found, plans, fit, best)
    return replace(chosen, origin=record)


def _loss(loss: str | Loss, schedule: Schedule, scale: float | None) -> Loss:
    if isinstance(loss, Loss):
        if scale is not None:
            raise ValueError(f"scale = {scale!r} beside a Loss, which has its own: leave it out")
        return loss
    make = look_up("loss", loss, LOSSES)
    return make(schedule) if scale is None else make(schedule, checked_number(scale, "scale"))


def _check_law(plan: Plan, loss: Loss) -> None:
    """Raise ValueError for a loss that compares paths, of a plan that draws noise."""
    if plan.stochastic and loss.name in PATHWISE:
        raise ValueError(
            f"{plan.name} draws noise, which loss = {loss.name!r} would take for error: give "
            "loss='sliced', or what makes the sampler deterministic"
        )


def _check_weighed(loss: Loss, way: Way) -> None:
    """Raise ValueError for what takes all samples alike."""
    alike = way.free in KNOTS_OF_PATHS or loss.name in LAWS
    if alike:
        what = f"free = {way.free!r}" if way.free in KNOTS_OF_PATHS else f"loss = {loss.name!r}"
        raise ValueError(
            f"keep and weights make starts count differently, and {what} takes all alike: leave "
            "them out"
        )


def split(pairs: Pairs, validation: float | int) -> tuple[Pairs, Pairs]:
    """Train and validation pairs: the last ones are for validation.

    Raises:
        ValueError: if a part would be empty.
    """
    n = len(pairs)
    held = held_out(n, validation)
    return pairs.part(0, n - held).normal(), pairs.part(n - held).normal()


def held_out(n: int, validation: float | int) -> int:
    """How many of n starts are for validation.

    Raises:
        ValueError: if a part would be empty.
    """
    fine = isinstance(validation, int | float) and not isinstance(validation, bool)
    share = isinstance(validation, float)
    fine = fine and (0 < validation < 1 or not share)
    held = round(n * validation) if fine and share else validation
    if not fine or not 1 <= held < n:
        raise ValueError(
            f"validation = {validation!r} of {n} starts: give a share between 0 and 1, or a whole "
            "number, that leaves at least one start on either side"
        )
    return int(held)


@dataclass(frozen=True)
class _Compared:
    """Errors of a plan on both sets of starts."""

    denoiser: Denoiser
    loss: Loss
    train: Pairs
    validation: Pairs
    chunk: int
    seed: int

    def __call__(self, plan: Plan) -> tuple[Errors, Errors]:
        train, validation = (
            measure(plan, self.denoiser, self.loss, pairs, self.chunk, self.seed + k)
            for k, pairs in enumerate((self.train, self.validation))
        )
        return train, validation


def _fitted(way: Way, base: Base, task: _Compared, keeper: Keeper) -> tuple[Plan, Fit]:
    """The fit, gone on with where it was stopped; what it found best if it leaves the numbers."""
    given = task.denoiser, task.loss, task.train, task.validation
    try:
        plan, fit = way.run(*given, state=keeper.state, watch=keeper)
    except FloatingPointError as error:
        best = keeper.best
        if best is None:
            raise
        stopped = f"not finite: {error}"
        fit = Fit(best.numbers, math.nan, best.loss, best.iteration, math.nan, stopped)
        plan = best.plan
    spent = keeper.seconds
    keeper.save()
    name = f"tuned {way.free}, NFE {plan.nfe}, from {base.plan.name}"
    return made_for(plan.detached(), base.schedule, name), replace(fit, seconds=spent)
