"""Cells to compute: which there are, in which order, and how one is computed.

Two kinds. "precision": the paths of fixed starting points, float64, to t_clean, against their
exact ends. "quality": samples of the network, float32, to t_min (sigma = 0), against held-out
digits. Every solver meets the same starting points, and in one repeat the same starting noise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import Denoiser, Plan, run
from sde_diffusion.adaptive import ADAPTIVE
from sde_diffusion.noise import IndependentNoise
from sde_diffusion.store import digest

from .cases import Case
from .entries import Entry, adaptive_entries, plan_entries, twins
from .metrics import Judge
from .settings import Settings

QUALITY_TOLERANCES = (1e-2, 1e-3)
MANY = 200  # NFE above which cells come late, so that a time budget drops them first


@dataclass(frozen=True)
class Job:
    """One cell.

    Attributes:
        kind: "precision" or "quality".
        case: name of the model.
        entry: the solver.
        nfe: evaluations allowed; 0 for adaptive solvers.
        tolerance: rtol = atol of adaptive solvers; 0 for the others.
        repeat: which set of samples; 0 for precision.
    """

    kind: str
    case: str
    entry: Entry
    nfe: int = 0
    tolerance: float = 0.0
    repeat: int = 0

    def key(self, settings: Settings, context: str) -> str:
        """Digest of all that settles its numbers; `context` is that of code and network."""
        sizes = dict(settings.points)[self.case] if self.kind == "precision" else settings.samples
        return digest([asdict(self), settings.seed, self.grid(settings), sizes, context])

    def grid(self, settings: Settings) -> str:
        """Name of its time grid."""
        return settings.grid if self.kind == "precision" else settings.sampling_grid

    @property
    def title(self) -> str:
        """For the progress bar."""
        amount = f"NFE {self.nfe}" if self.nfe else f"tolerance {self.tolerance:g}"
        return f"{self.kind}, {self.case}: {self.entry.label}, {amount}"

    @property
    def priority(self) -> tuple[int, int, int]:
        """Smaller comes first: what answers most for its time."""
        if self.repeat > 1:  # two repeats already give a spread
            return 3, self.repeat, self.nfe
        late = 1 if self.kind == "quality" else 2
        return late if self.nfe > MANY else 0, 0, self.nfe


@dataclass(frozen=True)
class Workload:
    """All jobs in order, and the entries that are the same map as an earlier one."""

    jobs: tuple[Job, ...]
    entries: tuple[Entry, ...]
    twins: dict[Entry, Entry]

    @property
    def compared(self) -> list[Entry]:
        """DDIM with eta = 0 and all of DDPM."""
        wanted = lambda e: e.solver == "ddpm" or (e.solver == "ddim" and ("eta", 0.0) in e.options)
        return [entry for entry in self.entries if wanted(entry)]


def workload(settings: Settings, cases: dict[str, Case]) -> Workload:
    """What the settings ask for."""
    plans, adaptives = plan_entries(settings.solvers), adaptive_entries(settings.solvers)
    same = twins(plans, next(iter(cases.values())).denoiser.schedule, settings.grid)
    distinct = [entry for entry in plans if entry not in same]
    found = [*_precision(settings, cases, distinct, adaptives)]
    work = Workload((), (*plans, *adaptives), same)
    repeated = {same.get(entry, entry) for entry in work.compared}
    found += _quality(settings, distinct, repeated, adaptives)
    return replace(work, jobs=tuple(sorted(found, key=lambda job: job.priority)))


def _precision(
    settings: Settings, cases: dict[str, Case], plans: list[Entry], adaptives: list[Entry]
) -> Iterator[Job]:
    for case in cases:
        for entry in plans:
            if not entry.stochastic:
                yield from (Job("precision", case, entry, nfe) for nfe in settings.nfe)
        for entry in adaptives:
            yield from (Job("precision", case, entry, tolerance=tol) for tol in settings.tolerances)


def _quality(
    settings: Settings, plans: list[Entry], repeated: set[Entry], adaptives: list[Entry]
) -> Iterator[Job]:
    for entry in plans:
        up_to = max(settings.nfe) if entry in repeated else settings.others_up_to
        for nfe in (n for n in settings.nfe if n <= up_to):
            for r in range(settings.repeats):
                yield Job("quality", "network", entry, nfe, repeat=r)
    for entry in adaptives:
        for tol in (t for t in QUALITY_TOLERANCES if t >= min(settings.tolerances)):
            for r in range(settings.repeats):
                yield Job("quality", "network", entry, tolerance=tol, repeat=r)


class Workbench:
    """Computes cells.

    Args:
        settings: sizes and seeds.
        cases: models by name.
        sampler: the network as a float32 denoiser.
        judge: distances to the held-out set.
        threads: of torch, for large sets; the few starting points of "precision" take one.
    """

    def __init__(
        self,
        settings: Settings,
        cases: dict[str, Case],
        sampler: Denoiser,
        judge: Judge,
        threads: int = 1,
    ) -> None:
        self.settings, self.cases, self.sampler, self.judge = settings, cases, sampler, judge
        self.threads = threads

    def __call__(self, job: Job) -> dict[str, Any]:
        """The numbers of a cell: nfe, seconds, and errors or distances; or why there are none."""
        try:
            return self._precision(job) if job.kind == "precision" else self._quality(job)
        except (FloatingPointError, ValueError) as error:
            # A solver that leaves the finite numbers, or is singular on this grid, is a result.
            return {"nfe": job.nfe, "seconds": 0.0, "error": str(error)}

    def _precision(self, job: Job) -> dict[str, Any]:
        torch.set_num_threads(1)
        case = self.cases[job.case]
        x, nfe, seconds = self._solve(
            job, case.denoiser, case.start, case.denoiser.schedule.t_clean
        )
        return {"nfe": nfe, "seconds": seconds, **case.errors(x)}

    def _quality(self, job: Job) -> dict[str, Any]:
        x, nfe, seconds = self.draw(job, self.settings.samples)
        return {"nfe": nfe, "seconds": seconds, **self.judge(x)}

    def draw(self, job: Job, count: int) -> tuple[Tensor, int, float]:
        """(samples, nfe, seconds) of the network, from the noise of the job's repeat."""
        torch.set_num_threads(self.threads if count > 100 else 1)
        schedule = self.sampler.schedule
        shape = (count, *self.judge.held_out.shape[1:])
        noise = IndependentNoise(self._seed(job))
        start = noise.start(torch.empty(shape)) * float(schedule.sigma(schedule.t_max))
        return self._solve(job, self.sampler, start, schedule.t_min)

    def _seed(self, job: Job) -> int:
        return 1000 * (self.settings.seed + 1) + job.repeat

    def _solve(
        self, job: Job, denoiser: Denoiser, start: Tensor, t_end: float
    ) -> tuple[Tensor, int, float]:
        """(end, nfe, seconds of the solution itself)."""
        schedule = denoiser.schedule
        if job.entry.adaptive:
            method = ADAPTIVE[job.entry.solver]
            tolerance = {"rtol": job.tolerance, "atol": job.tolerance}
            before = time.perf_counter()
            solution = method(
                denoiser, start, [schedule.t_max, t_end], **dict(job.entry.options), **tolerance
            )
            return solution.x, solution.nfe, time.perf_counter() - before
        plan = self.plan(job, t_end)
        before = time.perf_counter()
        x = run(plan, denoiser, start, noise=self._seed(job))
        return x, plan.nfe, time.perf_counter() - before

    def plan(self, job: Job, t_end: float) -> Plan:
        """The job's table.

        Raises:
            ValueError: if one step of the solver already asks more often than allowed.
        """
        schedule = self.sampler.schedule
        plan = job.entry.on_grid(schedule, job.nfe, job.grid(self.settings), t_end)
        if plan is None:
            raise ValueError(f"a step takes {job.entry.evaluations} evaluations, allowed {job.nfe}")
        return plan
