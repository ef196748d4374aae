r"""Fitting any family of plans by quasi-Newton steps: all starts at once, and a few dozen numbers.

With B the inverse of a Hessian that is built up from gradients g alone, a step is

    u <- u - lambda B g,     lambda halved until L falls by a part of what g says,

    B <- (1 - r s y^T) B (1 - r y s^T) + r s s^T,     s = u' - u,  y = g' - g,  r = 1/(s . y).

Any smooth loss will do, and its gradient goes back as in `gradient`, in the memory of one network
call. That suits a loss between laws (`laws`): it is one figure of all samples, whose partners move
along, so that least squares misjudges its curvature, and batches of it are biased. The starts of
the fit are the same in each iteration, and so is the noise of a stochastic plan: give so many that
the loss on the validation starts follows.

Nocedal & Wright, "Numerical Optimization", 2006, ch. 6 (BFGS) and 3 (backtracking).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..counts import check_count
from .family import Family
from .fit import Fit, Progress, Watch
from .gradient import Network, Task, check_task
from .loss import Loss
from .pairs import Pairs
from .ready import check_gradient, differentiable

FALL = 1e-4  # of the decrease that the gradient promises: the least that a step must bring
FIRST = 0.1  # length of the first step, before anything is known of the curvature
LONGEST = 1.0  # of a step, |s|
TRIES = 12  # lengths of a step
IDLE = 2  # iterations in a row that gain too little


def quasi_newton(
    family: Family,
    denoiser: Network,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    *,
    state: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    max_iterations: int = 50,
    ftol: float = 1e-4,
    chunk: int | None = None,
    seed: int = 0,
) -> Fit:
    """The numbers of a family that make the loss on all train pairs small, by BFGS.

    Args:
        family: what is free; numbers of order 1, as all families here have.
        denoiser: the model; its parameters get no gradient.
        loss: of a plan's states against the pairs.
        train: pairs that the loss is lowered on.
        validation: other pairs, on which the best of the iterations is chosen.
        state: of the last `Progress` of a fit with these same arguments, to go on exactly as if
            there had been no break.
        watch: called after each iteration.
        max_iterations: of which each asks for the gradient on all pairs once, seldom twice.
        ftol: a fit has converged when two iterations in a row gain less than this share.
        chunk: samples run at once, which settles the memory; default: all. A loss between laws
            compares chunk by chunk.
        seed: of the noise of a stochastic plan.

    Returns:
        The best numbers by validation loss; stopped is "not finite" if there was no loss at the
        start, which are then the numbers, or none any more in mid-fit.

    Raises:
        ValueError: an argument out of its range; no pairs; a state of another family; a network
            without a gradient in its input.
    """
    began = time.monotonic()
    check_task(family, loss, train, validation, state)
    chunk = max(len(train), len(validation)) if chunk is None else chunk
    for name, count in {"max_iterations": max_iterations, "chunk": chunk}.items():
        check_count(name, count)
    task = Task.of(family, denoiser, loss, train, validation, chunk, seed)
    with differentiable():
        now = _begin(task) if state is None else _State(**state)
        check_gradient(denoiser, family.plan(), task.train.starts[: min(chunk, 2)])
    spent, stopped = now.seconds, "" if math.isfinite(now.train) else "not finite"
    while not stopped and now.iteration < max_iterations:
        with differentiable():
            then = _iterate(task, now, ftol)
        if then is None:
            stopped = "not finite"
            break
        now = replace(then, seconds=spent + time.monotonic() - began)
        if watch is not None:
            watch(Progress(now.iteration, now.numbers, now.train, now.validation, dict(vars(now))))
        stopped = "converged" if now.idle >= IDLE else ""
    final = task.value(now.best, task.train)
    seconds = spent + time.monotonic() - began
    stopped = stopped or "iterations"
    return Fit(now.best, final, now.best_validation, now.iteration, seconds, stopped)


@dataclass(frozen=True)
class _State:
    """All that the next iteration depends on; its tensors are replaced, never written to."""

    numbers: Tensor
    slope: Tensor
    inverse: Tensor  # B, (P, P); (0, 0) before anything is known
    best: Tensor
    train: float
    validation: float
    best_validation: float
    iteration: int = 0
    idle: int = 0
    seconds: float = 0.0


def _begin(task: Task) -> _State:
    u = task.family.start.detach().double().clone()
    held, value, slope = task.value(u, task.validation), math.nan, torch.zeros_like(u)
    if math.isfinite(held):
        value, slope = _look(task, u)
    return _State(u, slope, torch.zeros(0, 0).to(u), u, value, held, held)


def _look(task: Task, u: Tensor) -> tuple[float, Tensor]:
    """The loss and its gradient; a NaN where there is no such plan, or they are not finite."""
    everything = torch.arange(len(task.train))
    try:
        value, slope, _ = task.slope(u, everything, torch.zeros(0), task.seed)
    except FloatingPointError:
        return math.nan, torch.zeros_like(u)
    return (value if bool(slope.isfinite().all()) else math.nan), slope


def _iterate(task: Task, now: _State, ftol: float) -> _State | None:
    """One step down; where none is found the curvature is forgotten, and that is an idle one.

    None if there is, asked again, no loss where it stands: the network no longer answers.
    """
    iteration, known = now.iteration + 1, len(now.inverse) > 0
    way = -now.inverse @ now.slope if known else -now.slope
    length, promised = float(way.norm()), float(now.slope @ way)
    if length == 0.0:
        return replace(now, iteration=iteration, idle=IDLE)
    share, fine = min(1.0 if known else FIRST / length, LONGEST / length), True
    for _ in range(TRIES):
        u = now.numbers + share * way
        value, slope = _look(task, u)
        if value <= now.train + FALL * share * promised:
            break
        fine = fine and math.isfinite(value)
        share /= 2 if math.isfinite(value) else 4
    else:
        if not fine and _silent(task, now, task.train):
            return None
        return replace(now, iteration=iteration, inverse=now.inverse[:0, :0], idle=now.idle + 1)
    held = task.value(u, task.validation)
    if not math.isfinite(held) and _silent(task, now, task.validation):
        return None
    if held < now.best_validation:
        now = replace(now, best=u, best_validation=held)
    gained = now.train - value > ftol * abs(now.train)
    return replace(
        now,
        numbers=u,
        slope=slope,
        inverse=_updated(now.inverse, u - now.numbers, slope - now.slope),
        train=value,
        validation=held,
        iteration=iteration,
        idle=0 if gained else now.idle + 1,
    )


def _silent(task: Task, now: _State, pairs: Pairs) -> bool:
    """Whether there is no loss any more at the numbers of a state."""
    return not math.isfinite(task.value(now.numbers, pairs))


def _updated(inverse: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """B after a step; as it was where the curvature along the step is not positive."""
    along = s @ y
    if along <= 1e-10 * s.norm() * y.norm():
        return inverse
    one = torch.eye(len(s)).to(s)
    if not len(inverse):
        inverse = one * along / (y @ y)
    left = one - torch.outer(s, y) / along
    return left @ inverse @ left.T + torch.outer(s, s) / along
