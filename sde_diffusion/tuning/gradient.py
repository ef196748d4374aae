r"""Fitting any family of plans by reverse mode: Adam, in the memory of one network call.

The loss of a batch is a function of the plan's coefficients and times, and these of the free
numbers u; one backward pass gives dL/du. Of a network call only its input is kept, and the call
is made once more on the way back (Chen et al., "Training deep nets with sublinear memory cost",
2016, arXiv:1604.06174): the memory is that of ONE call and of the plan's states. A batch is taken
in chunks, whose gradients are added.

    u <- u - eta_k m/(sqrt(v) + eps),     eta_k = eta (1 + cos(pi k/K))/2

with m, v the running means of g and g^2, corrected for their start: Kingma & Ba, "Adam", 2015,
arXiv:1412.6980; Loshchilov & Hutter, "SGDR", 2017, arXiv:1608.03983 (the cosine).

Soft teacher forcing. A student of few steps cannot carry every x_T to the teacher's end of that
x_T; the law of its samples is as good if it carries a neighbour there:

    L = mean of min over |x' - x_T| <= r sigma_T sqrt(D) of rho(|residual of the path from x'|^2).

The neighbours move along with u, one projected gradient step whenever their sample is visited:
Tong et al., "Learning to discretize denoising diffusion ODEs", 2024, arXiv:2405.15506.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..counts import check_count, checked_number
from ..denoise import Denoiser
from ..plan import Plan
from ..run import Point, record, run
from ..scalar import Scalar
from ..states import flat
from .family import Family
from .fit import Fit, Progress, Watch, check_state
from .loss import Loss, check_ends
from .pairs import Pairs
from .ready import check_gradient, differentiable, plain

FIRST, SECOND = 0.9, 0.99  # how much of the means of g and of g^2 is kept
PATIENCE = 20  # refusals in a row after which no rate is small enough
NUDGE = 0.25  # of the radius: the first step of a start that may move

Network = Denoiser | Callable[[Tensor, Scalar], Tensor]


def gradient(
    family: Family,
    denoiser: Network,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    *,
    state: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    max_iterations: int = 300,
    learning_rate: float = 0.05,
    batch: int = 256,
    chunk: int | None = None,
    every: int = 10,
    radius: float = 0.0,
    seed: int = 0,
) -> Fit:
    """The numbers of a family that make the loss small, found by stochastic gradient descent.

    A step to numbers whose loss or gradient is not finite is taken back and the rate halved.

    Args:
        family: what is free; numbers of order 1, as all families here have.
        denoiser: the model; its parameters get no gradient.
        loss: of a plan's states against the pairs.
        train: pairs that gradients are taken on.
        validation: other pairs, on which the best of the iterations is chosen.
        state: of the last `Progress` of a fit with these same arguments, to go on exactly as if
            there had been no break.
        watch: called after each iteration whose step was taken.
        max_iterations: K, counted from the very beginning.
        learning_rate: eta > 0, about the change of each number in the first step.
        batch: samples an iteration; all of `train` if there are fewer.
        chunk: samples run at once, which settles the memory; default: the batch.
        every: iterations from one look at the validation pairs to the next.
        radius: r >= 0 of soft teacher forcing; 0: none.
        seed: of the batches, and of the noise of a stochastic plan.

    Returns:
        The best numbers by validation loss; stopped is "not finite" if there was no loss at the
        start, which are then the numbers, or if no rate was small enough.

    Raises:
        ValueError: an argument out of its range; no pairs; a state of another family;
            teacher forcing with a denoiser that knows no schedule; a network without a gradient in
            its input.
    """
    began = time.monotonic()
    check_task(family, loss, train, validation, state)
    chunk = batch if chunk is None else chunk
    counts = {"max_iterations": max_iterations, "batch": batch, "chunk": chunk, "every": every}
    _check_rates(counts, learning_rate, radius)
    reach = radius * _noise_length(denoiser, train) if radius else 0.0
    task = Task.of(family, denoiser, loss, train, validation, chunk, seed)
    descent = _Descent(task, max_iterations, learning_rate, batch, every, reach)
    with differentiable():
        now = descent.begin() if state is None else _State(**state)
        now = replace(now, moves=now.moves.to(train.starts))
        check_gradient(denoiser, family.plan(), task.train.starts[: min(chunk, 2)])
    spent = now.seconds
    while now.iteration < max_iterations and now.refused < PATIENCE:
        with differentiable():
            now = descent.iterate(now)
        now = replace(now, seconds=spent + time.monotonic() - began)
        if watch is not None and not now.refused:
            held = now.validation if descent.looks(now.iteration) else math.nan
            watch(Progress(now.iteration, now.numbers, now.train, held, dict(vars(now))))
    stopped = "not finite" if now.refused >= PATIENCE else "iterations"
    final = task.value(now.best, task.train)
    seconds = spent + time.monotonic() - began
    return Fit(now.best, final, now.best_validation, now.iteration, seconds, stopped)


@dataclass(frozen=True)
class _State:
    """All that the next iteration depends on; its tensors are replaced, never written to."""

    numbers: Tensor  # the last with a finite loss and gradient
    first: Tensor
    second: Tensor
    best: Tensor
    moves: Tensor  # of the starts, (n, *event); (0,) without teacher forcing
    generator: Tensor
    best_validation: float
    validation: float
    train: float = math.nan
    iteration: int = 0
    accepted: int = 0  # gradients in the two means
    refused: int = 0  # steps in a row
    shrink: float = 1.0  # of the rate, by refusals
    seconds: float = 0.0


class _Checkpointed:
    """A denoiser of whose calls autograd keeps the input only."""

    def __init__(self, denoiser: Network) -> None:
        self.denoiser = denoiser
        self.schedule = getattr(denoiser, "schedule", None)
        self.device = getattr(denoiser, "device", None)

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        if not torch.is_grad_enabled():
            return self.denoiser(x, t)
        return torch.as_tensor(checkpoint(self.denoiser, x, t, use_reentrant=False))


@dataclass(frozen=True)
class Task:
    """The loss as a function of the numbers."""

    family: Family
    denoiser: _Checkpointed
    loss: Loss
    train: Pairs
    validation: Pairs
    chunk: int
    seed: int

    @classmethod
    def of(
        cls,
        family: Family,
        denoiser: Network,
        loss: Loss,
        train: Pairs,
        validation: Pairs,
        chunk: int,
        seed: int,
    ) -> Task:
        """In the memory of one call of the denoiser."""
        pairs = plain(train), plain(validation)
        return cls(family, _Checkpointed(denoiser), loss, *pairs, chunk, seed)

    def value(self, numbers: Tensor, pairs: Pairs) -> float:
        """The loss on all pairs; NaN where there is no such plan, or it is not finite."""
        total = 0.0
        try:
            plan = _plan(self.family.plan, numbers)
            for samples in torch.arange(len(pairs)).split(self.chunk):
                part = pairs.take(samples)
                noise = _seeds(plan, self.seed, samples)
                path = record(plan, self.denoiser, part.starts, noise=noise)
                total += float(self.loss.values(path.states, path.times, part).sum())
        except FloatingPointError:
            return math.nan
        return total / len(pairs)

    def slope(
        self, numbers: Tensor, chosen: Tensor, moves: Tensor, draw: int
    ) -> tuple[float, Tensor, Tensor]:
        """(loss, dL/du, n dL/dx of the starts) on the chosen train pairs."""
        total, slope, pulls = 0.0, torch.zeros_like(numbers), [moves[:0]]
        for samples in chosen.split(self.chunk):
            u = numbers.detach().clone().requires_grad_()
            part = self.train.take(samples)
            x = (part.starts + moves[samples]).requires_grad_() if len(moves) else part.starts
            path = self._path(_plan(self.family.build, u), x, draw, samples)
            value = self.loss.values(*path, part).sum()
            slopes = torch.autograd.grad(value, [u, x] if len(moves) else [u])
            total, slope = total + float(value.detach()), slope + slopes[0]
            pulls += slopes[1:]
        return total / len(chosen), slope / len(chosen), torch.cat(pulls)

    def _path(self, plan: Plan, x: Tensor, draw: int, samples: Tensor) -> tuple[Tensor, Tensor]:
        """(states at the grid points, their times), with their graph."""
        states: list[Tensor] = []

        def keep(point: Point) -> None:
            states.append(point.x)

        noise = _seeds(plan, draw, samples)
        run(plan, self.denoiser, x, noise=noise, callback=keep, grad=True)
        times = [torch.as_tensor(row.t, dtype=torch.float64) for row in plan.rows if row.on_grid]
        return torch.stack(states), torch.stack(times)


@dataclass(frozen=True)
class _Descent:
    """How the numbers move."""

    task: Task
    max_iterations: int
    learning_rate: float
    batch: int
    every: int
    reach: float  # of a start under teacher forcing; 0: none

    def begin(self) -> _State:
        """The state before the first iteration."""
        task = self.task
        u = task.family.start.detach().double().clone()
        zero, value = torch.zeros_like(u), task.value(u, task.validation)
        moves = torch.zeros_like(task.train.starts) if self.reach else torch.zeros(0)
        generator = torch.Generator().manual_seed(task.seed).get_state()
        refused = 0 if math.isfinite(value) else PATIENCE
        return _State(u, zero, zero, u, moves, generator, value, value, refused=refused)

    def looks(self, iteration: int) -> bool:
        """Whether an iteration looks at the validation pairs."""
        return iteration % self.every == 0 or iteration == self.max_iterations

    def iterate(self, now: _State) -> _State:
        """Propose a step, and take it if the loss and its gradient are finite there."""
        task, iteration = self.task, now.iteration + 1
        generator = torch.Generator()
        generator.set_state(now.generator)
        chosen = torch.randperm(len(task.train), generator=generator)[: self.batch]
        draw = int(torch.randint(2**31, (), generator=generator))
        fall = (1 + math.cos(math.pi * now.iteration / self.max_iterations)) / 2
        u = now.numbers - self.learning_rate * fall * now.shrink * _direction(now)
        now = replace(now, iteration=iteration, generator=generator.get_state())
        try:
            value, slope, pulls = task.slope(u, chosen, now.moves, draw)
        except FloatingPointError:
            return _refused(now)
        held = task.value(u, task.validation) if self.looks(iteration) else now.validation
        if not (math.isfinite(value) and bool(slope.isfinite().all()) and math.isfinite(held)):
            return _refused(now)
        if held < now.best_validation:
            now = replace(now, best=u, best_validation=held)
        return replace(
            now,
            numbers=u,
            first=FIRST * now.first + (1 - FIRST) * slope,
            second=SECOND * now.second + (1 - SECOND) * slope**2,
            moves=self._moved(now.moves, chosen, pulls, fall) if self.reach else now.moves,
            train=value,
            validation=held,
            accepted=now.accepted + 1,
            refused=0,
        )

    def _moved(self, moves: Tensor, chosen: Tensor, pulls: Tensor, fall: float) -> Tensor:
        """One step down the loss of each chosen start, then back into its ball."""
        step = moves[chosen] - NUDGE * fall * self.reach * pulls / _lengths(pulls).clamp(min=1e-300)
        return moves.index_copy(
            0, chosen.to(moves.device), step * (self.reach / _lengths(step)).clamp(max=1.0)
        )


def _plan(build: Callable[[Tensor], Plan], numbers: Tensor) -> Plan:
    """The plan of some numbers; FloatingPointError where a coefficient is not finite."""
    try:
        return build(numbers)
    except ValueError as error:
        raise FloatingPointError(str(error)) from error


def _refused(now: _State) -> _State:
    return replace(now, shrink=now.shrink / 2, refused=now.refused + 1)


def _direction(now: _State) -> Tensor:
    """m/(sqrt(v) + eps); 0 before any gradient is known."""
    n = max(now.accepted, 1)
    m, v = now.first / (1 - FIRST**n), now.second / (1 - SECOND**n)
    return m / (v.sqrt() + 1e-12)


def _lengths(x: Tensor) -> Tensor:
    """|x| of every sample, (n, 1, .., 1)."""
    return flat(x).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))


def _seeds(plan: Plan, seed: int, samples: Tensor) -> list[int] | None:
    """One seed a sample: its noise depends on no division into chunks."""
    return [(seed * 1_000_003 + k) % 2**63 for k in samples.tolist()] if plan.stochastic else None


def _noise_length(denoiser: object, pairs: Pairs) -> float:
    """sigma_T sqrt(D), about the length of the noise in a start."""
    schedule = getattr(denoiser, "schedule", None)
    if schedule is None:
        raise ValueError("radius > 0 needs sigma at the start: give a Denoiser, with a schedule")
    return float(schedule.sigma(pairs.t_start)) * pairs.starts[0].numel() ** 0.5


def check_task(
    family: Family,
    loss: Loss,
    train: Pairs,
    validation: Pairs,
    state: Mapping[str, Any] | None,
) -> None:
    """Raise ValueError for a state of another family, no pairs, or ends that a loss cannot take."""
    check_state(family, state)
    for name, pairs in (("train", train), ("validation", validation)):
        if not len(pairs):
            raise ValueError(f"there are no {name} pairs")
        check_ends(loss, pairs)


def _check_rates(counts: Mapping[str, int], learning_rate: float, radius: float) -> None:
    for name, count in counts.items():
        check_count(name, count)
    for name, rate in {"learning_rate": learning_rate, "radius": radius}.items():
        checked_number(rate, name)
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate = {learning_rate} must be positive and finite")
    if not (math.isfinite(radius) and radius >= 0):
        raise ValueError(f"radius = {radius} must be at least 0 and finite")
