"""The engine: runs every plan, and does not know which solver made it.

One loop over the compiled rows: draw, combine in place, ask the denoiser. States are float32 or
wider, coefficients are Python floats, and nothing in the loop reads a value back from the device:
whether a run stayed finite is asked once, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .answers import wrong_output
from .conditions import check_samples
from .denoise import Call, Denoiser, plain_call
from .device import same_device
from .extras import optional
from .form import number_of
from .noise import Noise, noise_from
from .plan import Plan
from .scalar import Scalar


@dataclass(frozen=True)
class Point:
    """What a callback sees at a grid point, before the denoiser is asked there.

    Attributes:
        index: number of the grid point, 0 (noisy) .. steps (clean).
        steps: number of steps.
        t: its time.
        x: the state; return another tensor of this shape to continue from that instead.
            The engine goes on to overwrite it: clone what you keep.
        denoised: the last d = E[x_0 | x], a preview of the result; None at the first point.
    """

    index: int
    steps: int
    t: float
    x: Tensor
    denoised: Tensor | None


Callback = Callable[[Point], Tensor | None]


@dataclass(frozen=True)
class Trajectory:
    """All grid points of a run.

    Attributes:
        times: (steps + 1,), float64, noisy to clean.
        states: (steps + 1, batch, *event).
        denoised: (steps, batch, *event), d = E[x_0 | x] at all grid points but the last (and but
            the first, where an analytic first step spares the call).
    """

    times: Tensor
    states: Tensor
    denoised: Tensor


def run(
    plan: Plan,
    denoiser: Denoiser | Callable[[Tensor, Scalar], Tensor],
    x: Tensor,
    *,
    noise: Noise | int | Sequence[int] | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    grad: bool = False,
) -> Tensor:
    """Run a plan from state x at its first time to its last.

    Args:
        plan: any solver's table.
        denoiser: a `Denoiser` for the plan's schedule, or a function (x, t) -> E[x_0 | x_t].
        x: the starting state x_T, shape (batch, *event), floating; it is not changed. Half
            precision is widened to float32.
        noise: where a stochastic plan draws from: a `Noise`, a seed, one seed a sample, or None
            for a seed from the system.
        callback: called at every grid point; may return a new state. (If the result is not finite,
            the run is repeated up to the first bad step, callbacks included, to say which it was.)
        progress: show a progress bar (needs the extra "bench").
        grad: keep the autograd graph (and so all intermediate states); otherwise none is made.

    Returns:
        The last state, shape (batch, *event).

    Raises:
        TypeError: x of integers.
        ValueError: x empty, not finite, or on another device than the network; a denoiser of
            another schedule; network output of a wrong shape; a callback's state likewise.
        FloatingPointError: if the run leaves the finite numbers; says at which step and time.
    """
    x = checked_start(plan, denoiser, x)
    check_callback(callback)
    source = noise_from(noise)

    def execute(check: bool) -> Tensor:
        with torch.set_grad_enabled(grad), _progress(plan, progress) as advance:
            calls = _bind(denoiser, plan, x, grad)
            watch = _Watch(plan, callback, advance, check)
            return (_differentiable if grad else _in_place)(plan, calls, x, source, watch)

    result = execute(check=False)
    if not _finite(result):
        check_finite(x)
        execute(check=True)  # once more, looking at every step, to say where
        raise FloatingPointError(
            f"{plan.name}: the result is not finite, though a second run was; the network does "
            "not answer the same question the same way twice"
        )
    return result


def record(
    plan: Plan,
    denoiser: Denoiser | Callable[[Tensor, Scalar], Tensor],
    x: Tensor,
    *,
    callback: Callback | None = None,
    **options: Any,
) -> Trajectory:
    """Run a plan and keep every grid point; arguments as for `run`."""
    states: list[Tensor] = []
    denoised: list[Tensor] = []

    def keep(point: Point) -> Tensor | None:
        replacement = callback(point) if callback is not None else None
        states.append((point.x if replacement is None else replacement).clone())
        if point.denoised is not None:
            denoised.append(point.denoised.clone())
        return replacement

    run(plan, denoiser, x, callback=keep, **options)
    times = torch.tensor(plan.times, dtype=torch.float64)
    return Trajectory(times, torch.stack(states), torch.stack(denoised))


class _Watch:
    """What happens at each step beside the arithmetic: callback, progress, the slow check."""

    def __init__(
        self, plan: Plan, callback: Callback | None, advance: Callable[[], None] | None, check: bool
    ) -> None:
        self.plan, self.callback, self.advance, self.check = plan, callback, advance, check
        self.index, self.denoised = 0, None  # type: tuple[int, Tensor | None]
        self.idle = callback is None and advance is None and not check

    def at_state(self, row: int, grid: bool, x: Tensor) -> Tensor:
        self._look(row, "the state", x, self.index)
        if grid and self.callback is not None:
            t = number_of(self.plan.rows[row].t)
            point = Point(self.index, len(self.plan.times) - 1, t, x, self.denoised)
            x = _checked_replacement(self.callback(point), x)
            self._look(row, "the state that the callback left", x, self.index)
        self.index += grid
        return x

    def at_output(self, row: int, grid: bool, d: Tensor, scale: float) -> None:
        self._look(row, "the denoiser's output", d, max(self.index - 1, 0))
        if grid and self.callback is not None:
            self.denoised = scale * d
        if self.advance is not None:
            self.advance()

    def _look(self, row: int, what: str, x: Tensor, step: int) -> None:
        """In the slow check: raise if x is not finite, saying what and where."""
        if self.check and not _finite(x):
            asked = sum(r.asks for r in self.plan.rows[: row + 1])
            raise FloatingPointError(
                f"{self.plan.name}: {what} is not finite at t = "
                f"{number_of(self.plan.rows[row].t):.6g}, step {step} of "
                f"{len(self.plan.times) - 1} (network call {asked} of {self.plan.nfe})"
            )


def _in_place(
    plan: Plan,
    calls: Sequence[Call],
    start: Tensor,
    source: Noise,
    watch: _Watch,
) -> Tensor:
    """The loop, writing each state over one that is no longer needed."""
    program = plan.program
    slots: list[Any] = [None] * program.slots
    buffers: list[Any] = [None] * program.slots  # for outputs that are written in place
    scales = [1.0] * program.slots
    slots[0] = start.clone()
    memory = {slots[0].untyped_storage().data_ptr()}  # where states lie
    draw = source.stream(start, plan.course) if plan.stochastic else None
    idle = watch.idle
    for row, draws, target, origin, scale, adds, ask, output, grid, drop in program.steps:
        for slot, t, s in draws:
            if slots[slot] is None:
                slots[slot] = torch.empty_like(start)
                memory.add(slots[slot].untyped_storage().data_ptr())
            draw(slots[slot], t, s)  # type: ignore[misc]
        x = slots[target]
        if origin == target:
            if scale != 1.0:
                x.mul_(scale)
        else:
            if x is None:
                x = slots[target] = torch.empty_like(start)
                memory.add(x.untyped_storage().data_ptr())
            torch.mul(slots[origin], scale * scales[origin], out=x)
        for slot, coefficient in adds:
            x.add_(slots[slot], alpha=coefficient * scales[slot])
        for slot in drop:
            slots[slot] = None
        if not idle:
            replacement = watch.at_state(row, grid, x)
            if replacement is not x:
                x.copy_(replacement)
        if ask >= 0:
            function, factor, writes = calls[ask]
            if writes and buffers[output] is None:
                buffers[output] = torch.empty_like(start)
            d = function(x, buffers[output])
            if not isinstance(d, Tensor) or d.shape != x.shape:
                raise ValueError(wrong_output(d, x))
            if not writes and d.untyped_storage().data_ptr() in memory:
                d = d.clone()  # the network handed its input back, or a view of it
            slots[output], scales[output] = d, factor
            if not idle:
                watch.at_output(row, grid, d, factor)
    return slots[program.result]


def _differentiable(
    plan: Plan,
    calls: Sequence[Call],
    start: Tensor,
    source: Noise,
    watch: _Watch,
) -> Tensor:
    """The same rows out of place, for autograd; coefficients may carry gradients too."""
    draw = source.stream(start, plan.course) if plan.stochastic else None
    symbols: dict[tuple[str, int], Tensor] = {}
    outputs = 0
    for i, row in enumerate(plan.rows):
        x = start.clone()
        if i:
            for k in row.z:
                if ("z", k) not in symbols:
                    symbols["z", k] = draw(torch.empty_like(start), *plan.noises[k])  # type: ignore[misc]
            x = sum(c * symbols[symbol] for symbol, c in row.terms())  # type: ignore[assignment]
        x = symbols["x", i] = watch.at_state(i, row.on_grid, x)
        if row.asks:
            function, factor, _ = calls[outputs]
            d = function(x, None)
            if not isinstance(d, Tensor) or d.shape != x.shape:
                raise ValueError(wrong_output(d, x))
            symbols["d", outputs] = factor * d
            watch.at_output(i, row.kind == "denoise", d, factor)
            outputs += 1
    return x


def _bind(
    denoiser: Denoiser | Callable[[Tensor, Scalar], Tensor], plan: Plan, x: Tensor, grad: bool
) -> list[Call]:
    times = [row.t for row in plan.rows if row.asks]
    if grad and any(isinstance(t, Tensor) for t in times):  # gradients of the times themselves
        return [plain_call(denoiser, t) for t in times]
    if isinstance(denoiser, Denoiser):
        return denoiser.bind(plan.asked_at, x)
    return [plain_call(denoiser, t) for t in plan.asked_at]


def checked_start(
    plan: Plan, denoiser: Denoiser | Callable[[Tensor, Scalar], Tensor], x: Tensor
) -> Tensor:
    if not isinstance(plan, Plan):
        raise TypeError(f"run needs a Plan first, not {type(plan).__name__}; sample takes names")
    check_state(x)
    check_device(denoiser, x)
    check_conditions(denoiser, x)
    schedule = getattr(denoiser, "schedule", None)
    if schedule is not None:
        plan.check_schedule(schedule)
    return (
        x.detach()
        if x.dtype.itemsize >= 4 and not x.requires_grad
        else x.to(torch.promote_types(x.dtype, torch.float32))
    )


def check_device(denoiser: object, x: Tensor) -> None:
    """Raise ValueError if the network is known to be on another device than the state."""
    device = getattr(denoiser, "device", None)
    if device is not None and not same_device(torch.device(device), x.device):
        raise ValueError(
            f"the network is on {device} and the state on {x.device}: move one of them"
        )


def check_callback(callback: object) -> None:
    """Raise TypeError unless it can be called at every grid point, or is None."""
    if callback is not None and not callable(callback):
        raise TypeError(f"callback = {callback!r}: give a function of a Point, or None")


def check_conditions(denoiser: object, x: Tensor) -> None:
    """Raise ValueError if the denoiser has conditions bound for another number of samples."""
    check_samples(getattr(denoiser, "samples", None), x)


def check_state(x: Tensor) -> None:
    """Raise unless x is a non-empty, real floating tensor of shape (batch, *event)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"the state must be a tensor, not {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"the state has dtype {x.dtype}; it must be floating: x.float()")
    if x.ndim < 1:
        raise ValueError("the state has shape (): give one of shape (batch, *event)")
    if x.numel() == 0:
        raise ValueError(f"the state has shape {tuple(x.shape)}: an empty batch has no samples")


