r"""Which solver for one's own model: endpoint error against network calls, for all of them.

From n fixed starting points every solver goes along every grid, and its end x is compared with
x*, the end of the probability-flow ODE solved to high accuracy:

    error of one sample = |x - x*| / |x*|,    shown as the RMS and the median over the n samples.

An RMS above a few per cent mostly counts samples that end in another mode of the data; the median
does not see them. Endpoint error says how well a solver solves the network's ODE, not how good the
samples are; stochastic solvers do not follow the ODE and are left out unless asked for.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..counts import check_count
from ..denoise import Denoiser
from ..few_steps import default_plan
from ..files import write_atomic
from ..noise import noise_from
from ..plan import Plan
from ..progress import Progress
from ..run import run
from ..sample import starting_state
from ..schedule import Schedule
from ..store import Store, digest
from ..times import check_grid
from .candidates import (
    DEFAULT,
    Finished,
    Grid,
    Solver,
    check_plans,
    default_among,
    entries_of,
    grids_to,
    plans_of,
    the_end,
    without_twins,
)
from .entries import Entry
from .figure import work_precision
from .page import html
from .reference import Reference, load_ends, relative, save_ends, solve_reference
from .report import as_csv, as_json, in_words
from .results import Cell, Results

NFES = (4, 5, 6, 8, 10, 15, 20, 50)
ROUNDING = 1e-4  # two answers to one question that are nearer than this differ by rounding alone
OWN_TIMES = "its own times"  # in place of a grid's name, for a finished plan


class Comparison(Results):
    """What `compare` found; prints as tables."""

    def write(self, folder: str | Path) -> list[Path]:
        """results.csv, results.json, work-precision.png where matplotlib is, and report.html.

        Each file is whole or not at all; report.html has everything in it.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        contents = {"results.csv": as_csv(self).encode(), "results.json": as_json(self).encode()}
        picture = None
        if importlib.util.find_spec("matplotlib"):
            picture = contents["work-precision.png"] = work_precision(self)
        contents["report.html"] = html(self, picture).encode()
        for name, content in contents.items():
            write_atomic(place / name, content)
        return [place / name for name in contents]

    def __str__(self) -> str:
        return in_words(self)


