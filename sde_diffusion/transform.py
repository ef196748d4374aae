r"""From plan to plan: what can be done to any sampler once it is a table.

`replay` writes a plan's rows into another trace, from any state, with any of its first outputs
given instead of asked. On it rest the analytic first step, a denoising last step, plans that begin
afresh, Restart and Richardson extrapolation: none of them knows which solver made the table.
`on_schedule` carries a table to another schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from .counts import checked_number
from .form import Form, Symbol, number_of
from .grid import check_grid, time_of_rho
from .plan import Plan, Row
from .scalar import Scalar
from .schedule import Schedule
from .trace import Trace


def replay(
    trace: Trace,
    x: Form,
    plan: Plan,
    given: Sequence[Form] = (),
    grid: Container[float] | None = None,
) -> tuple[Form, list[Form]]:
    """Write a plan's rows into a trace, starting from state x.

    Args:
        trace: where to write.
        x: the state at the plan's first time.
        plan: the table; its end is returned, not written.
        given: the plan's first outputs, if known: the network is not asked for them.
        grid: which of its grid points are grid points of the new plan too, the others being
            trial points; None: all.

    Returns:
        (the plan's last state, all its outputs), as forms of the trace.
    """
    symbols: dict[Symbol, Form] = {}
    outputs: list[Form] = []
    for i, row in enumerate(plan.rows):
        for k in row.z:
            if ("z", k) not in symbols:
                symbols["z", k] = trace.noise(*plan.noises[k])
        state = x if i == 0 else sum((c * symbols[k] for k, c in row.terms()), Form({}))
        if row.asks and len(outputs) < len(given):
            outputs.append(given[len(outputs)])
        elif row.asks:
            kept = row.kind == "denoise" and (grid is None or number_of(row.t) in grid)
            ask = trace.denoise if kept else trace.stage
            state, d = ask(state, row.t)
            outputs.append(d)
        elif row.kind == "store" and i:
            state = trace.store(state, row.t)
        if row.asks:
            symbols["d", len(outputs) - 1] = outputs[-1]
        symbols["x", i] = state
    return state, outputs


def analytic_first_step(plan: Plan, schedule: Schedule, variance: Scalar = 1.0) -> Plan:
    """The first network call replaced by the posterior mean of Gaussian data: one call less.

    d_0 = alpha v / (alpha^2 v + sigma^2) x_T, which is E[x_0 | x_T] for data N(0, v). At high noise
    every data set looks Gaussian: the error falls as alpha^2/sigma^2 at the start.

    Dockhorn, Vahdat & Kreis, "GENIE: higher-order denoising diffusion solvers", 2022,
    arXiv:2210.05475, section 4 ("analytical first step"), there with v = 1 and alpha^2 + sigma^2
    = 1, where the noise is eps = sigma x_T; with v = 0, eps = x_T / sigma.

    Args:
        plan: any solver's table, with at least two network calls.
        schedule: the schedule that it was made for.
        variance: v >= 0, of the data in one coordinate, the mean being 0.

    Raises:
        ValueError: a negative variance; a plan of one call, or for another schedule, or whose
            first call is not at its start.
    """
    plan.check_schedule(schedule)
    if not 0 <= variance < math.inf:
        raise ValueError(f"variance = {variance}: the variance of the data, at least 0")
    if plan.nfe < 2 or not plan.rows[0].asks:
        raise ValueError(
            f"{plan.name} has {plan.nfe} network calls, the first at row "
            f"{next(i for i, row in enumerate(plan.rows) if row.asks)}: an analytic first step "
            "takes the place of a call at the start and leaves at least one"
        )
    t = plan.rows[0].t
    alpha_t, sigma_t = schedule(t)
    trace = Trace(t)
    d = alpha_t * variance / (alpha_t**2 * variance + sigma_t**2) * trace.x
    x, _ = replay(trace, trace.x, plan, given=[d])
    name = f"analytic_first_step({plan.name}, variance={float(variance):g})"
    made = trace.end(x, plan.rows[-1].t, name, plan.schedule)
    rows = (replace(made.rows[0], kind="given"), *made.rows[1:])
    return replace(made, rows=rows, scales=plan.scales)


def denoise_at_end(plan: Plan, schedule: Schedule) -> Plan:
    """One more network call at the end, and the result is alpha d at the cleanest time.

    For a plan that stops at sigma > 0: the last noise is taken out in one step of DDIM, as in Song
    et al., "Score-based generative modeling through SDEs", 2021, arXiv:2011.13456, appendix C
    (which stops at t = 1e-3 or 1e-5 and denoises), after Jolicoeur-Martineau et al. 2020,
    arXiv:2009.05475.

    Args:
        plan: any solver's table that ends at sigma > 0.
        schedule: the schedule that it was made for, with sigma(t_min) = 0.

    Raises:
        ValueError: a plan that ends at sigma = 0, or for another schedule; a schedule that does
            not reach sigma = 0.
    """
    plan.check_schedule(schedule)
    end, clean = plan.rows[-1].t, schedule.t_min
    if schedule.sigma(end) == 0 or schedule.sigma(clean) > 0:
        raise ValueError(
            f"sigma is {float(schedule.sigma(end)):.3g} at the end of {plan.name} and "
            f"{float(schedule.sigma(clean)):.3g} at t_min of {schedule!r}: there must be noise "
            "left to take out, and a time without any"
        )
    trace = Trace(plan.rows[0].t)
    x, _ = replay(trace, trace.x, plan)
    x, d = trace.denoise(x, end)
    made = trace.end(schedule.alpha(clean) * d, clean, f"denoise_at_end({plan.name})")
    point = (float(clean), float(schedule.alpha(clean)), 0.0)
    return replace(made, schedule=plan.schedule, scales=(*plan.scales, point))


def afresh(
    solver: Callable[..., Plan],
    schedule: Schedule,
    times: Sequence[float] | Tensor,
    levels: Sequence[float],
    **options: Any,
) -> Plan:
    """A solver's plan that begins anew, without history, at some noise levels.

    For a denoiser that jumps there, as `guidance.limited_interval` does at its ends: a multistep
    method that extrapolates across a jump has an error of the first order in the step, and a large
    one where its order is high. Of the grid, the inner point nearest to each level moves to it, so
    that the number of steps stays.

    Args:
        solver: (schedule, times, **options) -> Plan, as `solvers.angular`, of low order in the
            first steps of each piece, as it is at the start.
        schedule: alpha_t, sigma_t.
        times: noisy to clean.
        levels: noise-to-signal ratios sigma/alpha > 0.
        options: of the solver.

    Raises:
        TypeError: a solver that is no function; a schedule that is none; levels that are no list.
        ValueError: a level outside the grid, or two that are nearest to one point; pieces that are
            too short for the solver.
    """
    if not callable(solver):
        raise TypeError(f"solver = {solver!r}: give the function, as sd.solvers.angular")
    if not isinstance(schedule, Schedule):
        raise TypeError(
            f"schedule is {type(schedule).__name__}, not a Schedule: afresh(solver, schedule, "
            "times, levels)"
        )
    if not isinstance(levels, Sequence | Tensor | np.ndarray) or not len(np.shape(levels)):
        raise TypeError(f"levels = {levels!r} must be a list of noise levels, as [0.3, 2.0]")
    grid = [number_of(t) for t in check_grid(schedule, times)]
    first, last = float(schedule.rho(grid[0])), float(schedule.rho(grid[-1]))
    ordered = sorted((checked_number(rho, "a level") for rho in levels), reverse=True)
    for rho in ordered:
        if not last < rho < first:
            raise ValueError(
                f"levels has {rho:g}, and the grid has sigma/alpha from {first:.4g} to "
                f"{last:.4g}: give levels inside"
            )
    bounds = _nearest(schedule, grid, ordered)
    for k, (nearest, rho) in enumerate(zip(bounds, ordered, strict=True)):
        if nearest in (0, *bounds[:k]):
            raise ValueError(
                f"{len(grid) - 1} steps have no grid point for {rho:g} alone: give more steps"
            )
        grid[nearest] = time_of_rho(schedule, rho)
    parts = [grid[i : k + 1] for i, k in pairwise([0, *bounds, len(grid) - 1])]
    plans = [solver(schedule, part, **options) for part in parts]
    trace = Trace(grid[0])
    x = trace.x
    for plan in plans:
        x, _ = replay(trace, x, plan)
    told = ", ".join(f"{rho:g}" for rho in ordered)
    made = trace.end(x, grid[-1], f"afresh({plans[0].name}, levels=[{told}])", plans[0].schedule)
    return replace(made, scales=tuple(dict.fromkeys(c for plan in plans for c in plan.scales)))


def have_points(
    schedule: Schedule, times: Sequence[float] | Tensor, levels: Sequence[float]
) -> bool:
    """Whether each of the levels inside a grid has a grid point of its own for `afresh`."""
    grid = [number_of(t) for t in times]
    found = _nearest(schedule, grid, levels)
    return 0 not in found and len(set(found)) == len(found)


def _nearest(schedule: Schedule, grid: Sequence[float], levels: Sequence[float]) -> list[int]:
    """The inner grid point nearest to each level, in log(sigma/alpha); 0 where there is none."""
    at = {i: float(schedule.rho(grid[i])) for i in range(1, len(grid) - 1)}
    return [min(at, key=lambda i: abs(math.log(at[i] / rho)), default=0) for rho in levels]


def on_schedule(plan: Plan, schedule: Schedule, other: Schedule) -> Plan:
    """The same sampler on another schedule: each state at its noise level sigma/alpha, rescaled.

    x/r with r = hypot(alpha, sigma) has one law for each sigma/alpha, whatever the schedule, and
    E[x_0 | x] is one function of both. So with x'_i = (r'_i/r_i) x_i at the time of `other` that
    has the noise level of row i,

        x'_i = (r'_i/r_i) (sum_k a_ik (r_k/r'_k) x'_k + sum_j b_ij d_j + sum_k c_ik z_k).

    A plan fitted to a network holds for the same network, told its noise level in another way; not
    for a network that was trained on other data or answers otherwise.

    Args:
        plan: any plan, a tuned one too.
        schedule: the schedule that it was made for.
        other: the schedule on which it is wanted; it must have all noise levels of the plan.

    Raises:
        ValueError: a plan for another schedule; a noise level that `other` does not have.
    """
    plan.check_schedule(schedule)

    def moved(t: Scalar) -> float:
        """The time of `other` with the noise level of t."""
        rho = float(schedule.rho(number_of(t)))
        least, most = float(other.rho(other.t_min)), float(other.rho(other.t_max))
        if math.isclose(rho, least, rel_tol=1e-9) or math.isclose(rho, most, rel_tol=1e-9):
            return other.t_min if math.isclose(rho, least, rel_tol=1e-9) else other.t_max
        if not least < rho < most:
            raise ValueError(
                f"{plan.name} has a state at sigma/alpha = {rho:.6g} (t = {number_of(t):g}), and "
                f"{other!r} has from {least:.6g} to {most:.6g}: this plan cannot be had there"
            )
        return time_of_rho(other, rho)

    def size(of: Schedule, t: float) -> float:
        return math.hypot(*(float(c) for c in of(t)))

    times = [moved(row.t) for row in plan.rows]
    factor = [
        size(other, t) / size(schedule, number_of(row.t))
        for t, row in zip(times, plan.rows, strict=True)
    ]
    rows = []
    for i, (t, row) in enumerate(zip(times, plan.rows, strict=True)):
        x = {k: c * factor[i] / factor[k] for k, c in row.x.items()}
        d, z = ({k: c * factor[i] for k, c in group.items()} for group in (row.d, row.z))
        rows.append(Row(row.kind, t, x, d, z))
    noises = tuple((moved(t), moved(s)) for t, s in plan.noises)
    known = [moved(t) for t, _, _ in plan.scales]
    scales = tuple((t, float(other.alpha(t)), float(other.sigma(t))) for t in known)
    origin = {**plan.origin, "carried from": plan.schedule} if plan.origin else {}
    return Plan(tuple(rows), noises, plan.name, repr(other), scales, origin)
