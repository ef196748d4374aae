"""The best samplers that need no fitting, found by trying all of them: screened, then measured.

First round: every solver on `FIRST` grids, few samples. Second round: the best solvers on all
grids, with and without an analytic first step. By each figure the best few settings go on; those
are measured in full, on other starts, and the best of them by a figure is the one to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sde_diffusion.store import Cell

from ..model import SCHEDULE
from .rulers import RULERS
from .study import ERRORS, SCREEN_SEED, Study
from .training_free import DEFAULT, DEFAULT_SETTING, Setting, settings

FIRST = (DEFAULT, "vp p=1.5")
_SOLVERS = 2  # that go on to the second round, by each figure

Say = Callable[[str], None]


def best_training_free(study: Study, nfe: int, say: Say = print) -> dict[str, Setting]:
    """Figure -> the setting with the least mean over the seeds; "default" is always a candidate."""
    finalists = _finalists(study, nfe, say)
    means = {}
    for setting in finalists:
        plan = setting.plan(SCHEDULE, nfe)
        found = study.in_full(plan)
        means[setting] = {k: sum(v) / len(v) for k, v in found.items()}
        study.store.save()
    return {
        figure: min(
            (s for s in finalists if figure in RULERS or not s.entry.stochastic),
            key=lambda s: means[s][figure],
        )
        for figure in (*RULERS, *ERRORS)
    }


def _finalists(study: Study, nfe: int, say: Say) -> list[Setting]:
    everything = settings()[:: study.sizes.settings]
    screened = _screened(study, nfe, (s for s in everything if _in_first(s)))
    say(f"NFE {nfe}: {len(screened)} settings screened")
    solvers = {s.entry.short for s in _ahead(screened, _SOLVERS, by_solver=True)}
    screened |= _screened(study, nfe, (s for s in everything if s.entry.short in solvers))
    say(f"NFE {nfe}: {len(screened)} settings screened, of {len(solvers)} solvers on all grids")
    study.store.save()
    return list(dict.fromkeys([DEFAULT_SETTING, *_ahead(screened, study.sizes.keep)]))


def _in_first(setting: Setting) -> bool:
    return setting.grid in FIRST and not setting.analytic


def _screened(study: Study, nfe: int, candidates: Iterable[Setting]) -> dict[Setting, Cell]:
    """The figures of all that can be had with so many calls, on few samples."""
    found = {}
    for setting in candidates:
        plan = setting.plan(SCHEDULE, nfe)
        if plan is None:
            continue
        try:
            found[setting] = study.figures(plan, SCREEN_SEED, study.sizes.screen)
        except FloatingPointError:  # singular on this grid: out of the running
            continue
    return found


def _ahead(screened: dict[Setting, Cell], count: int, by_solver: bool = False) -> list[Setting]:
    """Those among the first `count` by some figure; `by_solver`: the first of each solver."""
    chosen: dict[Setting, None] = {}
    for figure in (*RULERS, *ERRORS):
        order: Sequence[Setting] = sorted(screened, key=lambda s: screened[s][figure])
        if by_solver:
            firsts: dict[str, Setting] = {}
            for setting in order:
                firsts.setdefault(setting.entry.short, setting)
            order = list(firsts.values())
        if figure in ERRORS:
            order = [s for s in order if not s.entry.stochastic]
        chosen |= dict.fromkeys(order[:count])
    return list(chosen)