def compare(
    denoiser: Denoiser,
    shape: int | Sequence[int],
    *,
    nfe: int | Sequence[int] = NFES,
    solvers: Sequence[Solver] | None = None,
    grids: Sequence[Grid] | None = None,
    plans: Finished | Sequence[Finished] = (),
    n: int = 64,
    seed: int = 0,
    t_end: float | None = None,
    reference_tolerance: float = 1e-6,
    stochastic: bool = False,
    device: torch.device | str | None = None,
    out: str | Path | None = None,
    progress: bool = False,
) -> Comparison:
    """Run solvers x grids x network calls from fixed starting points, and measure their ends.

    States and coefficients are float64; the network computes in its own dtype (give a float64 one,
    `network.double()`, to see errors below 1e-6). With `out`, finished cells are kept there: a
    run that was stopped goes on where it was. A cell depends on its plan, the starting points, the
    reference and the denoiser's answers, which are probed at three times: a network that was
    trained on begins anew, and one that does not answer twice the same is refused.

    Args:
        denoiser: a network and how to read it (`NetworkDenoiser`), or any `Denoiser`.
        shape: of one sample, (*event), without the batch; 2 is (2,).
        nfe: allowances of network calls, one or several; each solver takes the most steps that
            stay within.
        solvers: names ("ddim": with all its claimed options), names with options
            ("adams order=3 variable=t"), or functions (schedule, times) -> Plan; "default" is what
            `sample` takes where nothing is named, `default_plan`, at its own times. If left out:
            "default" and every solver of the package in every claimed form, equal ones once.
        grids: names of `times.GRIDS` ("karras", "karras rho=5") or functions
            (schedule, steps, t_end=...) -> times.
        plans: finished ones, each a `Plan` or the path of its file; they take part beside the
            solvers, at their own number of network calls alone.
        n: number of starting points.
        seed: of the starting points x_T ~ N(0, sigma_T^2 I).
        t_end: where paths end; default the end of the plans, without any t_clean where
            sigma(t_min) = 0, else t_min. At sigma = 0 the reference is the ODE to t_clean and one
            denoising step.
        reference_tolerance: rtol = atol of the reference.
        stochastic: take stochastic solvers too, with noise of the same seed.
        device: of the states; default: the network's.
        out: a folder for results.csv, results.json, report.html, work-precision.png and the
            finished cells; made if it is not there.
        progress: tell on stderr how far the run is.

    Raises:
        TypeError: `denoiser` is none, or an argument of a wrong kind.
        ValueError: unknown solvers, options or grids (with the nearest right name), a grid without
            t_end, NFEs or sizes out of range, `out` that is a file, a plan for another schedule,
            of other ends or of another NFE than all else, a network that answers the same question
            differently when it is asked again.
        FloatingPointError: if the reference cannot be solved.
        KeyboardInterrupt: passed on, after the finished cells were saved.
    """
    if not isinstance(denoiser, Denoiser):
        raise TypeError(
            f"compare needs a Denoiser, not {type(denoiser).__name__}; say how to read the "
            "network: NetworkDenoiser(network, schedule, prediction='noise')"
        )
    schedule = denoiser.schedule
    allowed = _checked_nfe(nfe)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    check_count("n", n)
    folder = None if out is None else Path(out)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"out = {str(out)!r} is a file: give a folder, or a new name")
    notes: list[str] = []
    finished = plans_of(plans, stochastic, notes)
    t_end = the_end(finished, schedule) if t_end is None else float(t_end)
    check_grid(schedule, [schedule.t_max, t_end])
    check_plans(finished, schedule, allowed, t_end)
    chosen_grids = grids_to(schedule, grids, t_end, notes)
    defaults, solvers = default_among(solvers)
    entries = (
        entries_of(solvers, stochastic, notes) if solvers is None or solvers or not defaults else []
    )
    entries = without_twins(entries, schedule, next(iter(chosen_grids.values())), notes)
    if schedule.sigma(t_end) == 0:
        notes.append(
            f"Paths end at sigma = 0; their reference is the ODE to t_clean = {schedule.t_clean:g} "
            "and one denoising step from there."
        )
    start = starting_state(
        denoiser, (n, *shape), schedule.t_max, noise_from(seed), None, torch.float64, device
    )
    store = None if folder is None else Store(folder / "cells.json")
    probe = _probe(denoiser, start, t_end)
    context = digest([probe, repr(schedule), t_end, reference_tolerance, torch.__version__])
    with Progress(1, progress) as telling:
        telling.advance(0, "the reference")
        reference = _reference(denoiser, start, t_end, reference_tolerance, context, folder, store)
    jobs = [
        _job(entry, grid, schedule, chosen_grids[grid], calls)
        for calls in allowed
        for entry in entries
        for grid in chosen_grids
    ]
    for calls in allowed if defaults else ():
        plan = default_plan(schedule, calls, t_end=t_end, jumps=denoiser.jumps)
        jobs.append(_Job(_planned(DEFAULT, OWN_TIMES, calls, plan), plan))
    for name, plan in finished.items():
        jobs.append(_Job(_planned(name, OWN_TIMES, plan.nfe, plan), plan))
    cells = _compute(jobs, denoiser, start, reference, context, seed, store, progress)
    shown = [DEFAULT, *(e.short for e in entries), *finished]
    place, lane = (
        {name: i for i, name in enumerate(names)} for names in (shown, [*chosen_grids, OWN_TIMES])
    )
    cells.sort(key=lambda cell: (place[cell.solver], lane[cell.grid], cell.allowed))
    about = {
        "denoiser": describe(denoiser),
        "schedule": repr(schedule),
        "shape of a sample": " x ".join(map(str, shape)),
        "starting points": f"{n}, seed {seed}",
        "paths": f"from t = {schedule.t_max:g} to t = {t_end:g}",
        "solvers, grids": f"{len(entries) + len(defaults)}, {len(chosen_grids)}",
        **({"finished plans": ", ".join(finished)} if finished else {}),
        "machine": f"{start.device.type}, torch {torch.__version__}",
    }
    result = Comparison(tuple(cells), reference, about, tuple(notes))
    if folder is not None:
        result.write(folder)
    return result


@dataclass(frozen=True)
class _Job:
    cell: Cell
    plan: Plan | None

    def key(self, context: str, seed: int) -> str:
        assert self.plan is not None
        rows = [(row.kind, row.t, row.x, row.d, row.z) for row in self.plan.rows]
        return digest([context, rows, self.plan.noises, seed if self.plan.stochastic else None])


def _job(
    entry: Entry, grid: str, schedule: Schedule, times: Callable[[int], Tensor], nfe: int
) -> _Job:
    cell = partial(Cell, entry.short, grid, nfe)
    try:
        plan = entry.plan_within(schedule, nfe, times)
    except ValueError as error:  # singular on this grid, say: a result too
        return _Job(cell(error=str(error)), None)
    if plan is None:
        return _Job(cell(error=f"its fewest steps take more than {nfe} network calls"), None)
    return _Job(_planned(entry.short, grid, nfe, plan), plan)


def _planned(name: str, grid: str, allowed: int, plan: Plan) -> Cell:
    return Cell(name, grid, allowed, nfe=plan.nfe, steps=len(plan.times) - 1)


