"""A fit on disk: where it stands, so that one that was stopped goes on, and the best it found."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..plan import Plan
from ..progress import Progress as Telling
from .family import Family
from .fit import Progress
from .kept import check_same, keep, kept

EVERY = 2.0  # seconds between two savings


@dataclass(frozen=True)
class Best:
    """The best of the iterations by the loss on the validation starts.

    Attributes:
        plan: that of the numbers.
        numbers: (P,).
        loss: on the validation starts.
        unit: of the loss, as in `Progress`.
        iteration: in which it was found.
    """

    plan: Plan
    numbers: Tensor
    loss: float
    unit: str
    iteration: int


class Keeper:
    """The watch of a fit (`fit.Watch`): saves its state, remembers its best, tells how far it is.

    Losses of another unit do not compare, so that the best is that of the last unit.

    Args:
        file: where the state is saved; None: nowhere.
        answers: of the network, as `probe` asks for them.
        label: of the network.
        telling: where progress is told.
        family: that is fitted, where `Progress` has none.
        plan_file: where the best plan is saved beside the state; None: nowhere.

    Raises:
        ValueError: if the file is of another network.
    """

    def __init__(
        self,
        file: Path | None,
        answers: Tensor,
        label: str,
        telling: Telling,
        family: Family | None = None,
        plan_file: Path | None = None,
    ) -> None:
        self.file, self.answers, self.telling = file, answers, telling
        self.family, self.plan_file, self.label = family, plan_file, label
        self.state: dict[str, Any] | None = None
        self.best: Best | None = None
        self._began = self._saved = time.monotonic()
        self._before = 0.0
        self._new = False  # whether the best is not saved
        found = None if file is None else kept(file)
        if file is not None and found is not None:
            check_same(answers, found["answers"], file, label)
            self.state, self._before = found["state"], found["seconds"]
            self.best = self._found(found.get("best"))

    @property
    def seconds(self) -> float:
        """Spent on the fit, before it was stopped too."""
        return self._before + time.monotonic() - self._began

    def __call__(self, progress: Progress) -> None:
        self.state = dict(progress.state)
        self._compare(progress)
        held = progress.validation
        looked = "" if math.isnan(held) else f", on validation {held:.3g}"
        unit = f" ({progress.unit})" if progress.unit else ""
        text = f"iteration {progress.iteration}: loss {progress.train:.3g}{looked}{unit}"
        self.telling.advance(1, text)
        if time.monotonic() - self._saved > EVERY:
            self.save()

    def save(self) -> None:
        """Write where the fit stands, and the best plan."""
        if self.file is not None and self.state is not None:
            if self.plan_file is not None and self.best is not None and self._new:
                self.plan_file.parent.mkdir(parents=True, exist_ok=True)
                self.best.plan.save(self.plan_file)  # first: a state without its plan has no best
                self._new = False
            best = None if self.best is None else {**vars(self.best), "plan": None}
            state: dict[str, Any] = {"state": self.state, "answers": self.answers, "best": best}
            keep(self.file, {**state, "seconds": self.seconds})
        self._saved = time.monotonic()

    def _compare(self, progress: Progress) -> None:
        """Take up what is better than the best, or the first of a new unit."""
        family, loss = progress.family or self.family, progress.validation
        same = self.best is not None and self.best.unit == progress.unit
        if family is None or not math.isfinite(loss):
            return
        if self.best is None or not same or loss < self.best.loss:
            about = f"The best of a fit until iteration {progress.iteration}, not its end: loss "
            about += f"{loss:.3g} on the validation starts; for {self.label}"
            plan = replace(family.plan(progress.numbers), origin={"about": about})
            self.best = Best(plan, progress.numbers, loss, progress.unit, progress.iteration)
            self._new = True

    def _found(self, best: Any) -> Best | None:
        """The best that was saved; None if it or its plan is no longer there as it was."""
        if not isinstance(best, dict) or self.plan_file is None:
            return None
        try:
            return Best(**{**best, "plan": Plan.load(self.plan_file)})
        except (OSError, TypeError, ValueError):
            return None
