r"""Which of many starting points to fit on: those whose end is in doubt, and some of the others.

Between the modes of the data paths part, and near the border few steps send a sample to the wrong
side. Such starts are some per cent of all, and most of the mean square error of good plans: a fit
sees more of them if they are drawn more often than chance would. How much the end of a start is in
doubt, a few plans tell for 45 network calls: with x_(n) the end by the default of `sample` with n
calls,

    s = max over n = 9, 12 of |x_(n) - x_(24)| / |x_(24)|.

Of M starts, to keep m: the m/2 of the largest s, each with weight 1, and m/2 of the others by
chance, each for (M - m/2)/(m/2) of them. A weighted mean over these is, on average over the choice,
the mean over all M. (Stratified importance sampling: Owen, "Monte Carlo theory, methods and
examples", 2013, sections 8.4 and 9.1.)
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..counts import check_count
from ..denoise import Denoiser
from ..few_steps import default_plan
from ..progress import Progress
from ..run import check_state, run
from ..states import flat
from ..store import digest
from .kept import check_same, fingerprint, keep, kept, probe
from .teacher import check_one_condition

COARSE, FINE = (9, 12), 24  # network calls of the plans that are compared
_CHUNKS = 4  # chunks in a file


def choose_starts(
    denoiser: Denoiser,
    starts: Tensor,
    count: int,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    seed: int = 0,
    chunk: int = 256,
    label: str = "",
    folder: str | Path | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """The starts to fit on, and what each of them counts.

    Args:
        denoiser: E[x_0 | x_t].
        starts: x_T, (M, *event).
        count: m, how many to keep, from 2 to M.
        t_start, t_end: ends of the paths; default t_max and t_min.
        seed: of the choice among the others, and of the order.
        chunk: samples at once.
        label: of the network, for the folder.
        folder: keeps what is known of how much ends are in doubt; the same call goes on after it.
        progress: tell on stderr how far it is.

    Returns:
        (indices (m,), in an order by chance; weights (m,), float64, of mean 1).

    Raises:
        TypeError: `denoiser` is none.
        ValueError: starts that are no states, or a count that is no whole number from 2 to M; a
            condition for each sample; a folder of another network.
        FloatingPointError: a path that leaves the finite numbers.
    """
    if not isinstance(denoiser, Denoiser):
        raise TypeError(f"choose_starts needs a Denoiser, not {type(denoiser).__name__}")
    check_one_condition(denoiser)
    check_state(starts)
    check_count("keep", count, 2)
    check_count("chunk", chunk)
    total = len(starts)
    if not 2 <= count <= total:
        raise ValueError(f"keep = {count} of {total} starts: give from 2 to {total}")
    score = _doubts(denoiser, starts, t_start, t_end, chunk, label, folder, progress)
    return strata(score, count, seed)


def strata(score: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the count/2 of largest score and of others by chance, and their weights."""
    order = score.argsort(descending=True, stable=True)
    doubtful, others = order[: count // 2], order[count // 2 :]
    drawn = torch.Generator().manual_seed(seed)
    taken = others[torch.randperm(len(others), generator=drawn)[: count - len(doubtful)]]
    total, weights = len(score), torch.ones(count, dtype=torch.float64)
    weights[len(doubtful) :] = len(others) / len(taken)
    shuffled = torch.randperm(count, generator=drawn)
    return torch.cat([doubtful, taken])[shuffled], (weights * count / total)[shuffled]


@torch.no_grad()
def doubt(
    denoiser: Denoiser, starts: Tensor, t_start: float | None = None, t_end: float | None = None
) -> Tensor:
    """s of each start, (M,), float64."""
    schedule = denoiser.schedule
    fine, *coarse = (
        flat(run(default_plan(schedule, n, t_start, t_end), denoiser, starts).double())
        for n in (FINE, *COARSE)
    )
    gap = torch.stack([(x - fine).norm(dim=1) for x in coarse]).max(0).values
    return (gap / fine.norm(dim=1).clamp(min=torch.finfo(fine.dtype).tiny)).cpu()


def _doubts(
    denoiser: Denoiser,
    starts: Tensor,
    t_start: float | None,
    t_end: float | None,
    chunk: int,
    label: str,
    folder: str | Path | None,
    progress: bool,
) -> Tensor:
    """s of all starts, those on file not worked out again."""
    schedule = denoiser.schedule
    t_start = schedule.t_max if t_start is None else t_start
    t_end = schedule.t_min if t_end is None else t_end
    answers = probe(denoiser, starts, t_start, t_end)
    settled = ["doubt", repr(schedule), t_start, t_end, label, COARSE, FINE]
    found: list[Tensor] = []
    with Progress(len(starts), progress) as telling:
        for part in starts.split(_CHUNKS * chunk):
            file = None
            if folder is not None:
                file = Path(folder) / "doubt" / f"{digest([settled, fingerprint(part)])}.npz"
            before = None if file is None else kept(file)
            if file is not None and before is not None:
                check_same(answers, before["answers"], file, label)
                found.append(before["doubt"])
                telling.advance(len(part), "which ends are in doubt")
                continue
            scores = []
            for x in part.split(chunk):
                scores.append(doubt(denoiser, x, t_start, t_end))
                telling.advance(len(x), "which ends are in doubt")
            found.append(torch.cat(scores))
            if file is not None:
                keep(file, {"doubt": found[-1], "answers": answers})
    return torch.cat(found)
