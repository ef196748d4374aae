"""What a run tells as it goes: progress, a log of losses, samples, TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from ..extras import optional
from ..files import write_atomic
from ..progress import Progress
from .pictures import picture


class Report:
    """`with Report(...) as report`: tells of one run, from a step on.

    Lines of the log that are of later steps, from a run broken off after its last checkpoint, are
    removed: they are written again.

    Args:
        folder: of `losses.jsonl`, `samples/` and `tensorboard/`; None: none of them.
        start, steps: the first step and the last.
        tensorboard: whether to log there; None: where it is installed.
        progress: whether to tell progress on stderr.
    """

    def __init__(
        self,
        folder: Path | None,
        start: int,
        steps: int,
        tensorboard: bool | None,
        progress: bool,
    ) -> None:
        self.folder, self.show = folder, progress
        self._progress = Progress(steps - start, progress)
        self._text, self._board = "", None
        if folder is not None:
            self.log = folder / "losses.jsonl"
            if self.log.exists():
                write_atomic(self.log, _lines_until(start, self.log.read_bytes()))
            if tensorboard is None and not tensorboard_installed() and progress:
                print("no TensorBoard: pip install tensorboard to log there too", file=sys.stderr)
            if tensorboard or (tensorboard is None and tensorboard_installed()):
                board = optional("torch.utils.tensorboard", "logs for TensorBoard")
                self._board = board.SummaryWriter(folder / "tensorboard", purge_step=start + 1)

    def __enter__(self) -> Report:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(*error)
        if self._board is not None:
            self._board.close()

    def advance(self) -> None:
        """One step is done."""
        self._progress.advance(1, self._text)

    def losses(
        self, step: int, loss: float, by_lambda: dict[str, float], learning_rate: float
    ) -> None:
        """The mean loss since the last line, and the mean error by half-log-SNR."""
        bins = ", ".join(f"{name}: {error:.3g}" for name, error in by_lambda.items())
        self._text = f"step {step}, loss {loss:.4g}" + (f"; by lambda {bins}" if bins else "")
        self._line(step, loss=loss, learning_rate=learning_rate, by_lambda=by_lambda)

    def held_out(self, step: int, loss: float) -> None:
        """The mean loss of the averaged weights on held-out data."""
        self._line(step, held_out=loss)

    def samples(
        self, step: int, x: Tensor, span: tuple[float, float] | None, classes: int | None
    ) -> None:
        """A picture of samples; of samples that are not finite only a sentence."""
        if not bool(x.isfinite().all()):
            print(f"the samples of step {step} are not finite: not drawn", file=sys.stderr)
        elif self.folder is not None:
            (self.folder / "samples").mkdir(exist_ok=True)
            drawn = picture(x, span, classes)
            write_atomic(self.folder / "samples" / f"step-{step:09d}.png", drawn)
            if self._board is not None and x.ndim == 4:
                low, high = span or (float(x.min()), float(x.max()))
                shown = ((x - low) / max(high - low, 1e-12)).clamp(0, 1)
                self._board.add_images("samples", shown, step)

    def _line(self, step: int, **values: Any) -> None:
        if self.folder is None:
            return
        with open(self.log, "a") as file:
            file.write(json.dumps({"step": step, **_plain(values)}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                scalars = value if isinstance(value, dict) else {"": value}
                for part, number in scalars.items():
                    self._board.add_scalar(f"{name}/{part}".rstrip("/"), number, step)


def tensorboard_installed() -> bool:
    """Whether `torch.utils.tensorboard` can be used."""
    return importlib.util.find_spec("tensorboard") is not None


def _plain(values: Any) -> Any:
    """Values as JSON has them: a number that is not finite becomes null."""
    if isinstance(values, dict):
        return {name: _plain(value) for name, value in values.items()}
    return values if not isinstance(values, float) or math.isfinite(values) else None


def _lines_until(step: int, log: bytes) -> bytes:
    """The whole lines of a log up to a step."""
    kept = []
    for line in log.splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError):
            break  # half a line: the process was killed while writing it
    return b"".join(kept)
