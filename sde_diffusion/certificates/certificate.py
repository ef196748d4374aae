"""Certificates: what a solver does, measured, beside what it claims.

`certify` takes any solver, also one of your own that is ten lines old, and measures in float64 and
in seconds: its order of convergence from an exact start and from its own first steps, on even and
on uneven grids of several schedules; the polynomial exactness of its rows; its invariants; network
calls, history and noise per step; and how far float32 is from float64.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ..noise import Course, Draw, IndependentNoise
from ..plan import Plan
from ..plan_names import plan_named
from ..presets import PRESETS
from ..run import run
from ..schedule import Schedule
from ..schedules import EDM, FlowMatching, VPLinear
from ..solvers.solver import CLAIMS, PAPERS, SOLVERS, Claim, made_for
from .convergence import (
    LAMBDA_START,
    MIXTURE,
    Convergence,
    Grid,
    Make,
    converge,
    endpoint_errors,
    even_grid,
    graded_grid,
    law_error,
    relative_table,
    rough_grid,
)
from .exactness import Exactness, degree, exactness
from .invariants import invariants
from .paths import PathOrders, path_orders

SCHEDULES: dict[str, Schedule] = {"VP": VPLinear(), "EDM": EDM(), "flow": FlowMatching()}
_SLACK = 0.15  # how far a measured order may lie below its claim
_PATH_SLACK = 0.3  # the same for orders measured by Monte Carlo, beside their standard error


@dataclass(frozen=True)
class Certificate:
    """What was measured of one solver under one set of options.

    Attributes:
        solver, options, paper: what was measured, and where it is from.
        claim: what it says of itself; None if nothing.
        stochastic: whether it draws noise.
        calls_per_step, noises_per_step: network calls and draws of one step.
        history: denoiser outputs kept at once.
        order: from an exact start, the smallest over the schedules (weak order on Gaussian data, by
            the exact law, if stochastic).
        usual_order: from its own first steps, likewise.
        uneven_order: from an exact start on steps that alternate 2 : 1, likewise.
        exact: the largest polynomial exactness found; None if rows are not exact for constants.
        point_error: for data in one point, the largest error of mean and standard deviation of a
            grid state, relative to the exact ones.
        paths: strong order on one Brownian path and weak order on a mixture; None if deterministic.
        float32_floor: RMS difference of a float32 from a float64 run of 40 steps, relative.
        smallest_error: the smallest error in float64 that the order was measured from.
        convergence: (schedule, kind of grid) -> what was measured there; "VP=EDM" is one
            measurement of a solver whose table is the same on both, up to the scale of x.
        seconds: how long it took.
    """

    solver: str
    options: Mapping[str, Any]
    paper: str
    claim: Claim | None
    stochastic: bool
    calls_per_step: float
    noises_per_step: float
    history: int
    order: float
    usual_order: float
    uneven_order: float
    exact: Exactness | None
    claimed_degree: int | None
    point_error: float
    paths: PathOrders | None
    float32_floor: float
    smallest_error: float
    convergence: Mapping[tuple[str, str], Convergence] = field(repr=False, default_factory=dict)
    seconds: float = 0.0

    @property
    def failures(self) -> list[str]:
        """Where a measurement falls below the claim, a sentence each; empty if nowhere."""
        claim = self.claim
        if claim is None:
            return []
        found = []
        for what, value, claimed in (
            ("order", self.order, claim.order),
            ("order from its own first steps", self.usual_order, claim.usual_order),
        ):
            if not value > claimed - _SLACK:
                found.append(f"{what} is {value:.2f}, claimed {claimed}")
        if claim.exact is not None and (self.claimed_degree or 0) < claim.exact[2]:
            prediction, variable, q = claim.exact
            found.append(
                f"rows are exact for {prediction} polynomial in {variable} of degree below "
                f"{self.claimed_degree}, claimed {q}"
            )
        if claim.point_exact and not self.point_exact:
            found.append(f"point data miss their marginals by {self.point_error:.1e}")
        if self.paths is not None:
            weak, strong = self.paths.weak, self.paths.strong
            if weak + 3 * self.paths.weak_error < min(claim.order, 2) - _PATH_SLACK:
                found.append(f"weak order on a mixture is {weak:.2f}, claimed {claim.order}")
            if claim.strong is not None and not strong > claim.strong - _PATH_SLACK:
                found.append(f"strong order is {strong:.2f}, claimed {claim.strong:g}")
        return found

    @property
    def point_exact(self) -> bool:
        """Whether point data keep their marginals, to rounding."""
        return self.point_error < 1e-9

    @property
    def name(self) -> str:
        """Solver and options, as one writes them."""
        return f"{self.solver}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"

    def __str__(self) -> str:
        claim = self.claim
        lines = [self.name + (f" - {self.paper}" if self.paper else "")]

        def say(what: str, measured: str, claimed: object = "") -> None:
            lines.append(f"  {what:<38}{measured:<22}{claimed}".rstrip())

        say("", "measured", "claimed" if claim else "")
        kind = "weak order (exact law)" if self.stochastic else "order"
        say(f"{kind}, exact start", f"{self.order:.2f}", claim.order if claim else "")
        say(f"{kind}, own start", f"{self.usual_order:.2f}", claim.usual_order if claim else "")
        say(f"{kind}, uneven steps", f"{self.uneven_order:.2f}")
        if self.paths is not None:
            weak = f"{self.paths.weak:.2f} +- {self.paths.weak_error:.2f}"
            say("weak order on a mixture", weak)
            strong = "" if claim is None or claim.strong is None else f"{claim.strong:g}"
            say("strong order on one path", f"{self.paths.strong:.2f}", strong)
        exact = (
            "" if claim is None or claim.exact is None else "{2} ({0}, {1})".format(*claim.exact)
        )
        say("polynomial exactness", str(self.exact) if self.exact else "none", exact)
        point = "exact" if self.point_exact else f"off by {self.point_error:.1e}"
        say("marginals of point data", point, "exact" if claim and claim.point_exact else "")
        say("network calls a step", f"{self.calls_per_step:g}")
        say("outputs kept (history)", f"{self.history}")
        say("draws of noise a step", f"{self.noises_per_step:g}")
        say("float32 from float64, 40 steps", f"{self.float32_floor:.1e}")
        say("smallest error in float64", f"{self.smallest_error:.1e}")
        for (schedule, grid), measured in self.convergence.items():
            errors = ", ".join(f"{e:.1e}" for e in measured.errors)
            steps = f"{measured.steps[0]}..{measured.steps[-1]}"
            lines.append(f"    {schedule:<12}{grid:<14}{steps:>8} steps: {errors}")
        lines += [f"  FAILS: {failure}" for failure in self.failures]
        lines.append(f"  measured in {self.seconds:.1f} s")
        return "\n".join(lines)


def certify(
    solver: str | Callable[..., Plan], claim: Claim | None = None, **options: Any
) -> Certificate:
    """Measure one solver under one set of options.

    Args:
        solver: the name of a registered solver or of a preset, or any function (schedule, times,
            **options) -> Plan; `times` is a list of floats, noisy to clean.
        claim: what to hold the measurement to; default: the solver's own claim for these options,
            if it is registered and makes one. A claim brings its options along.
        options: options of the solver.

    Raises:
        ValueError: an unknown name; whatever the solver itself refuses.
        TypeError: if the solver is no function, or returns something else than a Plan; if the
            claim is no Claim.
    """
    began = time.perf_counter()
    method = named(solver) if isinstance(solver, str) else solver
    if not callable(method):
        raise TypeError(f"solver = {solver!r}: give a name or a function to a Plan")
    if not (claim is None or isinstance(claim, Claim)):
        raise TypeError(f"claim = {claim!r}: give a Claim, as sde_diffusion.Claim(3)")
    options = {**(claim.options if claim else {}), **options}
    name = getattr(method, "__name__", getattr(method, "name", type(method).__name__))
    make = _once(partial(_plan, method, name, options))
    vp = SCHEDULES["VP"]
    first, second = make(vp, even_grid(vp, 20)), make(vp, even_grid(vp, 40))
    stochastic = second.stochastic
    claim = claim or _claim(name, method, options)
    order = claim.order if claim else second.history + 1
    measured = {
        ("=".join(labels), kind): convergence
        for labels in _alike(make)
        for kind, convergence in _orders(make, SCHEDULES[labels[0]], stochastic, order).items()
    }
    plan = make(vp, rough_grid(vp, 12))
    exact_claim = claim.exact if claim else None
    tau = float(options.get("tau", 1.0)) if stochastic else 0.0
    return Certificate(
        solver=name,
        options=options,
        paper=PAPERS.get(name, "") if method is SOLVERS.get(name) else "",
        claim=claim,
        stochastic=stochastic,
        calls_per_step=(second.nfe - first.nfe) / 20,
        noises_per_step=(len(second.noises) - len(first.noises)) / 20,
        history=second.history,
        order=_least(measured, "exact start"),
        usual_order=_least(measured, "own start"),
        uneven_order=_least(measured, "uneven"),
        exact=exactness(plan, vp, plan.history),
        claimed_degree=degree(plan, vp, *exact_claim[:2], tau, plan.history)
        if exact_claim
        else None,
        point_error=max(point_error(make(s, rough_grid(s, 12)), s) for s in SCHEDULES.values()),
        paths=path_orders(make, vp) if stochastic else None,
        float32_floor=float32_floor(second, vp),
        smallest_error=min(c.errors[-1] for c in measured.values()),
        convergence=measured,
        seconds=time.perf_counter() - began,
    )


def named(name: str) -> Callable[..., Plan]:
    """The solver or preset of this name.

    Raises:
        ValueError: an unknown name (with the nearest right one), or a sampler that is no plan.
    """
    return plan_named(name, {**SOLVERS, **PRESETS})


def certify_all(
    select: Callable[[str, Claim], bool] = lambda name, claim: True,
) -> list[Certificate]:
    """The certificate of every claim of every registered solver, or of those selected."""
    return [
        certify(name, **claim.options)
        for name, claims in CLAIMS.items()
        for claim in claims
        if select(name, claim)
    ]


def point_error(plan: Plan, schedule: Schedule) -> float:
    """For data in one point: the largest relative error of a state's mean and deviation.

    Exact: sum of c_d + c_x alpha_T = alpha_t, and c_x^2 sigma_T^2 + sum of c_z^2 = sigma_t^2.
    """
    found = invariants(plan, schedule)
    states = zip(found.mean, found.deviation, found.scales, strict=True)
    return max(max(abs(m / alpha_t), abs(v / sigma_t)) for m, v, (alpha_t, sigma_t) in states)


def float32_floor(plan: Plan, schedule: Schedule) -> float:
    """RMS difference of a float32 run from a float64 run, relative to the RMS state."""
    denoiser = MIXTURE.denoiser(schedule)
    t = float(schedule.time_of(LAMBDA_START))
    x = MIXTURE.sample_marginal(64, *schedule(t), torch.Generator().manual_seed(0))
    x = x.float().double()
    wide, narrow = (run(plan, denoiser, v, noise=_Float32Noise(0)) for v in (x, x.float()))
    return float((narrow.double() - wide).square().mean().sqrt() / wide.square().mean().sqrt())


class _Float32Noise(IndependentNoise):
    """Draws that are float32 numbers, so that a float64 run sees the same."""

    def stream(self, like: Tensor, course: Course) -> Draw:
        single = torch.empty(like.shape, dtype=torch.float32)
        draw = super().stream(single, course)
        return lambda out, t, s: out.copy_(draw(single, t, s))


def _plan(
    method: Callable[..., Plan],
    name: str,
    options: dict[str, Any],
    schedule: Schedule,
    grid: Tensor,
) -> Plan:
    plan = method(schedule, grid.tolist(), **options)
    if not isinstance(plan, Plan):
        raise TypeError(
            f"{name} returned {type(plan).__name__}, not a Plan: end with `return "
            "trace.end(x, times[-1])`"
        )
    return plan if plan.scales else made_for(plan, schedule, plan.name)


def _once(make: Make) -> Make:
    """The same, but what was made is kept: plans are measured from several starts."""
    made: dict[tuple[Schedule, tuple[float, ...]], Plan] = {}

    def plan_of(schedule: Schedule, grid: Tensor) -> Plan:
        key = schedule, tuple(grid.tolist())
        if key not in made:
            made[key] = make(schedule, grid)
        return made[key]

    return plan_of


def _claim(name: str, method: Callable[..., Plan], options: Mapping[str, Any]) -> Claim | None:
    """The claim made for the chosen options: those given, and the defaults of the others."""
    if SOLVERS.get(name) is not method:
        return None
    defaults = {p.name: p.default for p in inspect.signature(method).parameters.values()}
    chosen = {**defaults, **options}
    return next((c for c in CLAIMS[name] if {**defaults, **c.options} == chosen), None)


def _alike(make: Make) -> list[list[str]]:
    """The schedules, those together on which a solver makes one table: measured once for all."""
    groups: list[tuple[Tensor, list[str]]] = []
    for label, schedule in SCHEDULES.items():
        table = relative_table(make(schedule, rough_grid(schedule, 20)), schedule)
        for other, labels in groups:
            if table.shape == other.shape and torch.allclose(table, other, 1e-9, 1e-9):
                labels.append(label)
                break
        else:
            groups.append((table, [label]))
    return [labels for _, labels in groups]


def _orders(make: Make, schedule: Schedule, stochastic: bool, order: int) -> dict[str, Convergence]:
    multistep = remembers(make(schedule, even_grid(schedule, 20)))
    grids: dict[str, Grid] = {
        "exact start": even_grid,
        "uneven": rough_grid,
        "own start": even_grid,
    }
    if stochastic:
        if multistep:
            grids["exact start"] = partial(graded_grid, order=order)
        error = lambda kind, n: law_error(make, schedule, grids[kind](schedule, n))
    else:
        both = cache(lambda grid_of, n: endpoint_errors(make, schedule, grid_of, n))
        error = lambda kind, n: both(grids[kind], n)[kind == "own start"]
    found = {kind: converge(partial(error, kind)) for kind in list(grids)[: 2 + multistep]}
    return {"own start": found["exact start"], **found}


def remembers(plan: Plan) -> bool:
    """Whether a step uses anything that was made before it: a multistep method."""
    outputs = first_row = first_output = 0
    for i, row in enumerate(plan.rows):
        if any(k < first_row for k in row.x) or any(j < first_output for j in row.d):
            return True
        if row.on_grid:
            first_row, first_output = i, outputs
        outputs += row.asks
    return False


def _least(measured: Mapping[tuple[str, str], Convergence], kind: str) -> float:
    return min(c.order for (_, grid), c in measured.items() if grid == kind)
