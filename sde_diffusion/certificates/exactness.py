r"""Polynomial exactness of a plan's rows, measured.

A row of order q is exact when the model's output is a polynomial of degree below q in its own
variable. Feed such an output, whatever the state,

    eps(t) = p(u):  x/alpha = c + int eps d rho          D(t) = p(u):  x/sigma = c + int D e^l dl
    v(t) = p(u):    x/(alpha + sigma) = c + int v d phi

(for stochasticity tau the mean obeys the same with e^{(1 + tau^2) l}), put the exact states and
outputs into a row, and see whether the exact state comes out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..form import number_of
from ..plan import Plan
from ..schedule import Schedule

VARIABLES = ("lambda", "rho", "phi", "angle", "t")
_TOLERANCE = 1e-9
_HIGHEST = 8
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(40)


@dataclass(frozen=True)
class Exactness:
    """Rows are exact where this output is a polynomial of degree below q in this variable."""

    prediction: str
    variable: str
    q: int

    def __str__(self) -> str:
        return f"{self.q} ({self.prediction}, {self.variable})"


def exactness(plan: Plan, schedule: Schedule, warm_up: int = 0) -> Exactness | None:
    """The largest q over predictions and variables; None if no row is exact even for q = 1.

    Args:
        plan: a table whose times all have alpha > 0 and sigma > 0.
        schedule: the schedule it was made for.
        warm_up: how many grid points after the start are left out.
    """
    best: Exactness | None = None
    for tau in (0.0, *((1.0, *_taus(plan, schedule)) if plan.stochastic else ())):
        for prediction in ("data", "noise", *(() if tau else ("velocity", "angular"))):
            for variable in VARIABLES:
                q = degree(plan, schedule, prediction, variable, tau, warm_up)
                if q > (best.q if best else 0):
                    best = Exactness(prediction, variable, q)
    return best


def degree(
    plan: Plan, schedule: Schedule, prediction: str, variable: str, tau: float, warm_up: int = 0
) -> int:
    """The number of monomials 1, u, u^2, ... for which every row of a grid point is exact."""
    times = [number_of(row.t) for row in plan.rows]
    grid = [i for i, row in enumerate(plan.rows) if row.kind in ("denoise", "end") and i]
    rows = [plan.rows[i] for i in grid[min(warm_up, len(grid) - 1) :]]
    asked = [i for i, row in enumerate(plan.rows) if row.asks]
    for m in range(_HIGHEST):
        states, outputs = _exact(schedule, times, prediction, variable, tau, m)
        for row in rows:
            parts = [number_of(c) * states[k] for k, c in row.x.items()]
            parts += [number_of(c) * outputs[asked[j]] for j, c in row.d.items()]
            exact = states[plan.rows.index(row)]
            if abs(sum(parts) - exact) > _TOLERANCE * (sum(map(abs, parts)) + abs(exact)):
                return m
    return _HIGHEST


def _exact(
    schedule: Schedule, times: list[float], prediction: str, variable: str, tau: float, m: int
) -> tuple[list[float], list[float]]:
    """(states, outputs d) at the times, for the m-th power of the variable as output."""
    lambdas = torch.tensor([float(schedule.half_log_snr(t)) for t in times], dtype=torch.float64)
    scale = _position(schedule, lambdas, variable)
    low, high = float(scale.min()), float(scale.max())

    def power(at: torch.Tensor) -> torch.Tensor:  # the m-th power, of a variable in [-1, 1]
        return (2 * (_position(schedule, at, variable) - low) / (high - low) - 1) ** m

    k = 1 + tau**2
    nodes = torch.from_numpy((_POINTS + 1) / 2)
    along = lambdas[:1] + (lambdas[:, None] - lambdas[:1]) * nodes  # from the start to each time
    density = {
        "data": k * torch.exp(k * along),
        "noise": -k * torch.exp(-along),
        "velocity": -1 / (2 + torch.exp(along) + torch.exp(-along)),
        "angular": -1 / (torch.exp(along) + torch.exp(-along)),
    }[prediction]
    measure = torch.from_numpy(_WEIGHTS / 2) * (lambdas[:, None] - lambdas[:1])
    integral = 0.7 + (measure * density * power(along)).sum(1)
    states, outputs = [], []
    for t, at, total, value in zip(
        times, lambdas.tolist(), integral.tolist(), power(lambdas).tolist(), strict=True
    ):
        alpha_t, sigma_t = (float(v) for v in schedule(t))
        if prediction == "data":
            x, d = sigma_t * math.exp(-(tau**2) * at) * total, value
        elif prediction == "noise":
            x = alpha_t * total
            d = (x - sigma_t * value) / alpha_t
        elif prediction == "angular":
            r = math.hypot(alpha_t, sigma_t)
            x = r * total
            d = (alpha_t * x - sigma_t * r * value) / r**2
        else:
            x = (alpha_t + sigma_t) * total
            d = (x - sigma_t * value) / (alpha_t + sigma_t)
        states.append(x)
        outputs.append(d)
    return states, outputs


def _position(schedule: Schedule, at: torch.Tensor, variable: str) -> torch.Tensor:
    if variable == "lambda":
        return at
    if variable == "rho":
        return torch.exp(-at)
    if variable == "phi":
        return torch.sigmoid(-at)
    if variable == "angle":
        return torch.arctan(torch.exp(-at))
    time = schedule.time_of(at)
    return time if isinstance(time, torch.Tensor) else torch.tensor(time)


def _taus(plan: Plan, schedule: Schedule) -> set[float]:
    """Stochasticities that the rows' noise suggests, where x_s = sigma_s e^{..} + ... z."""
    found = set()
    for before, row in zip(plan.rows, plan.rows[1:], strict=False):
        if row.kind in ("denoise", "end") and len(row.x) == 1 and row.z:
            variance = sum(number_of(c) ** 2 for c in row.z.values())
            t, s = number_of(before.t), number_of(row.t)
            h = float(schedule.half_log_snr(s) - schedule.half_log_snr(t))
            share = variance / float(schedule.sigma(s)) ** 2
            if (
                h > 1e-9 and 0 < share < 1
            ):  # of a trial point at s, but for rounding, or above t: none
                found.add(round(math.sqrt(-math.log1p(-share) / (2 * h)), 9))
    return found if len(found) <= 2 else set()
