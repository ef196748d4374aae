r"""Parareal: blocks of rows in parallel, from states that a coarse sweep corrects.

The plan's rows are cut into blocks. What block b hands on is U_b: every state and output that a
later row needs, so that a multistep method keeps its history. F_b runs the block's rows, G_b
stands in for them at the cost of one call, and iteration k + 1 takes, from block to block,

    U_{b+1}^(k+1) = F_b(U_b^(k)) + G_b(U_b^(k+1)) - G_b(U_b^(k)),    U_{b+1}^(0) = G_b(U_b^(0)).

By induction the first k blocks are exact after k iterations: there the two G cancel.

G_b is read off the plan: the block's own rows, with the first output that is asked for held in
the place of all others. They are linear, so G_b(U) is one combination of U, that output and the
block's noises. For DDIM it is one DDIM step over the block (with d held, steps of DDIM compose),
for DDPM one posterior step with the sum of the block's noises, and in the difference of two G
the noises cancel. Every plan has it: with stages, history, noise or ways back up.

G_b and F_b share their first call. So with B blocks of m calls, F_b of all iterations under way
asked in one batch, iteration k is done after B + k (m - 1) rounds: the fewest, 2 sqrt(k n) - k, at
B = sqrt(k n) for a plan of n = B m calls.

Lions, Maday & Turinici, "A parareal in time discretization of PDE's", 2001, C. R. Acad. Sci. 332;
Selvam, Merchant & Ermon, "Self-refining diffusion samplers: enabling parallelization via parareal
iterations", 2024, arXiv:2412.08292 (SRDS), there for one-step methods, with one DDIM step as G.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..form import Form, Symbol, number_of
from ..plan import Plan
from ..scalar import Scalar
from .task import Task, norm

State = dict[Symbol, Tensor]
Terms = list[tuple[Symbol, float]]

ITERATIONS = 3  # for which the default number of blocks takes the fewest rounds


def parareal(task: Task, blocks: int | None = None) -> Tensor:
    """Parareal iterations on blocks of rows, each iteration starting as soon as it can.

    A sample is done when no state at a cut, and not its last, moves by more than the tolerance
    from one iteration to the next.

    Args:
        task: what to sample.
        blocks: the number of blocks, 1 .. nfe; None: sqrt(3 nfe), the fewest rounds if three
            iterations are enough.

    Returns:
        The last states, (batch, *event); those of samples that are not done are of the last
        iteration that came to its end.

    Raises:
        ValueError: a number of blocks out of range; fewer rounds allowed than there are blocks.
    """
    n = task.plan.nfe
    if blocks is None:
        blocks = min(n, max(1, round(math.sqrt(ITERATIONS * n))))
    if isinstance(blocks, bool) or not isinstance(blocks, int) or not 1 <= blocks <= n:
        raise ValueError(
            f"blocks = {blocks!r} must be an integer from 1 to {n}, the plan's network calls, "
            "or None"
        )
    cut_up = cut(task.plan, blocks)
    if task.max_rounds < len(cut_up):
        raise ValueError(
            f"max_rounds = {task.max_rounds} is less than the {len(cut_up)} rounds of the first "
            "sweep, one for each block: allow more rounds or give fewer blocks"
        )
    return _Pipeline(task, cut_up).solve()


@dataclass(frozen=True)
class Block:
    """Rows first + 1 .. last of a plan, and the network call of row `first`.

    Attributes:
        first, last: rows at which the plan is cut.
        handed: the symbols that rows after `last` need, and the state of row `last` itself.
        coarse: of each of them, its terms if the block's first output stands for all of its
            outputs: over the symbols handed to the block and that output.
        noise: of each of them, its terms over the draws.
        asked, calls: number of that output, and of network calls.
    """

    first: int
    last: int
    handed: tuple[Symbol, ...]
    coarse: Mapping[Symbol, Terms]
    noise: Mapping[Symbol, Terms]
    asked: int
    calls: int


def cut(plan: Plan, blocks: int) -> list[Block]:
    """Blocks of about equally many network calls.

    A cut is made at a row that asks the network: within half a block of its even place, where
    the fewest symbols are handed on (so at a grid point rather than at a stage), then nearest.
    """
    asking = [i for i, row in enumerate(plan.rows) if row.asks]
    handed = _handed(plan)
    size = len(asking) / blocks
    chosen: list[int] = []
    for b in range(1, blocks):
        low = max(b * size - size / 2, chosen[-1] + 1 if chosen else 1)
        near = range(math.ceil(low), min(math.ceil(b * size + size / 2), len(asking)))
        if near:
            even = b * size
            chosen.append(min(near, key=lambda j: (len(handed[j]), abs(j - even))))
    end = len(plan.rows) - 1
    rows = [0, *(asking[j] for j in chosen), end]
    given = [(("x", 0),), *(handed[j] for j in chosen), (("x", end),)]
    parts = zip(pairwise(rows), pairwise(given), strict=True)
    return [_block(plan, asking, *ends, *symbols) for ends, symbols in parts]


def _last_use(plan: Plan) -> dict[Symbol, int]:
    return {symbol: i for i, row in enumerate(plan.rows) for symbol, _ in row.terms()}


def _handed(plan: Plan) -> list[tuple[Symbol, ...]]:
    """For each row that asks: what is known before it and needed after it, and its own state."""
    last_use = _last_use(plan)
    alive: list[Symbol] = []
    found: list[tuple[Symbol, ...]] = []
    for i, row in enumerate(plan.rows):
        alive = [symbol for symbol in alive if last_use.get(symbol, 0) > i]
        own: list[Symbol] = [("x", i)]
        if row.asks:
            found.append((*alive, *own))
            own.append(("d", len(found) - 1))
        alive += own
    return found


def _block(
    plan: Plan,
    asking: list[int],
    first: int,
    last: int,
    given: tuple[Symbol, ...],
    handed: tuple[Symbol, ...],
) -> Block:
    """The rows between two cuts, with their outputs held at the first of them."""
    number = {i: j for j, i in enumerate(asking) if first <= i < last}
    asked = min(number.values())
    forms = {symbol: Form({symbol: 1.0}) for symbol in given}
    for i in range(first, last + 1):
        if i > first:
            terms = _numbers(plan.rows[i].terms())
            forms["x", i] = sum((c * forms.get(s, Form({s: 1.0})) for s, c in terms), Form({}))
        if i in number:
            forms["d", number[i]] = Form({("d", asked): 1.0})
    all_terms = {symbol: _numbers(forms[symbol].terms.items()) for symbol in handed}
    zero = [(given[0], 0.0)]  # a state of noise alone
    coarse = {s: [t for t in terms if t[0][0] != "z"] or zero for s, terms in all_terms.items()}
    noise = {s: [t for t in terms if t[0][0] == "z"] for s, terms in all_terms.items()}
    return Block(first, last, handed, coarse, noise, asked, len(number))


class _Run:
    """Block b from U_b^(k): G after its first output, F after its last row."""

    def __init__(self, block: Block, given: State) -> None:
        self.block, self.given = block, given
        self.values = dict(given)
        self.row, self.asked = block.first, block.asked
        self.coarse: State = {}
        self.fine: State = {}
        self.handed_on = False

    def keep(self, samples: Tensor) -> None:
        """Go on with some of the samples."""
        for name in ("given", "values", "coarse", "fine"):
            setattr(self, name, _of(getattr(self, name), samples))


class _Pipeline:
    """All iterations at once: block b of iteration k runs as soon as its start is known.

    Attributes:
        runs: (b, k) -> block b from U_b^(k), until U_{b+1}^(k+1) is made of it. As the first k
            blocks are exact after k iterations, there is none with k > b.
        noise: the draws, each made once, when the coarse sweep comes to it.
        samples: which samples are not done.
        end: the plan's end by the last iteration, of those samples.
        starts: by block, the state that it started from in the last iteration to come to it.
        moved: by iteration, the largest relative change of these states so far, (samples,).
        exact: network calls that need not be made again.
    """

    def __init__(self, task: Task, blocks: list[Block]) -> None:
        self.task, self.blocks, self.rows = task, blocks, task.plan.rows
        self.terms = [_numbers(row.terms()) for row in self.rows]
        self.last_use = _last_use(task.plan)
        self.dying: list[list[Symbol]] = [[] for _ in self.rows]
        for symbol, i in self.last_use.items():
            self.dying[i].append(symbol)
        self.runs: dict[tuple[int, int], _Run] = {}
        self.noise: State = {}
        self.samples = torch.arange(len(task.x), device=task.x.device)
        self.result = torch.empty_like(task.x)
        self.end: Tensor | None = None
        self.starts: dict[int, Tensor] = {}
        self.moved: dict[int, Tensor] = {}
        self.exact = 0

    def solve(self) -> Tensor:
        """Rounds until every sample is done, or there are no more; the last states."""
        self._start(0, 0, {("x", 0): self.task.x})
        while len(self.samples) and self.task.rounds < self.task.max_rounds:
            self._round()
            for b, k in sorted(self.runs):
                if len(self.samples):
                    self._hand_on(b, k)
        if self.end is not None:
            self.result[self.samples] = self.end
        return self.result

    def _start(self, b: int, k: int, state: State) -> None:
        """Begin block b of iteration k; past the last block, that iteration has come to its end."""
        x = state["x", self.blocks[b].first if b < len(self.blocks) else len(self.rows) - 1]
        if b in self.starts:
            change = norm(x - self.starts[b]) / norm(x)  # nan if not finite
            before = self.moved.get(k)
            self.moved[k] = change if before is None else torch.maximum(before, change)
        self.starts[b] = x
        if b == len(self.blocks):
            self._judge(k, x)
            return
        run = self.runs[b, k] = _Run(self.blocks[b], state)
        if not self.rows[run.row].asks:
            self._advance(run)

    def _round(self) -> None:
        """One network call for all blocks under way, and their rows up to the next."""
        under_way = sorted((r for r in self.runs.values() if not r.fine), key=lambda r: r.asked)
        x = torch.cat([run.values["x", run.row] for run in under_way])
        calls = np.repeat([run.asked for run in under_way], len(self.samples))
        answers = self.task.network(x, calls, self.samples.repeat(len(under_way))).split(
            len(self.samples)
        )
        self.task.rounds += 1
        for run, d in zip(under_way, answers, strict=True):
            run.values["d", run.asked] = d
            if run.asked == run.block.asked:
                known = {**run.given, ("d", run.asked): d}
                run.coarse = {s: combine(terms, known) for s, terms in run.block.coarse.items()}
                run.given = {}
            if ("x", run.row) not in self.last_use:
                del run.values["x", run.row]
            run.asked += 1
            self._advance(run)

    def _advance(self, run: _Run) -> None:
        """The rows up to the next that asks, or to the block's end."""
        while not run.fine:
            run.row += 1
            known = self._with_noise(run.values, self.terms[run.row])
            run.values["x", run.row] = combine(self.terms[run.row], known)
            for symbol in self.dying[run.row]:
                run.values.pop(symbol, None)
            if run.row == run.block.last:
                run.fine = {symbol: run.values[symbol] for symbol in run.block.handed}
                run.values = {}
            elif self.rows[run.row].asks:
                return

    def _hand_on(self, b: int, k: int) -> None:
        """What follows from block b of iteration k, if it is known."""
        run = self.runs[b, k]
        if k == 0 and run.coarse and not run.handed_on:
            run.handed_on = True
            state = dict(run.coarse)
            for symbol, terms in run.block.noise.items():
                one = {("x", -1): state[symbol]}
                state[symbol] = combine([(("x", -1), 1.0), *terms], self._with_noise(one, terms))
            self._start(b + 1, 0, state)
        after = self.runs.get((b, k + 1))
        if run.fine and (b == k or (after is not None and after.coarse)):
            state = run.fine
            if after is not None:
                state = {s: x + (after.coarse[s] - run.coarse[s]) for s, x in state.items()}
            else:
                self.exact += run.block.calls
                self._tell(run.block.calls * len(self.samples))
            del self.runs[b, k]
            self._start(b + 1, k + 1, state)

    def _judge(self, k: int, end: Tensor) -> None:
        """Iteration k has come to its end: samples that moved no more since the last are done."""
        exact, first, self.end = k == len(self.blocks), self.end is None, end
        if exact and not torch.isfinite(end).all():
            raise self.task.not_finite(self.task.plan.nfe)
        if first:
            return
        change = self.moved.pop(k)
        self.task.residuals.append(float(change.nan_to_num(math.inf, math.inf).max()))
        done = torch.ones_like(change, dtype=torch.bool) if exact else change <= self.task.tolerance
        if not done.any():
            return
        self.result[self.samples[done]] = end[done]
        self.task.sample_rounds[self.samples[done].cpu().numpy()] = self.task.rounds
        self._tell((self.task.plan.nfe - self.exact) * int(done.sum()))
        self.samples, self.end = self.samples[~done], end[~done]
        self.noise = _of(self.noise, ~done)
        self.starts = {b: x[~done] for b, x in self.starts.items()}
        self.moved = {i: change[~done] for i, change in self.moved.items()}
        for run in self.runs.values():
            run.keep(~done)

    def _tell(self, work: int) -> None:
        self.task.progress.advance(work, f"round {self.task.rounds + 1}")

    def _with_noise(self, known: State, terms: Terms) -> State:
        """What is known, and the draws that the terms need, made in the plan's order."""
        needed = [symbol for symbol, _ in terms if symbol[0] == "z"]
        if not needed:
            return known
        for k in range(len(self.noise), 1 + max(k for _, k in needed)):
            out = torch.empty_like(self.task.x)
            self.noise["z", k] = self.task.table.draw(out, *self.task.plan.noises[k])  # type: ignore[misc]
        return {**known, **{symbol: self.noise[symbol] for symbol in needed}}


def combine(terms: Terms, values: State) -> Tensor:
    """The sum of coefficient times value."""
    (first, c), *others = terms
    total = values[first] * c
    for symbol, c in others:
        total.add_(values[symbol], alpha=c)
    return total


def _numbers(terms: Iterable[tuple[Symbol, Scalar]]) -> Terms:
    return [(symbol, number_of(c)) for symbol, c in terms]


def _of(state: State, samples: Tensor) -> State:
    return {symbol: x[samples] for symbol, x in state.items()}
