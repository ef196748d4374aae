r"""What every plan can be asked without a network: does data in one point keep its marginals?

For data concentrated in one point p every output is p, and a state of the plan, unrolled, is
a x_T + sum_j b_j p + sum_k c_k z_k with x_T = alpha_T p + sigma_T z. It has the law of the forward
process, N(alpha_t p, sigma_t^2), if and only if

    sum_j b_j + a alpha_T = alpha_t,      a^2 sigma_T^2 + sum_k c_k^2 = sigma_t^2.

Most solvers hold both by construction (`Claim.point_exact`); a tuned table need not, and how far
it is off says how far it has gone from being a solver at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..form import number_of
from ..plan import Plan
from ..schedule import Schedule


@dataclass(frozen=True)
class Invariants:
    """The invariants of a plan, and what a reader of its table wants to know first.

    Attributes:
        name: of the plan.
        times: of the states at which the denoiser is asked, and of the end.
        scales: (alpha_t, sigma_t) there.
        mean: sum b + a alpha_T - alpha_t of each of these states.
        deviation: sqrt(a^2 sigma_T^2 + sum c^2) - sigma_t of each.
        nfe: network calls.
        history: denoiser outputs kept at once.
        draws: of noise.
        amplification: the largest sum of |coefficient| times the size of what it multiplies, over
            the size of the state, of any row: rounding of float32 is that much larger in it. The
            size of x_t is hypot(alpha_t, sigma_t), that of an output or a draw 1.
    """

    name: str
    times: tuple[float, ...]
    scales: tuple[tuple[float, float], ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    nfe: int
    history: int
    draws: int
    amplification: float

    @property
    def worst(self) -> float:
        """The largest |mean| or |deviation| in units of hypot(alpha_t, sigma_t)."""
        states = zip(self.mean, self.deviation, self.scales, strict=True)
        return max(max(abs(m), abs(v)) / math.hypot(*scale) for m, v, scale in states)

    def __str__(self) -> str:
        draws = f"{self.draws} draws of noise" if self.draws else "deterministic"
        lines = [
            self.name,
            f"{self.nfe} network calls, history {self.history}, {draws}, "
            f"rounding times {self.amplification:.3g}",
            f"point data: off by {self.worst:.1e} at most",
            f"{'t':>10}{'mean':>12}{'deviation':>12}",
        ]
        states = zip(self.times, self.mean, self.deviation, strict=True)
        lines += [f"{t:>10.6g}{m:>12.1e}{v:>12.1e}" for t, m, v in states]
        return "\n".join(lines)


def invariants(plan: Plan, schedule: Schedule) -> Invariants:
    """Measure the invariants of a plan.

    Args:
        plan: any solver's table, or a tuned one.
        schedule: the schedule that it was made for.

    Raises:
        ValueError: if the plan was made for another schedule.
    """
    plan.check_schedule(schedule)
    matrix, n = plan.matrix().detach(), 1 + plan.nfe
    alpha_T, sigma_T = (float(v) for v in schedule(number_of(plan.rows[0].t)))
    times = (*plan.asked_at, plan.times[-1])
    scales = tuple((float(schedule.alpha(t)), float(schedule.sigma(t))) for t in times)
    mean, deviation = [], []
    for line, (alpha_t, sigma_t) in zip(matrix, scales, strict=True):
        a = float(line[0])
        mean.append(float(line[1:n].sum()) + a * alpha_T - alpha_t)
        deviation.append(math.hypot(a * sigma_T, float(line[n:].norm())) - sigma_t)
    return Invariants(
        plan.name,
        times,
        scales,
        tuple(mean),
        tuple(deviation),
        plan.nfe,
        plan.history,
        len(plan.noises),
        _amplification(plan, schedule),
    )


def _amplification(plan: Plan, schedule: Schedule) -> float:
    sizes = [math.hypot(*(float(v) for v in schedule(number_of(row.t)))) for row in plan.rows]
    return max(
        sum(abs(number_of(c)) * (sizes[k] if kind == "x" else 1.0) for (kind, k), c in row.terms())
        / size
        for row, size in zip(plan.rows[1:], sizes[1:], strict=True)
    )
