r"""Knots from a closed-form error bound: no network is asked.

Let the network's output be off by at most e(t) at time t. A plan, unrolled, is x_end = a x_T +
sum_j w_j d_j, whatever the solver, and so the end is off by at most

    B = sum_j |w_j| e(t_j),        e = sigma^p / alpha    (alpha^2 + sigma^2 = 1),

to be made small over the times. For DDIM and p = 1, B = sum_j (rho_j/rho_{j+1} - 1) up to a factor:
even steps in lambda; p = 2 puts more of them at high noise.

Xue et al., "Accelerating diffusion sampling with optimized time steps", 2024, arXiv:2402.17376
(their p is 2 in the published code).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from ..grid import ends
from ..names import look_up
from ..plan import Plan
from ..schedule import Schedule
from ..solvers.solver import SOLVERS
from ..times import default, uniform_lambda
from .knots import knots, times_of


def bound_times(
    solver: str | Callable[..., Plan],
    schedule: Schedule,
    steps: int,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    t_last: float | None = None,
    power: float = 2.0,
    max_iterations: int = 200,
    **options: Any,
) -> Tensor:
    """The grid that minimises sum_j |w_j| sigma_j^p/alpha_j, w_j the solver's unrolled weights.

    Where the grid ends at sigma = 0 the bound is that of the state at t_last, after steps - 1
    steps, and the last step goes on from there: at sigma = 0 all weight is on the last output,
    and the bound has no minimum. How fine the data is settles t_last, which no bound knows.

    Xue et al., "Accelerating diffusion sampling with optimized time steps", 2024,
    arXiv:2402.17376.

    Args:
        solver: any of `SOLVERS`, or its name.
        schedule: alpha_t, sigma_t.
        steps: of the grid.
        t_start, t_end: its ends; default t_max and t_min.
        t_last: the time of the last call where the grid ends at sigma = 0; default: that of the
            grid `default`.
        power: p >= 0.
        max_iterations: of L-BFGS.
        **options: of the solver.

    Returns:
        (steps + 1,) times, float64, for this solver or any other.

    Raises:
        ValueError: a negative power; times outside the schedule or out of order, t_last where
            the grid ends at sigma > 0, or alpha = 0 at the start.
    """
    if not (math.isfinite(power) and power >= 0):
        raise ValueError(f"power = {power} must be at least 0 and finite")
    start, end = ends(schedule, steps, t_start, t_end)
    jump = bool(schedule.sigma(end) == 0)
    if t_last is not None and not jump:
        raise ValueError(f"t_last = {t_last:g}, and the grid ends at t = {end:g} where sigma > 0")
    if steps == 1:
        return torch.tensor([start, end], dtype=torch.float64)
    last = float(default(schedule, steps, start, end)[-2]) if t_last is None else t_last
    last = last if jump else end
    grid = uniform_lambda(schedule, steps - jump, start, last)
    rest = grid.new_tensor([end] if jump else [])
    if len(grid) < 3:
        return torch.cat([grid, rest])
    make = look_up("solver", solver, SOLVERS) if isinstance(solver, str) else solver
    family = knots(make, schedule, grid, **options)

    def objective(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        u = torch.tensor(numbers, requires_grad=True)
        value = bound(family.build(u), schedule, power)
        (slope,) = torch.autograd.grad(value, u)
        return float(value.detach()), slope.numpy()

    limits = [(u - 5.0, u + 5.0) for u in family.start.tolist()]
    found = minimize(
        objective,
        family.start.numpy(),
        jac=True,
        method="L-BFGS-B",
        bounds=limits,
        options={"maxiter": max_iterations},
    )
    return torch.cat([times_of(schedule, grid, torch.from_numpy(found.x)), rest])


def bound(plan: Plan, schedule: Schedule, power: float = 2.0) -> Tensor:
    """sum_j |w_j| sigma_j^p/alpha_j of a plan, in the scales of alpha^2 + sigma^2 = 1; ()."""
    weights = plan.matrix()[-1, 1 : 1 + plan.nfe]
    asked = torch.stack(
        [torch.as_tensor(row.t, dtype=torch.float64) for row in plan.rows if row.asks]
    )
    alpha_t, sigma_t = (torch.as_tensor(v) for v in schedule(asked))
    size = torch.hypot(alpha_t, sigma_t)
    return (weights.abs() * (sigma_t / size) ** power * size / alpha_t).sum()
