"""The numbers of a comparison, and the best of them."""

from __future__ import annotations

from dataclasses import dataclass

from ..names import look_up
from .reference import Reference


@dataclass(frozen=True)
class Cell:
    """One solver on one grid with one allowance of network calls.

    Attributes:
        solver, grid: as they are named.
        allowed: network calls allowed; nfe: those made (`plan.nfe`); steps: of the grid.
        rms, median: over the samples, of |x - x*|/|x*|; NaN where there is no result.
        seconds: of the run.
        error: why there is no result, or "".
    """

    solver: str
    grid: str
    allowed: int
    nfe: int = 0
    steps: int = 0
    rms: float = float("nan")
    median: float = float("nan")
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Results:
    """All numbers of a comparison, and what they are measured against.

    Attributes:
        cells: all of them, by solver, grid and NFE.
        reference: what the errors are measured against.
        about: what was run, in words.
        notes: what a reader has to know: which solvers were left out, and why.
    """

    cells: tuple[Cell, ...]
    reference: Reference
    about: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def nfe(self) -> list[int]:
        """The allowances."""
        return sorted({cell.allowed for cell in self.cells})

    def best(self, nfe: int, error: str = "median") -> Cell:
        """The cell of least error within an allowance.

        Args:
            nfe: one of `self.nfe`.
            error: "median" or "rms".

        Raises:
            ValueError: an unknown error, or no solver had a result within this allowance.
        """
        look_up("error", error, {"median": 0, "rms": 0})
        found = [cell for cell in self.cells if cell.allowed == nfe and not cell.error]
        if not found:
            raise ValueError(f"no result within {nfe} network calls; there are {self.nfe}")
        return min(found, key=lambda cell: getattr(cell, error))
