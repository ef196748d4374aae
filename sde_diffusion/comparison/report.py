"""A comparison of solvers as tables, files, a picture and one HTML page."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..tables import Table, number
from .results import Cell, Results

SHOWN = 12  # rows of the ranking in text, lines in colour
WORST = 1.0  # what a missing result counts as in the ranking


@dataclass(frozen=True)
class Line:
    """A solver on a grid: its cells by allowance, and its place in the ranking."""

    solver: str
    grid: str
    cells: dict[int, Cell]
    score: float

    @property
    def label(self) -> str:
        return f"{self.solver} @ {self.grid}"


def ranking(results: Results, error: str = "median") -> list[Line]:
    """Every solver on its best grid, best first.

    The score of a line is the geometric mean, over its allowances, of its error divided by the
    least error of all lines there; a missing result, or an error above 1, counts as 1. The
    allowances of a solver are all of them, that of a finished plan is its own NFE.
    """
    least = {n: _least(results, n, error) for n in results.nfe}
    groups: dict[tuple[str, str], dict[int, Cell]] = {}
    for cell in results.cells:
        groups.setdefault((cell.solver, cell.grid), {})[cell.allowed] = cell
    best: dict[str, Line] = {}
    for (solver, grid), cells in groups.items():
        logs = [math.log(_error(cell, error) / least[n]) for n, cell in cells.items()]
        line = Line(solver, grid, cells, math.exp(sum(logs) / len(logs)))
        if solver not in best or line.score < best[solver].score:
            best[solver] = line
    return sorted(best.values(), key=lambda line: line.score)


def winners(results: Results) -> Table:
    """The best solver within each allowance, by the median and by the RMS."""
    rows = []
    for n in results.nfe:
        try:
            found = [results.best(n, error) for error in ("median", "rms")]
        except ValueError:
            continue
        texts = [f"{c.solver} @ {c.grid}" for c in found]
        rows.append(
            (str(n), texts[0], _pair(found[0], results), texts[1], _pair(found[1], results))
        )
    return Table(
        "The best within each number of network calls",
        "errors: RMS / median over the starting points of |x - x*|/|x*|",
        ("NFE", "by the median", "error", "by the RMS", "error "),
        tuple(rows),
    )


def ranked(results: Results, lines: Sequence[Line]) -> Table:
    """The ranking as a table."""
    note = "RMS / median of |x - x*|/|x*|; behind: times the least median error, geometric mean"
    rows = (
        (
            line.label,
            *(_pair(line.cells.get(n), results) for n in results.nfe),
            f"{line.score:.3g}",
        )
        for line in lines
    )
    columns = ("solver @ its best grid", *map(str, results.nfe), "behind")
    return Table("Every solver on its best grid", note, columns, tuple(rows))


def on_one_grid(results: Results, grid: str) -> Table:
    """All solvers on a grid, in the order of the results."""
    rows: dict[str, dict[int, Cell]] = {}
    for cell in results.cells:
        if cell.grid == grid:
            rows.setdefault(cell.solver, {})[cell.allowed] = cell
    texts = (
        (solver, *(_pair(cells.get(n), results) for n in results.nfe))
        for solver, cells in rows.items()
    )
    return Table(f"Grid {grid}", "", ("solver", *map(str, results.nfe)), tuple(texts))


def reference_in_words(results: Results) -> str:
    """How far the reference can be trusted."""
    reference = results.reference
    return (
        f"The reference (DOP853 at tolerance {reference.tolerance:g}, "
        f"{reference.nfe} network calls) moves by RMS {number(reference.rms)}, median "
        f"{number(reference.median)}, at most {number(reference.worst)} when its tolerance is ten "
        "times larger; errors near that are marked * and say nothing more."
    )


def in_words(results: Results) -> str:
    """The tables as plain text."""
    lines = ranking(results)
    tables = (winners(results), ranked(results, lines[:SHOWN]))
    return "\n\n".join([*map(str, tables), in_words_after(results)])


def in_words_after(results: Results) -> str:
    """What belongs beneath the two tables: the rest, the reference, the notes."""
    left = len({cell.solver for cell in results.cells}) - SHOWN
    rest = [f"{left} more solvers are behind these."] if left > 0 else []
    paragraphs = [*rest, reference_in_words(results), *results.notes]
    return "\n\n".join(textwrap.fill(text, 98, break_on_hyphens=False) for text in paragraphs)


def as_csv(results: Results) -> str:
    """One row a cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Cell)])
    writer.writeheader()
    writer.writerows(asdict(cell) for cell in results.cells)
    return text.getvalue()


def as_json(results: Results) -> str:
    """Everything but the ends; results that there are none of are null."""
    cells = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(cell).items()}
        for cell in results.cells
    ]
    content: dict[str, Any] = {
        "about": results.about,
        "reference": results.reference.numbers(),
        "notes": results.notes,
        "cells": cells,
    }
    return json.dumps(content, indent=1)


def _least(results: Results, nfe: int, error: str) -> float:
    found = [_error(cell, error) for cell in results.cells if cell.allowed == nfe]
    return min(found, default=WORST)


def _error(cell: Cell, error: str) -> float:
    value = math.nan if cell.error else getattr(cell, error)
    return WORST if math.isnan(value) else min(max(value, 1e-16), WORST)


def _pair(cell: Cell | None, results: Results) -> str:
    """RMS / median, with a star where the reference is no better."""
    if cell is None or cell.error:
        return "–"
    star = "*" if cell.median < 3 * results.reference.median else ""
    return f"{number(cell.rms, 2)}/{number(cell.median, 2)}{star}"
