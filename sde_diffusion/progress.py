"""How far a long run is and how long it will take: a bar where rich is at hand, else lines."""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any

from .extras import optional

EVERY = 5.0  # seconds between two lines


class Progress:
    """`with Progress(...) as progress`: counts work done, and tells on stderr what is left.

    Args:
        work: of the whole run, in any unit that takes time evenly (network calls); 0: unknown.
        show: whether to tell anything.
    """

    def __init__(self, work: float, show: bool = True) -> None:
        self.work, self.show = work, show
        self.done, self._began, self._told = 0.0, time.monotonic(), time.monotonic()
        self._bar: Any = None

    @property
    def left(self) -> float | None:
        """Seconds left at the pace so far; None before any work, or if there is no saying."""
        spent = time.monotonic() - self._began
        known = self.done and self.work
        return spent * (self.work - self.done) / self.done if known else None

    def __enter__(self) -> Progress:
        if self.show and sys.stderr.isatty() and importlib.util.find_spec("rich"):
            rich, console = optional("rich.progress", "bars"), optional("rich.console", "bars")
            self._bar = rich.Progress(
                *(rich.BarColumn(24), rich.TaskProgressColumn()),
                *(rich.TimeRemainingColumn(elapsed_when_finished=True), rich.TextColumn("left")),
                rich.TextColumn("[progress.description]{task.description}"),
                console=console.Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=self.work or None)
            self._bar.start()
        return self

    def advance(self, work: float, text: str) -> None:
        """Note that so much is done; `text` says what comes next."""
        self.done += work
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, description=text)
        elif self.show and time.monotonic() - self._told > EVERY:
            self._told = time.monotonic()
            left = "" if self.left is None else f", {clock(self.left)} left"
            share = f"{self.done / self.work:4.0%}{left}" if self.work else ""
            print(": ".join(part for part in (share, text) if part), file=sys.stderr, flush=True)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    start = f"{hours}:{rest // 60:02d}" if hours else f"{rest // 60}"
    return f"{start}:{rest % 60:02d}"
