"""A fit on disk: where it stands, so that one that was stopped goes on, and the best it found."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from ..progress import Progress as Telling
from .fit import Progress
from .kept import check_same, keep, kept

EVERY = 2.0  # seconds between two savings


class Keeper:
    """The watch of a fit (`fit.Watch`): saves its state, remembers its best, tells how far it is.

    Args:
        file: where the state is saved; None: nowhere.
        answers: of the network, as `probe` asks for them.
        label: of the network.
        telling: where progress is told.

    Raises:
        ValueError: if the file is of another network.
    """

    def __init__(self, file: Path | None, answers: Tensor, label: str, telling: Telling) -> None:
        self.file, self.answers, self.telling = file, answers, telling
        self.state: dict[str, Any] | None = None
        self.best: Tensor | None = None
        self.best_loss = math.inf
        self._began = self._saved = time.monotonic()
        self._before = 0.0
        found = None if file is None else kept(file)
        if file is not None and found is not None:
            check_same(answers, found["answers"], file, label)
            self.state = found["state"]
            self.best, self._before = found["best"], found["seconds"]
            self.best_loss = math.inf if self.best is None else found["best_loss"]

    @property
    def seconds(self) -> float:
        """Spent on the fit, before it was stopped too."""
        return self._before + time.monotonic() - self._began

    def __call__(self, progress: Progress) -> None:
        self.state = dict(progress.state)
        if progress.validation < self.best_loss:
            self.best, self.best_loss = progress.numbers, progress.validation
        self.telling.advance(
            1,
            f"iteration {progress.iteration}: loss {progress.train:.3g}, on validation "
            f"{progress.validation:.3g}",
        )
        if time.monotonic() - self._saved > EVERY:
            self.save()

    def save(self) -> None:
        """Write where the fit stands."""
        if self.file is not None and self.state is not None:
            best_loss = self.best_loss if math.isfinite(self.best_loss) else None
            state: dict[str, Any] = {"state": self.state, "answers": self.answers}
            state |= {"best": self.best, "best_loss": best_loss, "seconds": self.seconds}
            keep(self.file, state)
        self._saved = time.monotonic()
