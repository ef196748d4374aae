"""A comparison as one HTML page with everything in it: no script, no request to anywhere."""

from __future__ import annotations

import base64
import math
from html import escape

from ..tables import Table
from .report import on_one_grid, ranked, ranking, reference_in_words, winners
from .results import Results

HOW_TO_READ = (
    "NFE counts network calls, the cost of sampling. A solver takes the most steps that stay "
    "within the NFE of its column.",
    "All solvers start from the same points, in float64, and end at the same time; x* is the end "
    "of the probability-flow ODE of this very network. The error of a sample is |x - x*|/|x*|.",
    "Each cell shows the median over the samples and, small, their RMS. On data of several modes "
    "an RMS above a few per cent mostly counts samples that end in another mode; the median does "
    "not see them. The colour is the median's, from green (1e-4 and less) to red (1 and more).",
    "An endpoint error says how well the network's ODE is solved, not how good the samples are.",
)
STYLE = """
:root { --ink: #1b1f24; --soft: #59636e; --paper: #fff; --line: #d8dee4; --band: #f4f6f8;
  --mark: #0b5cad; --good: 152 60% 88%; --bad: 8 85% 88%; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa5b1; --paper: #14181d;
  --line: #313840; --band: #1d2329; --mark: #7ab8f5; --good: 152 35% 20%; --bad: 8 45% 24%; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .4rem 0 .2rem; }
h2 { margin: 2.2rem 0 .4rem; font-size: 1.25rem; }
.note { color: var(--soft); font-size: .88rem; margin: .2rem 0 .6rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .82rem; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: var(--paper); }
.names td:nth-child(2), .names td:nth-child(4), .names th:nth-child(2), .names th:nth-child(4)
  { text-align: left; }
thead th { border-bottom: 1px solid var(--line); color: var(--soft); font-weight: 600; }
td small { display: block; color: var(--soft); font-size: .74rem; line-height: 1.1; }
tbody tr + tr td { border-top: 1px solid var(--line); }
figure { margin: 1rem 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
img { display: block; width: 100%; height: auto; padding: .6rem; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--mark); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: .8rem; } }
"""


def html(results: Results, picture: bytes | None) -> str:
    """The page; `picture` is a PNG, or None where matplotlib is missing."""
    about = results.about
    figure = '<p class="note">The picture needs matplotlib: pip install "sde_diffusion[bench]"</p>'
    if picture is not None:
        source = "data:image/png;base64," + base64.b64encode(picture).decode()
        figure = f'<figure><img alt="Error against network calls" src="{source}"></figure>'
    body = [
        "<h1>Which solver for this model</h1>",
        f'<p class="note">{escape(about.get("denoiser", ""))} on '
        f"{escape(about.get('schedule', ''))}</p>",
        _section(winners(results), "names", shade=False),
        "<h2>Error against network calls</h2>",
        '<p class="note">The best solvers in colour, each on its best grid; the others grey; '
        "dotted: how far the reference is known.</p>",
        figure,
        _section(ranked(results, ranking(results))),
        "<h2>Every grid</h2>",
        *(_details(on_one_grid(results, grid)) for grid in _grids(results)),
        "<h2>How to read this page</h2>",
        _list([*HOW_TO_READ, reference_in_words(results), *results.notes]),
        _failures(results),
        "<h2>What was run</h2>",
        "<dl>"
        + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in about.items())
        + "</dl>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Which solver for this model</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _section(table: Table, kind: str = "", shade: bool = True) -> str:
    note = escape(_stacked(table.note))
    head = f'<h2>{escape(table.title)}</h2><p class="note">{note}</p>'
    return head + _table(table, kind, shade)


def _stacked(note: str) -> str:
    """A note of a table of "RMS / median", as the page sets it."""
    return note.replace("RMS / median", "median, beneath it the RMS,")


def _details(table: Table) -> str:
    return f"<details><summary>{escape(table.title)}</summary>{_table(table)}</details>"


def _table(table: Table, kind: str = "", shade: bool = True) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = ("<tr>" + "".join(_cell(c, shade) for c in row) + "</tr>" for row in table.rows)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(text: str, shade: bool) -> str:
    """A cell; "RMS/median" with the RMS small beneath the median."""
    rms, slash, median = text.partition("/")
    if not slash or "@" in text:
        return f"<td>{escape(text)}</td>"
    style = _shade(text) if shade else ""
    return f"<td{style}>{escape(median)}<small>{escape(rms)}</small></td>"


def _shade(text: str) -> str:
    """Background of a cell "RMS/median": green at 1e-4 and below, red at 1 and above."""
    try:
        median = float(text.rstrip("*").partition("/")[2])
    except ValueError:
        return ""
    place = min(max((math.log10(max(median, 1e-9)) + 4) / 4, 0.0), 1.0)
    weight = round(100 * abs(2 * place - 1))
    tone = "--bad" if place > 0.5 else "--good"
    return f' style="background: hsl(var({tone}) / {weight}%)"'


def _failures(results: Results) -> str:
    found = {
        f"{cell.solver} @ {cell.grid}, NFE {cell.allowed}: {cell.error}"
        for cell in results.cells
        if cell.error
    }
    if not found:
        return ""
    head = f"<summary>{len(found)} runs without a result</summary>"
    return f"<details>{head}{_list(sorted(found))}</details>"


def _list(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _grids(results: Results) -> list[str]:
    return list(dict.fromkeys(cell.grid for cell in results.cells))
