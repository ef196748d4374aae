"""Blocks of numbers fitted in turn: times with coefficients held, coefficients with times held.

A family's numbers are parted into blocks. A turn fits one block by any method, the others staying
where they are, and the turns go round until a whole round gains nothing. Every turn begins with
the best so far and ends with no larger a loss on the validation pairs.

Times and coefficients trade against one another, and turns cannot see how: on closed-form data,
all numbers at once came lower in fewer iterations, by least squares (which scales each number by
itself) and by Adam alike. It is here for methods or losses that need it, and for comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..plan import Plan
from .base import Base
from .family import Family
from .fit import Fit, Progress, Watch
from .least_squares import least_squares
from .loss import Loss
from .pairs import Pairs
from .table import table


def block(family: Family, indices: Sequence[int], numbers: Tensor) -> Family:
    """The family with some of its numbers free, and the others as given."""
    place = torch.tensor(list(indices))
    held = numbers.detach()
    names = tuple(family.names[i] for i in indices)

    def build(some: Tensor) -> Plan:
        return family.build(held.index_copy(0, place, some))

    return Family(f"part of {family.name}", build, held[place], names)


def in_turn(
    family: Family,
    blocks: Sequence[Sequence[int]],
    denoiser: Denoiser,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    *,
    state: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    method: Callable[..., Fit] = least_squares,
    turns: int = 8,
    ftol: float = 1e-3,
    **options: Any,
) -> Fit:
    """The best numbers of a family, found block by block.

    Frankel et al., "S4S: solving for a diffusion model solver", 2025, arXiv:2502.17423
    (S4S-Alt: coefficients and times in turn).

    Args:
        family: what is free.
        blocks: indices of the numbers of each block; together all of them, each once.
        denoiser, loss, train, validation, state, watch: as for any fit.
        method: of each turn's fit.
        turns: how many at most, each of one block.
        ftol: relative decrease of the validation loss in a round, all blocks, below which the fit
            has converged.
        options: of the method, in each turn.

    Raises:
        ValueError: blocks that are no partition; turns below 1; what the method refuses.
    """
    began = time.monotonic()
    if sorted(i for part in blocks for i in part) != list(range(len(family.start))):
        raise ValueError(
            f"blocks hold {sum(map(len, blocks))} indices for {len(family.start)} numbers: each "
            "number must be in one block, once"
        )
    if turns < 1:
        raise ValueError(f"turns = {turns}: at least 1 is needed")
    here = _State(family.start.detach().double()) if state is None else _State(**state)
    stopped, last = "iterations", None
    while here.turn < turns:
        indices = list(blocks[here.turn % len(blocks)])
        part, place = block(family, indices, here.numbers), torch.tensor(indices)
        told = None if watch is None else partial(_tell, watch, family, here, place)
        last = method(
            part, denoiser, loss, train, validation, state=here.inner, watch=told, **options
        )
        here = _State(
            here.numbers.index_copy(0, place, last.numbers),
            here.turn + 1,
            here.iteration + last.iterations,
            [*here.losses, last.validation],
        )
        if last.stopped == "not finite":
            stopped = last.stopped
            break
        before = here.losses[-1 - len(blocks) :]
        if len(before) > len(blocks) and before[-1] > (1 - ftol) * before[0]:
            stopped = "converged"
            break
    if last is None:
        raise ValueError(f"the state is of a fit of {here.turn} turns, not of turns = {turns}")
    spent = time.monotonic() - began
    return Fit(here.numbers, last.train, last.validation, here.iteration, spent, stopped)


@dataclass(frozen=True)
class _State:
    """Where the turns stand."""

    numbers: Tensor  # at the beginning of the turn
    turn: int = 0
    iteration: int = 0  # before the turn
    losses: Sequence[float] = ()  # on the validation pairs, after each turn
    inner: Mapping[str, Any] | None = None  # of the turn's fit


def _tell(watch: Watch, family: Family, here: _State, place: Tensor, inner: Progress) -> None:
    """Pass on what a turn's fit tells, for all numbers."""
    numbers = here.numbers.index_copy(0, place, inner.numbers)
    state = dict(vars(replace(here, inner=dict(inner.state))))
    iteration, losses = here.iteration + inner.iteration, (inner.train, inner.validation)
    watch(Progress(iteration, numbers, *losses, state, family))


def alternate(
    base: Base,
    denoiser: Denoiser,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    *,
    state: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    turns: int = 8,
    max_iterations: int = 10,
    ftol: float = 1e-3,
) -> tuple[Plan, Fit]:
    """The whole table of the base, coefficients and noise levels in turn (`in_turn`)."""
    family = table(base.plan, base.schedule, first_call=not base.known)
    levels = [i for i, name in enumerate(family.names) if name.startswith("l")]
    rest = [i for i in range(len(family.start)) if i not in levels]
    fit = in_turn(
        family,
        (rest, levels),
        denoiser,
        loss,
        train,
        validation,
        state=state,
        watch=watch,
        turns=turns,
        max_iterations=max_iterations,
        ftol=ftol,
    )
    return family.plan(fit.numbers), fit
