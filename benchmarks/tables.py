"""The tables, made once and shown twice: on the terminal and in the report."""

from __future__ import annotations

from typing import Any

from sde_diffusion.tables import Table, number

from .cases import TITLES
from .claim import Comparison
from .entries import Entry
from .metrics import METRICS
from .results import Results, mean_and_spread


def all_tables(results: Results, comparisons: dict[str, list[Comparison]]) -> list[Table]:
    """Every table with something in it."""
    cases = [case for case in TITLES if any(job.case == case for job in results.work.jobs)]
    tables = [_precision(results, case) for case in cases]
    tables += [_adaptive(results, cases)]
    tables += [_quality(results, metric) for metric in METRICS]
    tables += [_seconds(results), _claim(comparisons)]
    return [table for table in tables if table.rows]


def _nfes(results: Results) -> list[int]:
    return sorted({job.nfe for job in results.work.jobs if job.nfe})


def _plans(results: Results) -> list[Entry]:
    return [entry for entry in results.work.entries if not entry.adaptive]


def _twin_note(results: Results, entry: Entry) -> tuple[str, ...] | None:
    original = results.original(entry)
    return None if original == entry else (f"{entry.label}  = {original.label}",)


def _fill(row: tuple[str, ...], width: int) -> tuple[str, ...]:
    return row + ("",) * (width - len(row))


def _precision(results: Results, case: str) -> Table:
    nfes, rows = _nfes(results), []
    for entry in _plans(results):
        if entry.stochastic:
            continue
        if twin := _twin_note(results, entry):
            rows.append(_fill(twin, len(nfes) + 1))
            continue
        cells = {job.nfe: cell for job, cell in results.of("precision", case, entry)}
        if cells:
            texts = (
                f"{number(cells[n]['rms'])} / {number(cells[n]['median'])}" if n in cells else "–"
                for n in nfes
            )
            rows.append((entry.label, *texts))
    return Table(
        f"Endpoint error, {TITLES[case]}",
        "RMS / median over starting points of |x - x*| / |x*| at t_clean; columns: NFE",
        ("solver", *map(str, nfes)),
        tuple(rows),
    )


def _adaptive(results: Results, cases: list[str]) -> Table:
    rows = []
    for entry in results.work.entries:
        tolerances = sorted({j.tolerance for j in results.cells if j.entry == entry}, reverse=True)
        for tolerance in tolerances if entry.adaptive else ():
            row = [f"{entry.label} {tolerance:g}"]
            for case in cases:
                pairs = results.of("precision", case, entry)
                cell = next((c for j, c in pairs if j.tolerance == tolerance), None)
                row.append(
                    f"{cell['nfe']}: {number(cell['rms'])} / {number(cell['median'])}"
                    if cell
                    else "–"
                )
            rows.append(tuple(row))
    return Table(
        "Endpoint error, adaptive solvers",
        "NFE: RMS / median, at rtol = atol = the number after the name",
        ("solver", *cases),
        tuple(rows),
    )


def _quality(results: Results, metric: str) -> Table:
    nfes, rows = _nfes(results), []
    for entry in _plans(results):
        if twin := _twin_note(results, entry):
            rows.append(_fill(twin, len(nfes) + 1))
        elif values := results.repeats(entry, metric):
            texts = (_with_spread(values[n]) if n in values else "–" for n in nfes)
            rows.append((entry.label, *texts))
    for entry in results.work.entries:
        if entry.adaptive:
            found: dict[float, list[dict[str, Any]]] = {}
            for job, cell in results.of("quality", "network", entry):
                found.setdefault(job.tolerance, []).append(cell)
            for tolerance, cells in found.items():
                calls = number(mean_and_spread([c["nfe"] for c in cells])[0])
                text = _with_spread([c[metric] for c in cells])
                label = f"{entry.label} {tolerance:g}: NFE {calls}, {text}"
                rows.append(_fill((label,), len(nfes) + 1))
    if rows and results.floor:
        floor = f"floor, two real sets: {_with_spread(results.floor[metric])}"
        rows.append(_fill((floor,), len(nfes) + 1))
    return Table(
        f"Samples of the network: {METRICS[metric]} to held-out digits",
        "mean ± standard deviation over seeds, lower is better; columns: NFE",
        ("solver", *map(str, nfes)),
        tuple(rows),
    )


def _with_spread(values: list[float]) -> str:
    mean, spread = mean_and_spread(values)
    return f"{number(mean)} ± {spread:.1g}" if len(values) > 1 else number(mean)


def _seconds(results: Results) -> Table:
    nfes, rows = _nfes(results), []
    for entry in _plans(results):
        cells = results.of("quality", "network", entry)
        if results.original(entry) == entry and cells:
            best = {
                n: min(c["seconds"] for j, c in cells if j.nfe == n)
                for n in {j.nfe for j, _ in cells}
            }
            rows.append((entry.label, *(f"{best[n]:.3f}" if n in best else "–" for n in nfes)))
    return Table(
        "Wall time of a set of samples of the network",
        f"seconds, fastest repeat, {results.about.get('samples', '')} samples; columns: NFE",
        ("solver", *map(str, nfes)),
        tuple(rows),
    )


def _claim(comparisons: dict[str, list[Comparison]]) -> Table:
    rows = []
    for name, found in comparisons.items():
        for c in found:
            side = c.winner or "within the spread"
            rows.append(
                (
                    name,
                    str(c.nfe),
                    f"{number(c.ddim[0])} ± {c.ddim[1]:.1g}",
                    f"{number(c.ddpm[0])} ± {c.ddpm[1]:.1g}",
                    f"{number(c.difference)} ± {c.margin:.1g}",
                    side + (" (both at the floor)" if c.at_floor else ""),
                )
            )
    return Table(
        "DDIM (eta = 0) against DDPM",
        "difference: DDPM - DDIM, mean ± half of its interval (95 % for a curve), paired by seed",
        ("metric", "NFE", "DDIM", "DDPM", "difference", "better"),
        tuple(rows),
    )
