r"""How a plan's samples move with its numbers: derivatives by the adjoint of the rows.

A plan whose coefficients and times depend on numbers theta has the states

    x_i = sum_k a_ik x_k + sum_j b_ij d_j + sum_k c_ik z_k,       d_j = D(x_j, t_j).

Let s be a seed, one vector for each sample, and S = s . r a sample's residual along it. With
lambda_i = dS/dx_i and mu_j = dS/dd_j, from the last row to the first,

    mu_j     = sum_i b_ij lambda_i,
    lambda_k = sum_i a_ik lambda_i + D_x(x_k, t_k)^T mu_k + (dS/dx_k where r looks at x_k itself),

    dS/da_ik = lambda_i . x_k,      dS/db_ij = lambda_i . d_j,      dS/dc_ik = lambda_i . z_k,
    dS/dt_j  = mu_j . D_t(x_j, t_j),

sample by sample; the derivatives of the table's entries in theta, worked out once, do the rest. So
s^T J, a row of each sample's Jacobian, costs about two network calls a call of the plan, whatever
the number of numbers, and memory that of all states and of one network call: the graph of each call
is made again on the way back. The noises z_k are drawn once and stay as they are.

Griewank & Walther, "Evaluating derivatives", 2008, chapters 3 and 12 (checkpoints).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoise import Call, Denoiser
from ..form import Symbol, number_of
from ..plan import Plan
from .family import Family

Entry = tuple[int, Symbol]
"""(row, symbol) of a coefficient; (row, ("t", 0)) of a time."""
_TIME: Symbol = ("t", 0)


@dataclass(frozen=True)
class Table:
    """A plan in plain floats, with the derivatives of its entries.

    Attributes:
        plan: the plan.
        entries: those that are not constant, to their row of `rates`.
        rates: d entry / d theta, (E, P), float64.
    """

    plan: Plan
    entries: Mapping[Entry, int]
    rates: Tensor

    def moving(self, rows: Sequence[int]) -> list[int]:
        """Which of these rows have a time that is not constant: their places in the list."""
        return [g for g, i in enumerate(rows) if (i, _TIME) in self.entries]


def differentiate(family: Family, numbers: Tensor) -> Table:
    """The family's plan at some numbers, and the derivatives of its coefficients and times.

    Raises:
        ValueError: if there is no such plan, or a derivative of it is not finite.
    """
    theta = numbers.detach().clone().requires_grad_()
    with torch.enable_grad():
        plan = family.build(theta)
    found: dict[Entry, Tensor] = {}
    for i, row in enumerate(plan.rows):
        for symbol, entry in ((_TIME, row.t), *row.terms()):
            if isinstance(entry, Tensor) and entry.requires_grad:
                found[i, symbol] = entry
    rates = torch.zeros(len(found), len(theta), dtype=theta.dtype)
    if found:
        entries = torch.stack(list(found.values()))
        basis = torch.eye(len(found), dtype=entries.dtype)
        (rates,) = torch.autograd.grad(entries, theta, basis, is_grads_batched=True)
    if not bool(torch.isfinite(rates).all()):
        raise ValueError(f"{plan.name} has no finite derivative in the numbers of {family.name}")
    return Table(plan.detached(), {key: e for e, key in enumerate(found)}, rates)


class Path(NamedTuple):
    """A run of a plan with all that was seen on the way.

    Attributes:
        values: x_i, d_j and z_k, each (batch, *event).
        states: those at the grid points, (g, batch, *event).
        times: of the grid points, (g,), float64.
        rows: of the grid points.
        calls: the denoiser at each call.
    """

    values: dict[Symbol, Tensor]
    states: Tensor
    times: Tensor
    rows: list[int]
    calls: list[Call]


@torch.no_grad()
def follow(plan: Plan, denoiser: Denoiser, x: Tensor, draws: Sequence[Tensor] = ()) -> Path:
    """Run a plan and keep everything.

    Args:
        plan: in plain floats.
        denoiser: for the plan's schedule.
        x: the start, (batch, *event).
        draws: z_k of a stochastic plan, each of x's shape.
    """
    values: dict[Symbol, Tensor] = {("z", k): z for k, z in enumerate(draws)}
    calls, outputs = denoiser.bind(plan.asked_at, x), 0
    for i, row in enumerate(plan.rows):
        state = torch.zeros_like(x) if i else x.clone()
        for symbol, c in row.terms():
            state.add_(values[symbol], alpha=number_of(c))
        values["x", i] = state
        if row.asks:
            values["d", outputs] = calls[outputs].scale * calls[outputs].function(state, None)
            outputs += 1
    rows = [i for i, row in enumerate(plan.rows) if row.on_grid]
    states = torch.stack([values["x", i] for i in rows])
    times = torch.tensor(plan.times, dtype=torch.float64)
    return Path(values, states, times, rows, calls)


def pull(table: Table, denoiser: Denoiser, path: Path, seeds: Tensor, times: Tensor) -> Tensor:
    """s^T J, sample by sample: the derivative of a sample's seed . residual in the numbers.

    Args:
        table: the plan and the derivatives of its entries.
        denoiser: for the plan's schedule.
        path: of this plan.
        seeds: dS/dx at the grid points, (k, g, batch, *event), k seeds at once.
        times: dS/dt at the grid points, (k, g, batch), as far as r looks at the time itself.

    Returns:
        (k, batch, P), float64.
    """
    rows, values = table.plan.rows, path.values
    count, batch = seeds.shape[0], seeds.shape[2]
    slopes = seeds.new_zeros(count, batch, len(table.entries))  # dS/d entry
    adjoint: dict[Symbol, Tensor] = {}
    for g, i in enumerate(path.rows):
        adjoint["x", i] = seeds[:, g].clone()
        if (i, _TIME) in table.entries:
            slopes[..., table.entries[i, _TIME]] += times[:, g]
    outputs = table.plan.nfe
    for i in reversed(range(len(rows))):
        above = adjoint.pop(("x", i), None)
        if rows[i].asks:
            outputs -= 1
            mu = adjoint.pop(("d", outputs), None)
            if mu is not None:
                x, e = values["x", i], table.entries.get((i, _TIME))
                below = _transposed(path.calls[outputs], x, mu)
                above = below if above is None else above + below
                if e is not None:
                    slopes[..., e] += _dot(mu, _time_rate(denoiser, x, number_of(rows[i].t)))
        if above is None:
            continue
        for symbol, c in rows[i].terms():
            if (i, symbol) in table.entries:
                slopes[..., table.entries[i, symbol]] = _dot(above, values[symbol])
            if symbol[0] != "z" and symbol != ("x", 0):
                part = number_of(c) * above
                adjoint[symbol] = adjoint[symbol] + part if symbol in adjoint else part
    return slopes.double() @ table.rates.to(slopes.device)


def _dot(adjoints: Tensor, value: Tensor) -> Tensor:
    """(k, batch): inner products over the event."""
    return (adjoints * value).reshape(*adjoints.shape[:2], -1).sum(2)


def _transposed(call: Call, x: Tensor, adjoints: Tensor) -> Tensor:
    """D_x^T mu for each mu of (k, batch, *event), by reverse differentiation of one call."""
    x = x.detach().requires_grad_()
    with torch.inference_mode(False), torch.enable_grad():
        d = call.scale * call.function(x, None)
        if not d.requires_grad:
            return torch.zeros_like(adjoints)
        parts = [
            torch.autograd.grad(d, x, mu, retain_graph=k + 1 < len(adjoints), allow_unused=True)[0]
            for k, mu in enumerate(adjoints)
        ]
    return torch.stack([torch.zeros_like(x) if part is None else part for part in parts])


def _time_rate(denoiser: Denoiser, x: Tensor, t: float) -> Tensor:
    """D_t(x, t), inside the schedule's range."""
    ends = denoiser.schedule.t_min, denoiser.schedule.t_max
    return rate(lambda s: denoiser(x, s), t, *ends, digits=torch.finfo(x.dtype).eps)


@torch.no_grad()
def rate(
    function: Callable[[float], Tensor],
    t: float,
    low: float = -math.inf,
    high: float = math.inf,
    digits: float = 2e-16,
) -> Tensor:
    """d function/dt by a central difference, right to about digits^(2/3) of its size.

    Two calls, half of what forward differentiation takes, and of any network.

    Args:
        function: of a time.
        t: where.
        low, high: the range in which the function may be asked.
        digits: to which the function is right.
    """
    step = digits ** (1 / 3) * max(abs(t), 1e-3)
    before, after = max(t - step, low), min(t + step, high)
    return (function(after) - function(before)) / (after - before)
