r"""The front door of sampling in parallel: latency traded for work, for any plan.

A plan of n network calls is a triangular system for its outputs d_0 .. d_{n-1}: each is asked at
a state that is known once the earlier ones are. Instead of one after another, a method guesses
all, asks for many in one call, corrects the states, and repeats until they no longer move: fewer
rounds than n, more evaluations than n. Noise is drawn once, before, so a stochastic plan is a
system like any other, and the result is the one that `run` gives with the same noise.
"""

from __future__ import annotations

import inspect
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..counts import check_count
from ..denoise import Denoiser
from ..names import look_up, unknown
from ..noise import Noise, noise_from
from ..plan import Plan
from ..progress import Progress
from ..run import check_finite, checked_start
from .anderson import anderson
from .network import AnyDenoiser, Network
from .parareal import parareal
from .picard import picard
from .secant import secant
from .table import Table
from .task import Task

METHODS: dict[str, Callable[..., Tensor]] = {
    "picard": picard,
    "anderson": anderson,
    "parareal": parareal,
    "secant": secant,
}
"""By name: (task, **options) -> the last states."""


@dataclass(frozen=True)
class ParallelRun:
    """What `run_parallel` did.

    Attributes:
        x: the last states, (batch, *event).
        converged: (batch,), bool, on the CPU: whether each sample met the tolerance; all do unless
            max_rounds stopped them.
        rounds: rounds: what has to wait for one another, instead of the plan's nfe calls.
        sample_rounds: (batch,), int64, on the CPU: the rounds that each sample took part in.
        calls: network calls: one a round, more with a batch limit, several devices, or a
            denoiser that takes one time only.
        evaluations: states that the network was asked at, over all samples; run: nfe * batch.
        seconds: wall time.
        residuals: the largest relative change of a state that was still moving, by round (of the
            last state, by iteration: parareal).
    """

    x: Tensor = field(repr=False)
    converged: Tensor
    rounds: int
    sample_rounds: Tensor
    calls: int
    evaluations: int
    seconds: float
    residuals: tuple[float, ...]


def run_parallel(
    plan: Plan,
    denoiser: AnyDenoiser,
    x: Tensor,
    *,
    noise: Noise | int | Sequence[int] | None = None,
    method: str = "secant",
    tolerance: float = 1e-3,
    max_rounds: int | None = None,
    batch_limit: int | None = None,
    replicas: Sequence[AnyDenoiser] = (),
    progress: bool = False,
    **options: Any,
) -> ParallelRun:
    """Run a plan from state x at its first time to its last, many rows at a time.

    Args:
        plan: any solver's table, stochastic ones included.
        denoiser: a `Denoiser` for the plan's schedule. It is asked with states of many rows and
            one time for each; the conditions of `given`, one a sample, go with them (for
            others: `Conditioned`). A plain function (x, t) -> E[x_0 | x_t] is asked once for each
            time: right, but slower.
        x: the starting state x_T, shape (batch, *event), floating; it is not changed. Half
            precision is widened to float32.
        noise: as for `run`; the same noise gives the result of `run`.
        method: "secant", "anderson", "picard" or "parareal" (`parallel.METHODS`).
        tolerance: a sample is done when no state of it moves in a round by more than this: RMS
            over the event of the change, over the RMS of the state. That is an estimate, not a
            bound, of the relative difference to the result of `run`: on exact and trained models
            "secant" stayed below it and the others below 5 times it; where the sampler itself
            enlarges small differences, so it does those that are left.
        max_rounds: the most rounds; None: as many as it takes, at most the plan's nfe.
        batch_limit: the most states in one network call; None: no limit.
        replicas: the same denoiser on further devices; the rows are shared out evenly.
        progress: show how far it is.
        options: of the method, e.g. window=100, the most rows in work at once for one sample:
            memory is about ten states for each of them, and fewer are asked in vain.

    Returns:
        The result and what it took. With the same noise it is that of `run`, to the tolerance.

    Raises:
        TypeError, ValueError: as `run`; an unknown method or option; numbers out of range.
        FloatingPointError: if the run leaves the finite numbers.

    Warns:
        RuntimeWarning: if max_rounds was reached first; see `converged`.
    """
    solve = look_up("method", method, METHODS)
    _check_options(solve, method, options)
    _check_numbers(tolerance, max_rounds, batch_limit, options)
    x = checked_start(plan, denoiser, x)
    check_finite(x)
    _check_replicas(plan, replicas)
    began = time.perf_counter()
    source = noise_from(noise)
    draw = source.stream(x, plan.course) if plan.stochastic else None
    if isinstance(denoiser, Denoiser):
        denoiser.bind(plan.asked_at, x)  # refuses times that it does not know
    network = Network([denoiser, *replicas], plan.asked_at, batch_limit)
    limit = plan.nfe if max_rounds is None else max_rounds
    with torch.no_grad(), Progress(plan.nfe * len(x), progress) as bar:
        task = Task(plan, x, Table(plan, x, draw), network, float(tolerance), limit, bar)
        result = solve(task, **options)
    if not torch.isfinite(result).all():
        raise task.not_finite(plan.nfe)
    sample_rounds = torch.from_numpy(task.sample_rounds)
    converged = sample_rounds > 0
    if not converged.all():
        warnings.warn(
            f"{plan.name}: {int((~converged).sum())} of {len(x)} samples had not met "
            f"tolerance = {tolerance:g} after max_rounds = {limit}",
            RuntimeWarning,
            stacklevel=2,
        )
    return ParallelRun(
        x=result,
        converged=converged,
        rounds=task.rounds,
        sample_rounds=sample_rounds.where(converged, torch.tensor(task.rounds)),
        calls=network.calls,
        evaluations=network.evaluations,
        seconds=time.perf_counter() - began,
        residuals=tuple(task.residuals),
    )


def _check_options(solve: Callable[..., Tensor], method: str, options: dict[str, Any]) -> None:
    known = list(inspect.signature(solve).parameters)[1:]
    own = [name for name in inspect.signature(run_parallel).parameters if name != "options"][3:]
    for option in options:
        if option not in known:
            raise TypeError(unknown(f"option of run_parallel with {method}", option, known + own))


def _check_numbers(
    tolerance: float, max_rounds: int | None, batch_limit: int | None, options: dict[str, Any]
) -> None:
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not (number and 0 < tolerance < math.inf):
        raise ValueError(f"tolerance = {tolerance!r} must be a positive number, as 1e-3")
    counts = {"max_rounds": max_rounds, "batch_limit": batch_limit}
    counts |= {name: options[name] for name in ("window", "history") if name in options}
    for name, count in counts.items():
        check_count(name, count, or_none=True)


def _check_replicas(plan: Plan, replicas: Sequence[AnyDenoiser]) -> None:
    if not isinstance(replicas, Sequence) or not all(map(callable, replicas)):
        raise TypeError(f"replicas = {replicas!r}: give a list of denoisers, one a device")
    for replica in replicas:
        if isinstance(replica, Denoiser):
            plan.check_schedule(replica.schedule)
