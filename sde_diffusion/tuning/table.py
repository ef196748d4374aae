r"""The whole table free: every scale, coefficient and time of a deterministic sampler.

A deterministic plan with n network calls is the map

    x_i = A_i x_T + sum_{j<i} B_ij d_j,      i = 0 .. n,      d_i = E[x_0 | x_{t_i} = x_i],

x_n being the result. With alpha = r cos(theta), sigma = r sin(theta) and u = x/r, the numbers

    a_i = A_i r_T/r_i,      b_ij = B_ij/r_i,      l_i = log tan(theta_i) = log(sigma/alpha)

know nothing of the schedule: the same numbers are the same sampler on each, and numbers fitted from
one noisy end begin a fit from another. Free, they are n + 1 scales a, n (n + 1)/2 coefficients b
and n noise levels l: 19 numbers for 4 calls.

The first call need not be at the start. At high noise d is little more than the mean of the data,
a call that tells nothing; x_0 = A_0 x_T at a lower noise level is a better first question. So a
plan with an analytic first step (`transform.analytic_first_step`) is where to begin.

Shaul et al., "Bespoke non-stationary solvers for fast sampling of diffusion and flow models",
2024, arXiv:2403.01329 (scales, coefficients and times, for a first call at the start). Frankel et
al., "S4S: solving for a diffusion model solver", 2025, arXiv:2502.17423.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..form import number_of
from ..plan import Plan, Row
from ..scalar import Scalar, sqrt
from ..schedule import Schedule
from ..solvers.solver import made_for
from .family import Family


def table(plan: Plan, schedule: Schedule, times: bool = True, first_call: bool = True) -> Family:
    """All scales and coefficients of a deterministic plan, and the noise levels of its calls.

    The plans of the family are for this schedule, with the number of calls, the start and the end
    of the plan given. A call lies between t_clean and t_max, whatever its number l says.

    Args:
        plan: where to begin: any deterministic plan for the schedule.
        schedule: alpha_t, sigma_t.
        times: whether the noise levels are free too.
        first_call: whether the first call's scale and noise level are free, where the plan asks at
            its start; otherwise it stays there.

    Raises:
        ValueError: a stochastic plan, or one for another schedule, or that asks where sigma or
            alpha is 0 away from its start.
    """
    plan.check_schedule(schedule)
    if plan.stochastic:
        raise ValueError(
            f"{plan.name} draws noise: a table of states and outputs alone is deterministic"
        )
    layout = _Layout(plan, schedule, times, first_call)
    name = "table" if times else "coefficients"
    return Family(name, layout.build, layout.start, layout.names)


class _Layout:
    """Which number stands where: a and l of each call, b below the diagonal."""

    def __init__(self, plan: Plan, schedule: Schedule, times: bool, first_call: bool) -> None:
        self.schedule = schedule
        self.name = plan.name if plan.name.startswith("table(") else f"table({plan.name})"
        self.asked = list(plan.asked_at)
        self.t_start, self.t_end = (number_of(plan.rows[i].t) for i in (0, -1))
        self.stays = plan.rows[0].asks and not first_call
        self.numbers: dict[str, float] = {}
        lowest, highest = min(schedule.t_clean, *self.asked), max(schedule.t_max, *self.asked)
        self.range = [-float(schedule.half_log_snr(t)) for t in (lowest, highest)]
        start = _radius(schedule, self.t_start)
        for i, line in enumerate(plan.matrix().tolist()):
            t = self.asked[i] if i < len(self.asked) else self.t_end
            first = i == 0 and self.stays
            if not first:
                self.numbers[f"a{i}"] = line[0] * float(start / _radius(schedule, t))
            for j in range(i):
                self.numbers[f"b{i},{j}"] = line[1 + j] / float(_radius(schedule, t))
            if times and not first and i < len(self.asked):
                self.numbers[f"l{i}"] = self._level(t)
        self.start = torch.tensor(list(self.numbers.values()), dtype=torch.float64)
        self.names = tuple(self.numbers)

    def _level(self, t: float) -> float:
        level = -float(self.schedule.half_log_snr(t))
        if not math.isfinite(level):
            raise ValueError(
                f"{self.name} asks at t = {t:g}, where sigma/alpha is {math.exp(level):g}: move "
                "that time inside, or spare a first call there (analytic_first_step)"
            )
        return level

    def build(self, numbers: Tensor) -> Plan:
        """The plan of some numbers."""
        at = dict(zip(self.names, numbers.unbind(), strict=True))
        start = _radius(self.schedule, self.t_start)
        rows = [Row("denoise" if self.stays else "given", self.t_start)]
        for i in range(int(self.stays), len(self.asked) + 1):
            t: Scalar = self.asked[i] if i < len(self.asked) else self.t_end
            if f"l{i}" in at:
                t = self.schedule.time_of(-at[f"l{i}"].clamp(*self.range))
            radius = _radius(self.schedule, t)
            d = {j: at[f"b{i},{j}"] * radius for j in range(i)}
            kind = "denoise" if i < len(self.asked) else "end"
            rows.append(Row(kind, t, {0: at[f"a{i}"] * radius / start}, d))
        return made_for(Plan(tuple(rows)), self.schedule, self.name)


def _radius(schedule: Schedule, t: Scalar) -> Scalar:
    alpha_t, sigma_t = schedule(t)
    return sqrt(alpha_t * alpha_t + sigma_t * sigma_t)
