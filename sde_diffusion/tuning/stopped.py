"""What is left of a fit that is stopped, by Ctrl-C or an error: the best plan so far.

It is the `plan` of the exception, the exception says so in a note, and with a folder it lies there
in a file of its own, an ordinary plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..plan import Plan
from .resume import Keeper


def best_plan_file(file: Path | None) -> Path | None:
    """Where the best plan of a fit lies whose state is in a file."""
    return None if file is None else file.with_suffix(".best.json")


@contextmanager
def best_kept(keeper: Keeper, base: Plan, base_loss: float, unit: str) -> Iterator[None]:
    """Save the fit if what is done inside is stopped, and say what is left of it.

    Args:
        keeper: the watch of the fit.
        base: what the fit began with.
        base_loss: its loss on the validation starts.
        unit: of that (`fit.unit_of`).
    """
    try:
        yield
    except BaseException as stop:
        saved = _saved(keeper, stop)
        _say_best(stop, keeper, base, base_loss, unit, saved)
        if saved and (keeper.state is not None or isinstance(stop, KeyboardInterrupt)):
            stop.add_note(_how_to_go_on(keeper))
        raise
    if keeper.plan_file is not None:
        with suppress(OSError):  # the plan that was found is worth more than a tidy folder
            keeper.plan_file.unlink()


def _saved(keeper: Keeper, stop: BaseException) -> bool:
    """Save the fit, or say why it cannot be."""
    try:
        keeper.save()
    except OSError as error:
        stop.add_note(
            f"The fit could not be saved ({error}): make room, or give another folder=; the same "
            "call goes on from what was saved there before, if anything was."
        )
        return False
    return True


def _how_to_go_on(keeper: Keeper) -> str:
    if keeper.file is None:
        return "What it takes to go on is lost: give tune a folder= to keep it."
    if keeper.state is None:
        paths = keeper.file.parents[1] / "teacher"
        return "The same call begins the fit anew, of which no iteration had come to its end" + (
            f"; the teacher's paths are in {paths}." if paths.is_dir() else "."
        )
    return f"The same call goes on from here; the fit so far is in {keeper.file}."


@contextmanager
def paths_kept(folder: str | Path | None) -> Iterator[None]:
    """Say what is left of the teacher's paths if Ctrl-C stops what makes them inside."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(
            "The teacher's paths so far are lost: give tune a folder= to keep them."
            if folder is None
            else f"The same call goes on after what is finished of the teacher's paths ({folder})."
        )
        raise


def _say_best(
    stop: BaseException, keeper: Keeper, base: Plan, loss: float, unit: str, saved: bool
) -> None:
    """Give an exception the best plan so far, if an iteration came to its end."""
    best = keeper.best
    if best is None:
        return
    on = "on the validation starts"
    if best.unit in ("", unit) and loss <= best.loss:
        note = f"So far nothing betters {base.name}, to begin with: {loss:.3g} {on}, not less"
        stop.__dict__["plan"] = base
        stop.add_note(f"{note} than {best.loss:.3g} of the fit ({unit}).")
        return
    note = f"The best plan so far (iteration {best.iteration}) has a loss of {best.loss:.3g} {on}"
    note += f" ({best.unit or unit})"
    if best.unit in ("", unit):
        note += f", and {base.name}, to begin with, {loss:.3g}"
    where = f"lies in {keeper.plan_file} and " if saved and keeper.plan_file else ""
    stop.add_note(f"{note}. It {where}is the .plan of this exception.")
    stop.__dict__["plan"] = best.plan


def check_answered(loss: float, keeper: Keeper, again: Callable[[], float]) -> None:
    """Raise FloatingPointError if the network no longer answers with finite numbers.

    Args:
        loss: of what the fit found.
        keeper: the watch of the fit.
        again: the loss of what it began with, which was finite, asked for once more.
    """
    if not math.isfinite(loss) and (keeper.best is not None or not math.isfinite(again())):
        raise FloatingPointError(
            "what the fit found has no finite loss on the validation starts, though it had one "
            "before, or what it began with had: the network no longer answers with finite numbers"
        )