def _compute(
    jobs: list[_Job],
    denoiser: Denoiser,
    start: Tensor,
    reference: Reference,
    context: str,
    seed: int,
    store: Store | None,
    progress: bool,
) -> list[Cell]:
    """The cells of all jobs, from the store where they were computed before."""
    known: dict[str, dict[str, Any]] = {} if store is None else store.cells
    keys = {id(job): job.key(context, seed) for job in jobs if job.plan is not None}
    left = {key: job for job in jobs if (key := keys.get(id(job))) and key not in known}
    work = sum(job.cell.nfe for job in left.values())
    try:
        with Progress(work, progress) as telling:
            for key, job in left.items():
                telling.advance(0, f"{job.cell.solver}, {job.cell.grid}, NFE {job.cell.nfe}")
                numbers = _measure(job, denoiser, start, reference, seed)
                if store is None:
                    known[key] = numbers
                else:
                    store.put(key, numbers)
                telling.advance(job.cell.nfe, job.cell.solver)
    finally:
        if store is not None:
            store.save()
    return [
        Cell(**{**asdict(job.cell), **known[keys[id(job)]]}) if job.plan else job.cell
        for job in jobs
    ]


def _measure(
    job: _Job, denoiser: Denoiser, start: Tensor, reference: Reference, seed: int
) -> dict[str, Any]:
    assert job.plan is not None
    before = time.perf_counter()
    try:
        x = run(job.plan, denoiser, start, noise=seed)
    except FloatingPointError as error:
        return {"error": str(error)}
    off = relative(x, reference.x)
    return {
        "rms": float(off.square().mean().sqrt()),
        "median": float(off.median()),
        "seconds": time.perf_counter() - before,
    }


def _reference(
    denoiser: Denoiser,
    start: Tensor,
    t_end: float,
    tolerance: float,
    context: str,
    folder: Path | None,
    store: Store | None,
) -> Reference:
    """The reference, from the folder where it was solved before."""
    key = f"reference {context}"
    if folder is not None and store is not None:
        ends = load_ends(folder / f"reference-{context}.npy", start)
        numbers = store.get(key)
        if ends is not None and numbers is not None:
            return Reference(ends, **numbers)
    reference = solve_reference(denoiser, start, t_end, tolerance)
    if folder is not None and store is not None:
        folder.mkdir(parents=True, exist_ok=True)
        save_ends(folder / f"reference-{context}.npy", reference.x)
        store.put(key, reference.numbers())
        store.save()
    return reference


def _checked_nfe(nfe: int | Sequence[int]) -> list[int]:
    if isinstance(nfe, int):
        nfe = (nfe,)
    wrong = [k for k in nfe if isinstance(k, bool) or not isinstance(k, int) or k < 1]
    if wrong or not len(nfe):
        raise ValueError(f"nfe = {list(nfe)}: give whole numbers of at least 1, as (5, 10, 20)")
    return sorted(set(nfe))


def _probe(denoiser: Denoiser, start: Tensor, t_end: float) -> str:
    """A fingerprint of the starting points and of what the denoiser answers around them.

    Raises:
        ValueError: if it answers the same question differently when it is asked again.
    """
    schedule = denoiser.schedule
    middle = (schedule.t_max + t_end) / 2
    answers = [start]
    with torch.no_grad():
        for t in (schedule.t_max, middle, schedule.t_clean):
            scale = float(schedule.sigma(t)) / float(schedule.sigma(schedule.t_max))
            try:
                answer, again = (denoiser(start * scale, t) for _ in range(2))
            except RuntimeError as error:
                error.add_note(f"The network was asked with states of shape {tuple(start.shape)}.")
                raise
            apart = float((answer - again).norm() / answer.norm().clamp(min=1e-30))
            if apart > ROUNDING:
                raise ValueError(
                    f"the denoiser does not answer the same twice: at t = {t:g} two answers to one "
                    f"question differ by {apart:.2g} of their norm, so its ODE has no one end to "
                    "compare with; call network.eval() (dropout), and draw no random numbers "
                    "inside the network, or draw them from one seed at every call"
                )
            answers.append(answer)
    return digest([answer.float().cpu().numpy().tobytes().hex() for answer in answers])


def describe(denoiser: Denoiser) -> str:
    """A denoiser in a few words: its class, its network's and its dtype."""
    network = getattr(denoiser, "network", getattr(denoiser, "function", None))
    if network is None:
        return type(denoiser).__name__
    kind = getattr(network, "__name__", type(network).__name__)
    dtype = getattr(denoiser, "dtype", None)
    return f"{type(denoiser).__name__} of {kind}" + (f", {dtype}" if dtype else "")