def _finite(x: Tensor) -> bool:
    """Whether all of x is finite; its sum, one pass and no copy, nearly always settles it."""
    return math.isfinite(x.detach().sum()) or bool(torch.isfinite(x).all())


def check_finite(x: Tensor) -> None:
    """Raise unless the state to start from is finite."""
    if not _finite(x):
        raise ValueError("the state to start from is not finite")


def check_state_for(denoiser: object, x: Tensor) -> None:
    """Raise unless x is a finite state that this denoiser can take."""
    check_state(x)
    check_finite(x)
    check_device(denoiser, x)
    check_conditions(denoiser, x)


def _checked_replacement(replacement: Tensor | None, x: Tensor) -> Tensor:
    if replacement is None:
        return x
    if not isinstance(replacement, Tensor):
        raise TypeError(
            f"the callback returned {type(replacement).__name__}; a tensor, or None to leave it"
        )
    if replacement.shape != x.shape or not replacement.is_floating_point():
        raise ValueError(
            f"the callback returned shape {tuple(replacement.shape)}, dtype {replacement.dtype} "
            f"for a state of shape {tuple(x.shape)}, dtype {x.dtype}; return None to leave it"
        )
    return replacement.to(x)


class _progress:
    """`with` gives a function that advances a progress bar by one network call, or None."""

    def __init__(self, plan: Plan, show: bool) -> None:
        self.bar: Any = None
        if show:
            self.bar = optional("rich.progress", "progress bars").Progress(transient=True)
            self.task = self.bar.add_task(plan.name, total=plan.nfe)

    def __enter__(self) -> Callable[[], None] | None:
        if self.bar is None:
            return None
        self.bar.start()
        return lambda: self.bar.advance(self.task)

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()
