r"""Stochasticity of each step: how much fresh noise takes the place of noise that is kept.

An error of the network stays on the path of an ODE. Fresh noise forgets it, at the price of a
coarser step: how much is best differs from step to step, and is one number a step,

    eta_i = |tanh u_i|              of ddim and the ancestral samplers, 0 <= eta < 1;
    tau_i = |u_i|                   of sa_solver, tau >= 0;
    gamma_i = gamma_max tanh^2 u_i  of churn, by which sigma/alpha is raised before the step.

u_i = 0 is the ODE step, in every one of them; the law of the samples is smooth in u_i^2, so that
u_i and -u_i are the same sampler, and 0 is a point from which no gradient leads away. A loss that
compares ends of paths sees noise as error: fit these to a law (`laws.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..form import number_of
from ..grid import check_grid
from ..names import look_up
from ..plan import Plan
from ..scalar import Scalar
from ..schedule import Schedule
from ..solvers import SOLVERS
from ..solvers.edm import STEPS
from ..solvers.edm import churn as churned
from ..solvers.solver import made_for
from .family import Family

OPTIONS = {
    "ddim": "eta",
    "euler_ancestral": "eta",
    "dpm_2_ancestral": "eta",
    "dpm_solver_pp_2s_ancestral": "eta",
    "sa_solver": "tau",
}
"""The solvers whose stochasticity may differ from step to step, and the option that says it."""


def stochasticity(
    solver: str | Callable[..., Plan],
    schedule: Schedule,
    times: Sequence[float] | Tensor,
    start: float = 0.5,
    **options: Any,
) -> Family:
    """The stochasticity of a solver, eta or tau, one number a step.

    eta_i = |tanh u_i| or tau_i = |u_i|; a step to sigma = 0 draws nothing and has no number.

    Args:
        solver: one of `OPTIONS`, or its name: "ddim" or an ancestral sampler with eta in [0, 1],
            or "sa_solver" with tau.
        schedule: alpha_t, sigma_t.
        times: the grid, noisy to clean.
        start: eta or tau of every step to begin with: above 0, and below 1 for eta.
        options: of the solver; eta or tau among them, unless 0, is where to begin.

    Raises:
        ValueError: another solver; a start out of its range.
    """
    name = solver if isinstance(solver, str) else getattr(solver, "__name__", repr(solver))
    option = look_up("solver with its own stochasticity each step", name, OPTIONS)
    make = SOLVERS[name]
    start = options.pop(option, 0) or start
    grid = [number_of(t) for t in check_grid(schedule, times)]
    if not 0 < start < (1 if option == "eta" else math.inf):
        raise ValueError(f"start = {start}: {option} to begin with must be above 0, eta below 1")
    free = [i for i, s in enumerate(grid[1:]) if schedule.sigma(s) > 0]

    def build(numbers: Tensor) -> Plan:
        chosen = numbers.tanh().abs() if option == "eta" else numbers.abs()
        each: list[Scalar] = [0.0] * (len(grid) - 1)
        values = chosen.unbind() if numbers.requires_grad else chosen.tolist()
        for i, value in zip(free, values, strict=True):
            each[i] = value
        given: Any = each
        if option == "tau":
            at = dict(zip(grid, each, strict=False))
            given = lambda t: at[number_of(t)]
        elif chosen.requires_grad:
            given = torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in each])
        plan = make(schedule, grid, **{option: given}, **options)
        return replace(plan, name=f"stochasticity({name})")

    first = math.atanh(start) if option == "eta" else start
    numbers = torch.full((len(free),), first, dtype=torch.float64)
    return Family("stochasticity", build, numbers, tuple(f"{option}{i}" for i in free))


def churn(
    schedule: Schedule,
    times: Sequence[float] | Tensor,
    step: str = "dpm_2",
    most: float = 1.0,
    start: float = 0.1,
) -> Family:
    """Noise before each step of a single-step ODE solver, one number a step.

    y_hat = y_t + sqrt(rho_hat^2 - rho_t^2) z at rho_hat = (1 + gamma_i) rho_t, then the step from
    rho_hat to rho_s; y = x/alpha, rho = sigma/alpha, gamma_i = gamma_max tanh^2 u_i.

    Wang et al., "Adaptive stochastic coefficients for accelerating diffusion sampling" (AdaSDE),
    2025, arXiv:2510.23285. There the step is the midpoint rule, whose point and scale are learned
    too; as there, the first step of a grid that starts at the highest level draws nothing.

    Args:
        schedule: alpha_t, sigma_t.
        times: the grid, noisy to clean.
        step: of the ODE: "dpm_2" (midpoint in log rho), "heun" or "euler".
        most: gamma_max > 0, less where the schedule has no level so high.
        start: gamma of every step to begin with, above 0 and below every step's gamma_max.

    Raises:
        ValueError: an unknown step; a start out of its range; a grid of which no step can be
            raised.
    """
    advance = look_up("step", step, STEPS)
    grid = check_grid(schedule, [number_of(t) for t in check_grid(schedule, times)])
    highest = float(schedule.rho(schedule.t_max))
    room = {}
    for i, t in enumerate(grid[:-1]):
        limit = min(most, (1 - 1e-9) * (highest / float(schedule.rho(t)) - 1))
        if schedule.alpha(t) > 0 and limit > start:
            room[i] = limit
    if not (room and 0 < start < most):
        raise ValueError(
            f"start = {start}, most = {most}: no step of this grid can be raised by more than "
            f"start; levels end at sigma/alpha = {highest:.6g}"
        )
    limits = torch.tensor(list(room.values()), dtype=torch.float64)

    def build(numbers: Tensor) -> Plan:
        gammas: list[Scalar] = [0.0] * (len(grid) - 1)
        for i, gamma in zip(room, (limits * numbers.tanh() ** 2).unbind(), strict=True):
            gammas[i] = gamma
        plan = churned(schedule, grid, advance, gammas, 1.0)
        return made_for(plan, schedule, f"churn({step})")

    names = tuple(f"gamma{i}" for i in room)
    return Family("churn", build, (start / limits).sqrt().atanh(), names)
