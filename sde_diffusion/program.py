"""From a plan's rows to in-place operations on few buffers: liveness, worked out before the run.

Every state, output and noise lives in a numbered slot. A new state overwrites a state that no
later row needs, so that most rows are `scale` once and `add` a few times in place; slots whose
content is dead are emptied (outputs) or reused (buffers of the engine's own).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .form import Symbol, number_of

if TYPE_CHECKING:
    from .plan import Row


class Step(NamedTuple):
    """What the engine does for one row.

    target = scale * source + sum of coefficient * slot, with the draws made first.

    Attributes:
        row: index of the row.
        draws: (slot, t, s) of each noise to draw.
        target: slot of the new state.
        source, scale: slot of the first term and its coefficient; source == target: in place.
        adds: (slot, coefficient) of the other terms.
        ask: index of the network call, or -1.
        output: slot of the denoiser's output, or -1.
        grid: whether the row is a grid point (callbacks see it).
        drop: slots of outputs that no later row needs.
    """

    row: int
    draws: tuple[tuple[int, float, float], ...]
    target: int
    source: int
    scale: float
    adds: tuple[tuple[int, float], ...]
    ask: int
    output: int
    grid: bool
    drop: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """All steps, the number of slots, and the slot of the result."""

    steps: tuple[Step, ...]
    slots: int
    result: int


def compile_rows(rows: Sequence[Row], noises: Sequence[tuple[float, float]]) -> Program:
    """Assign slots to symbols so that each is kept exactly as long as a later row needs it."""
    last_use: dict[Symbol, int] = {}
    for i, row in enumerate(rows):
        for symbol, _ in row.terms():
            last_use[symbol] = i
    slot_of: dict[Symbol, int] = {("x", 0): 0}
    free: list[int] = []  # slots of dead states and noises; below, of dead outputs
    free_outputs: list[int] = []
    slots, calls, steps = 1, 0, []

    def fresh() -> int:
        nonlocal slots
        if free:
            return free.pop()
        slots += 1
        return slots - 1

    for i, row in enumerate(rows):
        terms = [(symbol, number_of(c)) for symbol, c in row.terms()]
        draws = []
        for symbol, _ in terms:
            if symbol[0] == "z" and symbol not in slot_of:
                slot_of[symbol] = fresh()
                draws.append((slot_of[symbol], *noises[symbol[1]]))
        dying = [symbol for symbol, _ in terms if last_use[symbol] == i]
        own = [symbol for symbol in dying if symbol[0] in "xz"]
        if i == 0:
            target, source, scale, adds = 0, 0, 1.0, []
        else:
            head = next((term for term in terms if term[0] in own), terms[0])
            source, scale = slot_of[head[0]], head[1]
            adds = [(slot_of[symbol], c) for symbol, c in terms if symbol != head[0]]
            target = source if head[0] in own else fresh()
        free += [slot_of[symbol] for symbol in own if slot_of[symbol] != target]
        slot_of["x", i] = target
        if ("x", i) not in last_use and row.kind != "end" and not row.asks:
            free.append(target)
        drop = tuple(slot_of[symbol] for symbol in dying if symbol[0] == "d")
        free_outputs += drop
        output = -1
        if row.asks:
            output = free_outputs.pop() if free_outputs else slots
            slots += output == slots
            slot_of["d", calls] = output
        steps.append(
            Step(
                i,
                tuple(draws),
                target,
                source,
                scale,
                tuple(adds),
                calls if row.asks else -1,
                output,
                row.on_grid,
                drop,
            )
        )
        calls += row.asks
        if row.asks and ("x", i) not in last_use:
            free.append(target)
    return Program(tuple(steps), slots, slot_of["x", len(rows) - 1])
