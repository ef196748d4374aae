"""The numbers of a run as flat rows, asked for by tables and pictures, and written to files."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sde_diffusion.files import write_atomic

from .entries import Entry
from .jobs import Job, Workload

COLUMNS = (
    *("kind", "case", "solver", "label", "nfe_allowed", "tolerance", "repeat", "nfe", "seconds"),
    *("rms", "median", "sliced", "energy", "frechet", "same_as", "error"),
)


@dataclass(frozen=True)
class Results:
    """All cells of a run.

    Attributes:
        work: the jobs asked for.
        cells: job -> its numbers; jobs that were left out for time are missing.
        floor: metric -> distances between two real sets, one a repeat.
        about: what was run, where and when.
    """

    work: Workload
    cells: dict[Job, dict[str, Any]]
    floor: dict[str, list[float]]
    about: dict[str, Any]

    def original(self, entry: Entry) -> Entry:
        """The entry whose numbers this one has."""
        return self.work.twins.get(entry, entry)

    def of(self, kind: str, case: str, entry: Entry) -> list[tuple[Job, dict[str, Any]]]:
        """Cells of an entry without errors, by NFE."""
        own = self.original(entry)
        found = [
            (job, cell)
            for job, cell in self.cells.items()
            if job.kind == kind and job.case == case and job.entry == own and "error" not in cell
        ]
        return sorted(found, key=lambda pair: (pair[1]["nfe"], pair[0].nfe, pair[0].repeat))

    def repeats(self, entry: Entry, metric: str) -> dict[int, list[float]]:
        """NFE allowed -> the metric over repeats, of a solver that is a plan."""
        table: dict[int, list[float]] = {}
        for job, cell in self.of("quality", "network", entry):
            values = table.setdefault(job.nfe, [])
            # Up to the first gap, so that entries can be paired by position.
            if job.repeat == len(values):
                values.append(cell[metric])
        return {nfe: values for nfe, values in table.items() if values}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every cell as one flat row, twins too."""
        for entry in self.work.entries:
            own = self.original(entry)
            for job, cell in self.cells.items():
                if job.entry == own:
                    yield {
                        "kind": job.kind,
                        "case": job.case,
                        "solver": entry.solver,
                        "label": entry.label,
                        "nfe_allowed": job.nfe or None,
                        "tolerance": job.tolerance or None,
                        "repeat": job.repeat,
                        "same_as": own.label if own != entry else None,
                        **cell,
                    }

    def write(self, folder: Path, findings: dict[str, Any]) -> list[Path]:
        """results.csv and results.json."""
        rows = list(self.rows())
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        content = {"about": self.about, "findings": findings, "floor": self.floor, "cells": rows}
        paths = [folder / "results.csv", folder / "results.json"]
        write_atomic(paths[0], text.getvalue().encode())
        write_atomic(paths[1], json.dumps(content, indent=1).encode())
        return paths


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation over repeats; 0 for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
