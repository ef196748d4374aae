"""One cell: a plan on the digits network, by one method with one tolerance, or one call at a time.

Starting points and noise have a seed for each sample, so that all methods solve the same systems;
an error is that against the sequential run, |x - x*| / |x*| a sample.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sde_diffusion import SOLVERS, NetworkDenoiser, PerSampleNoise, Plan, run, run_parallel
from sde_diffusion.schedule import Schedule
from sde_diffusion.store import Cell
from sde_diffusion.times import default, uniform

from ..model import SCHEDULE
from . import peers
from .errors import differences

SEQUENTIAL, PEER = "one at a time", "diffusers ParaDiGMS"
TOLERANCES = (1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Case:
    """A plan to be sampled in parallel."""

    solver: str
    steps: int
    options: dict[str, Any] = field(default_factory=dict)
    grid: Callable[[Schedule, int], Tensor] = uniform

    @property
    def plan(self) -> Plan:
        return SOLVERS[self.solver](SCHEDULE, self.grid(SCHEDULE, self.steps), **self.options)


@dataclass(frozen=True)
class Method:
    """A method of `run_parallel`; a window of a part of the plan's calls, if one is given."""

    method: str
    part: float | None = None

    def options(self, plan: Plan) -> dict[str, Any]:
        window = {} if self.part is None else {"window": math.ceil(self.part * plan.nfe)}
        return {"method": self.method, **window}


CASES = {
    "DDIM, 50 steps": Case("ddim", 50),
    "DDIM, 100 steps": Case("ddim", 100),
    "DDIM, 1000 steps": Case("ddim", 1000),
    "DDPM, 1000 steps": Case("ddim", 1000, {"eta": 1.0}),
    "2M, 50 steps": Case("dpm_solver_pp_2m", 50, grid=default),
    "angular, 50 steps": Case("angular", 50, grid=default),
}
METHODS = {
    "Picard": Method("picard"),
    "Picard, window nfe/5": Method("picard", 0.2),
    "Secant": Method("secant"),
    "Anderson": Method("anderson"),
    "Parareal": Method("parareal"),
}


class Job(NamedTuple):
    """What one cell holds: a plan, a method (or SEQUENTIAL, or PEER), its tolerance."""

    case: str
    method: str
    tolerance: float | None = None

    @classmethod
    def of(cls, case: str) -> list[Job]:
        """The sequential run of a case, and every method at every tolerance."""
        return [cls(case, SEQUENTIAL), *(cls(case, m, t) for m in METHODS for t in TOLERANCES)]


class Bench:
    """The network and the starting points; every cell is measured on them.

    Args:
        network: (x, t) -> eps, as `benchmarks.model` trains it.
        cases: name -> plan.
        samples: how many.
        seed: of the first sample; the others' follow.
    """

    def __init__(
        self, network: nn.Module, cases: Mapping[str, Case], samples: int, seed: int = 0
    ) -> None:
        self.network, self.cases, self.spent = network, cases, 0.0

        def timed(x: Tensor, label: Tensor) -> Tensor:
            began = time.process_time()
            out: Tensor = network(x, label)
            self.spent += time.process_time() - began
            return out

        self.denoiser = NetworkDenoiser(timed, SCHEDULE)
        self.noise = PerSampleNoise(range(seed, seed + samples))
        self.start = self.noise.start(torch.empty(samples, 1, 8, 8)) * float(SCHEDULE.sigma(1.0))
        self._exact: dict[str, tuple[Tensor, Cell]] = {}

    def fingerprint(self) -> list[float]:
        """Tells networks and starting points apart."""
        answers = self.denoiser(self.start, 0.5)
        return [float(self.start.double().sum()), float(answers.double().sum()), len(self.start)]

    def solve(self, job: Job) -> Cell:
        """The numbers of a job."""
        if job.method == PEER:
            return peers.paradigms(job.case, job.tolerance or 0.0, self.network, self.start)
        exact, cell = self._sequential(job.case)
        tolerance = job.tolerance
        if tolerance is None:
            return cell
        plan = self.cases[job.case].plan
        options = METHODS[job.method].options(plan)
        found, times = self._timed(
            lambda: run_parallel(
                plan,
                self.denoiser,
                self.start,
                noise=self.noise,
                tolerance=tolerance,
                **options,
            )
        )
        return {
            "rounds": found.rounds,
            "mean_rounds": float(found.sample_rounds.double().mean()),
            "calls": found.calls,
            "evaluations": found.evaluations / len(self.start),
            **times,
            **differences(found.x, exact),
        }

    def _sequential(self, case: str) -> tuple[Tensor, Cell]:
        """The end of a run, one call after another, and what it took."""
        if case not in self._exact:
            plan = self.cases[case].plan
            end, times = self._timed(lambda: run(plan, self.denoiser, self.start, noise=self.noise))
            calls = {"rounds": plan.nfe, "calls": plan.nfe, "evaluations": float(plan.nfe)}
            self._exact[case] = end, {**calls, **times}
        return self._exact[case]

    def _timed(self, work: Callable[[], Any]) -> tuple[Any, Cell]:
        """Seconds of processor time, one thread, and those beyond the network."""
        self.spent, began = 0.0, time.process_time()
        result = work()
        seconds = time.process_time() - began
        return result, {"seconds": seconds, "beyond_network": seconds - self.spent}


def call_times(network: nn.Module, batches: tuple[int, ...], repeats: int = 5) -> dict[str, float]:
    """Seconds of processor time that one network call takes, by its batch: the fastest."""
    found = {}
    for batch in batches:
        x, t = torch.zeros(batch, 1, 8, 8), torch.full((batch,), 0.5)
        network(x, t)
        best = math.inf
        for _ in range(repeats):
            began = time.process_time()
            network(x, t)
            best = min(best, time.process_time() - began)
        found[str(batch)] = best
    return found


def cells_of(content: Mapping[str, Any]) -> list[Cell]:
    """All cells of `parallel.json`, ours and the peers'."""
    return [cell for part in content.values() for cell in part["cells"]]
