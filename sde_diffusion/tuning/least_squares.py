r"""Least squares: a family's numbers by Levenberg-Marquardt.

To make small L(theta) = mean_n rho(|r_n|^2), r_n the residual of sample n, with half the gradient g
and half the Gauss-Newton Hessian H of `objective`, a step solves

    (H + mu diag H) step = -g.

The damping mu falls after a step that lowers L and grows after one that does not, which is then not
taken: so L never rises on the train pairs. The best of the iterations is chosen on other pairs.

Levenberg, "A method for the solution of certain non-linear problems in least squares", 1944.
Marquardt, "An algorithm for least-squares estimation of nonlinear parameters", 1963. A robust rho
makes it iteratively reweighted least squares: Holland & Welsch, "Robust regression using
iteratively reweighted least-squares", 1977.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..counts import check_count
from ..denoise import Denoiser
from .family import Family
from .fit import Fit, Progress, Watch, check_state
from .loss import Loss
from .objective import Objective
from .pairs import Pairs
from .ready import check_gradient, differentiable, plain

_LESS, _MORE, _TRIES = 1 / 3, 4.0, 10  # how the damping moves, and steps tried in one iteration
_LOWEST = 1e-9  # of the damping
_IDLE = 2  # iterations that gain too little in a row


def least_squares(
    family: Family,
    denoiser: Denoiser,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    *,
    state: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    max_iterations: int = 50,
    ftol: float = 1e-3,
    chunk: int = 128,
    noise: int = 0,
    probes: int = 1,
    seed: int = 0,
) -> Fit:
    """The numbers of a family that make the loss least on the train pairs.

    Args:
        family: what is free, P numbers; its plans are for the denoiser's schedule.
        denoiser: the model.
        loss: of a plan's states against the pairs.
        train: at least P pairs, better fifty times as many; states in float32 take half the time.
        validation: other pairs, on which the best of the iterations is chosen.
        state: of the last `Progress`, to go on as if there had been no break.
        watch: called after each iteration.
        max_iterations: counted from the very beginning, a break or not.
        ftol: relative decrease of the train loss in an iteration below which, twice in a row, the
            fit has converged.
        chunk: samples run at once; memory holds all their states and the graph of one call.
        noise: seed of a stochastic plan's noise, drawn once.
        probes: pulls a sample for H, see `objective`.
        seed: of their signs, which decide among minima that lie close to each other.

    Returns:
        The best numbers by validation loss; stopped is "not finite" if there was no loss at the
        start, which are then the numbers, or no derivative, or no loss any more, in mid-fit.

    Raises:
        ValueError: fewer train pairs than free numbers, no validation pairs, a state of another
            family, a count that is no whole number above 0, an end x* = 0 under a relative loss,
            or a network without a gradient in its input.
    """
    began = time.monotonic()
    _check(family, train, validation, state)
    counts = {"max_iterations": max_iterations, "chunk": chunk, "probes": probes}
    for name, count in counts.items():
        check_count(name, count)
    with differentiable():
        fitted, tested = (
            Objective(family, denoiser, loss, plain(pairs), chunk, noise + k, probes)
            for k, pairs in enumerate((train, validation))
        )
        if state is None:
            begin = family.start.detach().clone().to("cpu", torch.float64)
            first = fitted.value(begin), tested.value(begin)
            here = _State(begin, *first, begin, *first)
        else:
            here = _State(**state)
        check_gradient(denoiser, family.plan(), fitted.pairs.starts[: min(chunk, 2)])
    stopped = "" if math.isfinite(here.train) else "not finite"
    while not stopped and here.iteration < max_iterations and here.idle < _IDLE:
        with differentiable():
            finite = _advance(here, fitted, tested, ftol, seed)
        if not finite:
            stopped = "not finite"
        elif watch is not None:
            watch(here.progress())
    stopped = stopped or ("converged" if here.idle >= _IDLE else "iterations")
    spent = time.monotonic() - began
    return Fit(here.best, here.best_train, here.best_validation, here.iteration, spent, stopped)


@dataclass
class _State:
    """Where a fit stands: all that the next iteration needs."""

    numbers: Tensor
    train: float
    validation: float
    best: Tensor
    best_train: float
    best_validation: float
    damping: float = 1e-3
    iteration: int = 0
    idle: int = 0  # iterations since the loss last fell by more than ftol of it

    def take(self, numbers: Tensor, train: float, validation: float, ftol: float) -> None:
        """Go on from these numbers, whose loss on the train pairs is less."""
        self.iteration += 1
        self.idle = 0 if train < (1 - ftol) * self.train else self.idle + 1
        self.numbers, self.train, self.validation = numbers, train, validation
        self.damping = max(self.damping * _LESS, _LOWEST)
        if validation < self.best_validation:
            self.best, self.best_train, self.best_validation = numbers, train, validation

    def progress(self) -> Progress:
        """What the watcher sees."""
        return Progress(self.iteration, self.numbers, self.train, self.validation, dict(vars(self)))


def _advance(here: _State, fitted: Objective, tested: Objective, ftol: float, seed: int) -> bool:
    """One iteration: steps tried with growing damping until one lowers the loss.

    False, with nothing found out, if there is no derivative or, asked again, no loss where it
    stands: then it is the network that no longer answers.
    """
    signs = (seed * 1_000_003 + here.iteration) % 2**63
    gradient, hessian = fitted.normal_equations(here.numbers, signs)
    if not bool(gradient.isfinite().all() and hessian.isfinite().all()):
        return False
    diagonal = hessian.diagonal()
    scale = diagonal.clamp(min=max(1e-12 * float(diagonal.max()), 1e-300)).sqrt()
    scaled, unit = hessian / torch.outer(scale, scale), torch.eye(len(scale), dtype=scale.dtype)
    seen = []
    for _ in range(_TRIES):
        step = torch.linalg.solve(scaled + here.damping * unit, gradient / scale) / scale
        numbers = here.numbers - step
        seen.append(fitted.value(numbers))
        if seen[-1] < here.train:
            held = tested.value(numbers)
            if _fails(held) and _fails(tested.value(here.numbers)) > _fails(here.validation):
                return False
            here.take(numbers, seen[-1], held, ftol)
            return True
        here.damping *= _MORE
    if any(map(_fails, seen)) and _fails(fitted.value(here.numbers)):
        return False
    here.iteration, here.idle = here.iteration + 1, here.idle + 1
    return True


def _fails(loss: float) -> bool:
    return not math.isfinite(loss)


def _check(
    family: Family, train: Pairs, validation: Pairs, state: Mapping[str, Any] | None
) -> None:
    free = len(family.start)
    if len(train) < free:
        raise ValueError(
            f"{len(train)} starts to fit {free} free numbers ({family.name}): give at least "
            "as many starts, better fifty times as many, or free less"
        )
    if not len(validation):
        raise ValueError("no pairs to validate on: the best numbers are chosen by these")
    check_state(family, state)
