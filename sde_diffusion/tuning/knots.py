r"""Free times: the grid of any solver, monotone by construction.

In the angle theta = arctan(sigma/alpha) both exact ends lie at finite places, sigma = 0 at 0 and
alpha = 0 at pi/2. The ends are fixed; the N steps between them share the angle as a softmax does,

    theta_{i-1} - theta_i = (theta_0 - theta_*) e^{u_i} / sum_j e^{u_j},     u_N = 0,

so any N - 1 numbers u are a strictly decreasing grid, and every such grid is one u. theta_* is the
end of the grid; where sigma = 0 there, that of t_clean, below which no network is asked, and the
last step goes on from theta_* to 0. The solver's own text is traced over these times: its
coefficients follow, and carry the gradient.

A network may be asked at another time than that of its grid point, t~ instead of t: with the share
p = (theta - theta_*)/(theta_0 - theta_*), logit(p~) = logit(p) + xi.

Tong et al., "Learning to discretize denoising diffusion ODEs", 2024, arXiv:2405.15506 (there in
time or lambda; the network's own times are its "decoupled" ones).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..form import number_of
from ..grid import check_grid
from ..names import look_up
from ..plan import Plan, Row
from ..scalar import atan2
from ..schedule import Schedule
from ..solvers.solver import SOLVERS
from .family import Family


def knots(
    solver: str | Callable[..., Plan],
    schedule: Schedule,
    times: Sequence[float] | Tensor,
    *,
    asked: bool = False,
    **options: Any,
) -> Family:
    """Plans of one solver whose interior times are free.

    theta_{i-1} - theta_i = (theta_0 - theta_N) softmax(u)_i, u_N = 0; the ends stay.

    Tong et al., "Learning to discretize denoising diffusion ODEs", 2024, arXiv:2405.15506.

    Args:
        solver: any of `SOLVERS`, or its name.
        schedule: alpha_t, sigma_t.
        times: the grid to begin with, (N + 1,), noisy to clean, N >= 2.
        asked: whether the time that the network is told is free too at each call that is not at
            the start. (A trajectory loss then compares states at the times asked.)
        **options: of the solver.

    Raises:
        ValueError: an unknown solver; fewer than 2 steps; what the solver refuses.
    """
    make = look_up("solver", solver, SOLVERS) if isinstance(solver, str) else solver
    grid = torch.tensor([number_of(t) for t in check_grid(schedule, times)], dtype=torch.float64)
    if len(grid) < 3:
        raise ValueError("a grid of 1 step has no interior time: give at least 2 steps")
    start = numbers_of(schedule, grid)
    plan = make(schedule, grid, **options)
    calls = [i for i, row in enumerate(plan.rows) if row.asks and row.t != plan.rows[0].t]
    moved = calls if asked else []

    first, last = _angle(schedule, grid)[0], _lowest(schedule, grid)

    def build(numbers: Tensor) -> Plan:
        plan = make(schedule, times_of(schedule, grid, numbers[: len(start)]), **options)
        if not moved:
            return plan
        shifts = dict(zip(moved, numbers[len(start) :], strict=True))
        rows = [
            _ask_at(row, schedule, first, last, shifts[i]) if i in shifts else row
            for i, row in enumerate(plan.rows)
        ]
        return replace(plan, rows=tuple(rows))

    names = [f"step {i + 1}" for i in range(len(start))] + [f"call {i}" for i in moved]
    numbers = torch.cat([start, start.new_zeros(len(moved))])
    return Family("knots and calls" if asked else "knots", build, numbers, tuple(names))


def numbers_of(schedule: Schedule, times: Tensor) -> Tensor:
    """u of a grid, (N - 1,): log of each step in the angle relative to the last step."""
    theta = torch.cat([_angle(schedule, times)[:-1], _lowest(schedule, times)[None]])
    steps = -theta.diff()
    return (steps[:-1] / steps[-1]).log()


def times_of(schedule: Schedule, times: Tensor, numbers: Tensor) -> Tensor:
    """The grid of u between the ends of `times`, (N + 1,), differentiable in u."""
    first, last = _angle(schedule, times)[0], _lowest(schedule, times)
    steps = (first - last) * torch.cat([numbers, numbers.new_zeros(1)]).softmax(0)
    inner = last + steps.flip(0).cumsum(0).flip(0)[1:]  # small angles from small steps
    return torch.cat([times[:1], _time(schedule, inner), times[-1:]])


def _lowest(schedule: Schedule, times: Tensor) -> Tensor:
    """theta_*; half the last angle of a grid that goes down to t_clean or below by itself."""
    last, end = _angle(schedule, times)[-2:]
    if end > 0:
        return end
    clean = _angle(schedule, times.new_tensor(schedule.t_clean))
    return clean if last > 1.01 * clean else last / 2


def _angle(schedule: Schedule, t: Tensor) -> Tensor:
    alpha_t, sigma_t = schedule(t)
    return torch.as_tensor(atan2(sigma_t, alpha_t))


def _time(schedule: Schedule, theta: Tensor) -> Tensor:
    return torch.as_tensor(schedule.time_of(-theta.tan().log()))


def _ask_at(row: Row, schedule: Schedule, first: Tensor, last: Tensor, shift: Tensor) -> Row:
    """The row, its question asked at a time shifted in the logit of its share of the angle."""
    theta = _angle(schedule, torch.as_tensor(row.t, dtype=torch.float64))
    share = ((theta - last) / (first - last)).logit() + shift
    return replace(row, t=_time(schedule, last + (first - last) * share.sigmoid()))
