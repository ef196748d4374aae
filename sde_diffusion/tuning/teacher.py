r"""Teachers: where the paths of the probability-flow ODE go from many starting points.

A plan is fitted to the ends x* of the network's own ODE (and perhaps to points on its paths), so
these are made first, once, far more accurately than a few steps can be. It is the dear part: a
path costs some hundred network calls. So it is done in chunks of samples; with a folder each
finished chunk is kept there, and its paths are found again (`paths`) by all that settles one: the
starting point, the schedule, the times, the teacher and its tolerance, the network's label. The
network itself is probed: another one under the same label is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from ..adaptive import per_sample_ode, scipy
from ..counts import check_count, checked_number
from ..denoise import Denoiser
from ..names import look_up
from ..noise import Noise, noise_from
from ..parallel import Conditioned
from ..plan import Plan
from ..problem import ExactDenoiser
from ..progress import Progress
from ..run import check_state, record
from ..sample import starting_state
from ..states import flat
from ..times import check_grid
from .kept import probe
from .pairs import Pairs
from .paths import Paths

Teacher = str | Plan
Carry = Callable[[Tensor, float, float], Tensor]
"""(x at t, t, s) -> x at s."""


def teach(
    denoiser: Denoiser,
    starts: Tensor | int,
    *,
    teacher: Teacher | None = None,
    tolerance: float = 1e-6,
    shape: Sequence[int] | None = None,
    seed: int | Noise = 0,
    t_start: float | None = None,
    t_end: float | None = None,
    times: Sequence[float] | Tensor | None = None,
    chunk: int = 256,
    label: str = "",
    folder: str | Path | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Pairs:
    """The ends of the probability-flow paths from given starting points, and points on the way.

    Where paths end at sigma = 0, the ODE is solved to `schedule.t_clean` and the denoiser's output
    there, alpha d, is the end ("exact" on smooth data goes to sigma = 0 itself).

    Args:
        denoiser: E[x_0 | x_t].
        starts: x_T, (n, *event), or their number: then they are drawn as `sample` does.
        teacher: "dop853" (order 8, in float64 on the host, steps common to a chunk), "dopri5"
            (order 5 on the device, steps of each sample's own), "exact" (of the ideal denoiser of
            a problem), or a deterministic `Plan` with as many steps as it takes; default: "exact"
            where the denoiser is ideal, else "dop853".
        tolerance: rtol = atol of the adaptive teachers.
        shape: (*event), with a number of starts.
        seed: of the starts drawn.
        t_start, t_end: where paths begin and end; default t_max and t_min, or a plan's own.
        times: where the path is wanted too, from t_start to t_end; of a plan, some of its times.
        chunk: samples at once, which settles the memory.
        label: of the network, for the folder and for the record of what is fitted.
        folder: keeps finished chunks; a call with some of the same starts asks only for the others.
        dtype: of starts drawn: float64, or float32.
        device: of starts drawn; default: the network's.
        progress: tell on stderr how far it is.

    Raises:
        TypeError: `denoiser` is none.
        ValueError: starts that are no states; times, tolerances or names that cannot be; a
            stochastic plan; a denoiser with a condition for each sample; a folder with the paths
            of another network.
        FloatingPointError: paths that leave the finite numbers; says from which starts.
        KeyboardInterrupt: passed on; finished chunks stay in the folder.
    """
    if not isinstance(denoiser, Denoiser):
        raise TypeError(
            f"teach needs a Denoiser, not {type(denoiser).__name__}; say how to read the network: "
            "NetworkDenoiser(network, schedule, prediction='noise')"
        )
    check_one_condition(denoiser)
    schedule = denoiser.schedule
    check_count("chunk", chunk)
    if not 0 < checked_number(tolerance, "tolerance") < 0.1:
        raise ValueError(
            f"tolerance = {tolerance} must lie between 0 and 0.1, well below the errors of a few "
            "steps (1e-6)"
        )
    grid = _grid(denoiser, teacher, t_start, t_end, times)
    starts = starting_points(denoiser, starts, shape, seed, grid[0], dtype, device)
    if teacher is None:
        teacher = "exact" if isinstance(denoiser, ExactDenoiser) else "dop853"
    path = _path(denoiser, teacher, tolerance, grid)
    name = teacher.name if isinstance(teacher, Plan) else teacher
    with_path = times is not None
    settled = [repr(schedule), grid, with_path, label, str(starts.dtype)]
    settled.append(teacher.matrix().tolist() if isinstance(teacher, Plan) else [name, tolerance])
    answers = probe(denoiser, starts, grid[0], grid[-1])
    states = starts.new_empty(len(grid) if with_path else 2, *starts.shape)
    known, store = torch.tensor([], dtype=torch.int64), None
    if folder is not None:
        store = Paths(folder, settled, answers, label)
        known, found = store.find(starts, len(states))
        states[:, known] = found
    left = torch.ones(len(starts), dtype=torch.bool).index_fill(0, known, False).nonzero()[:, 0]
    with Progress(len(starts), progress) as telling:
        telling.advance(len(known), "teacher's paths")
        for first in range(0, len(left), chunk):
            part = left[first : first + chunk]
            of = -(-len(left) // chunk)
            telling.advance(0, f"teacher's paths, chunk {first // chunk + 1} of {of}")
            found = _computed(path, starts[part], part.tolist())
            states[:, part] = found if with_path else found[[0, -1]]
            if store is not None:
                store.put(starts[part], states[:, part])
            telling.advance(len(part), "teacher's paths")
    origin = {
        "teacher": name,
        "tolerance": None if isinstance(teacher, Plan) else tolerance,
        "schedule": repr(schedule),
        "scales": [[t, *(float(c) for c in schedule(t))] for t in (grid[0], grid[-1])],
        "label": label,
    }
    if not with_path:
        return Pairs(starts, states[-1], grid[0], grid[-1], origin=origin)
    at = torch.tensor(grid, dtype=torch.float64)
    return Pairs(starts, states[-1], grid[0], grid[-1], at, states, origin=origin)


def check_one_condition(denoiser: Denoiser) -> None:
    """Raise ValueError if a denoiser has a condition for each sample of the batch."""
    if isinstance(denoiser, Conditioned):
        raise ValueError(
            "this denoiser (Conditioned) takes its conditions by a sample's place in the batch, "
            "and starts are taken in chunks and parts, where a sample has another place. A plan is "
            "tuned for one condition: give a denoiser that has it bound, "
            "NetworkDenoiser(lambda x, t: unet(x, t, label), schedule)"
        )


def starting_points(
    denoiser: Denoiser,
    starts: Tensor | int,
    shape: Sequence[int] | None,
    seed: int | Noise,
    t: float,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Tensor:
    """The starts given, checked, or as many as asked for, drawn as `sample` draws them at time t.

    Raises:
        ValueError: a number without a shape or a tensor with another; entries that are not finite.
    """
    if not isinstance(starts, Tensor):
        if isinstance(starts, bool) or not isinstance(starts, int) or starts < 1:
            raise ValueError(f"starts = {starts!r}: give a tensor (n, *event), or how many to draw")
        if shape is None:
            raise ValueError(f"starts = {starts} to be drawn: of which shape? Give shape=(*event)")
        if isinstance(shape, str) or not isinstance(shape, Sequence):
            raise TypeError(f"shape = {shape!r} must be a sequence (*event), as (3, 32, 32)")
        size = (starts, *shape)
        return starting_state(denoiser, size, t, noise_from(seed), None, dtype, device)
    check_state(starts)
    if shape is not None and tuple(starts.shape[1:]) != tuple(shape):
        raise ValueError(
            f"starts has samples of shape {tuple(starts.shape[1:])}, and shape = {tuple(shape)}"
        )
    wrong = _not_finite(starts)
    if wrong:
        raise ValueError(f"starts {_numbers(wrong)} are not finite")
    return starts.detach().to(torch.promote_types(starts.dtype, torch.float32))


def _grid(
    denoiser: Denoiser,
    teacher: Teacher | None,
    t_start: float | None,
    t_end: float | None,
    times: Sequence[float] | Tensor | None,
) -> list[float]:
    """Where the path is wanted: both ends at least."""
    schedule = denoiser.schedule
    if isinstance(teacher, Plan):
        own = (teacher.times[0], teacher.times[-1])
        for name, given, t in zip(("t_start", "t_end"), (t_start, t_end), own, strict=True):
            if given is not None and abs(given - t) > 1e-12:
                raise ValueError(f"{name} = {given:g}, but {teacher.name} has its own: {t:g}")
        grid = list(own) if times is None else [float(t) for t in times]
        if not set(grid) <= set(teacher.times) or (grid[0], grid[-1]) != own:
            raise ValueError(
                f"times must be grid points of {teacher.name}, its first and last among them: "
                "give times=plan.times"
            )
        return grid
    if times is not None:
        grid = [float(t) for t in check_grid(schedule, times)]
        for name, given, t in (("t_start", t_start, grid[0]), ("t_end", t_end, grid[-1])):
            if given is not None and given != t:
                raise ValueError(f"{name} = {given:g} is not an end of times: {t:g}")
    else:
        ends = [
            schedule.t_max if t_start is None else t_start,
            schedule.t_min if t_end is None else t_end,
        ]
        grid = [float(t) for t in check_grid(schedule, ends)]
    if schedule.sigma(grid[-1]) == 0 and len(grid) > 1 and min(grid[:-1]) < schedule.t_clean:
        raise ValueError(
            f"times end at sigma = 0 and have t = {min(grid[:-1]):g} below t_clean = "
            f"{schedule.t_clean:g}, from where the last step to the end is taken: leave such times "
            "out, or end at t_clean"
        )
    return grid


def _path(
    denoiser: Denoiser, teacher: Teacher, tolerance: float, grid: list[float]
) -> Callable[[Tensor], Tensor]:
    """Starts -> states at all times of the grid."""
    schedule = denoiser.schedule
    if isinstance(teacher, Plan):
        if teacher.stochastic:
            raise ValueError(
                f"{teacher.name} draws noise and does not follow the probability-flow ODE: give a "
                "deterministic plan as the teacher, or options that make it one"
            )
        teacher.check_schedule(schedule)
        known = teacher.times
        places = [known.index(grid[0]), *(len(known) - 1 - known[::-1].index(t) for t in grid[1:])]
        return lambda x: record(teacher, denoiser, x).states[places]
    carries: dict[str, Carry] = {
        "dop853": lambda x, t, s: (
            scipy(denoiser, x, [t, s], method="DOP853", rtol=tolerance, atol=tolerance).x
        ),
        "dopri5": lambda x, t, s: (
            per_sample_ode(denoiser, x, [t, s], rtol=tolerance, atol=tolerance, max_steps=100_000).x
        ),
        "exact": lambda x, t, s: _exact(denoiser, x, t, s, tolerance),
    }
    carry = look_up("teacher", teacher, carries)
    if teacher == "exact" and not isinstance(denoiser, ExactDenoiser):
        raise ValueError(
            f"teacher = 'exact' is of the ideal denoiser of a problem, and this is "
            f"{type(denoiser).__name__}: take 'dop853'"
        )

    def path(x: Tensor) -> Tensor:
        states = [x]
        for t, s in pairwise(grid):
            states.append(carry(states[-1], t, s))
        return torch.stack(states)

    return path


def _exact(denoiser: Denoiser, x: Tensor, t: float, s: float, tolerance: float) -> Tensor:
    assert isinstance(denoiser, ExactDenoiser)
    problem, schedule = denoiser.problem, denoiser.schedule
    clean = schedule.t_clean
    if schedule.sigma(s) > 0 or problem.smooth:
        return problem.trajectory(x, schedule, [t, s], rtol=tolerance, atol=tolerance)[-1]
    at_clean = problem.trajectory(x, schedule, [t, clean], rtol=tolerance, atol=tolerance)[-1]
    return float(schedule.alpha(s)) * denoiser(at_clean, clean)


def _computed(path: Callable[[Tensor], Tensor], x: Tensor, numbers: list[int]) -> Tensor:
    """The path of a chunk; FloatingPointError names the starts whose paths are not finite."""
    try:
        states = path(x)
    except FloatingPointError as error:
        if len(x) == 1:
            raise FloatingPointError(
                f"the teacher's path from start {numbers[0]} cannot be followed: {error}"
            ) from error
        half = len(x) // 2  # which of them? In halves, until it is one
        for part in (slice(half), slice(half, None)):
            _computed(path, x[part], numbers[part])
        raise
    wrong = _not_finite(states.transpose(0, 1))
    if wrong:
        raise FloatingPointError(
            f"the teacher's paths from starts {_numbers([numbers[i] for i in wrong])} are not "
            "finite: look at what the network answers there, or leave them out"
        )
    return states


def _not_finite(x: Tensor) -> list[int]:
    """Indices of the samples with numbers that are not finite."""
    fine = torch.isfinite(flat(x)).all(1)
    return [] if bool(fine.all()) else (~fine).nonzero().flatten().tolist()


def _numbers(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:8]))
    return shown if len(indices) <= 8 else f"{shown}, ... ({len(indices)} in all)"
