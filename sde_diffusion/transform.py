r"""From plan to plan: what can be done to any sampler once it is a table.

`replay` writes a plan's rows into another trace, from any state, with any of its first outputs
given instead of asked. On it rest the analytic first step, a denoising last step, Restart and
Richardson extrapolation: none of them knows which solver made the table.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import replace

from .form import Form, Symbol, number_of
from .plan import Plan
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
