"""What the rows say: the chosen setting of each library, and ours beside azula's at equal NFE.

A method's figures are those of the setting chosen at that number of calls, under seeds that had no
part in the choice; `compare` says when one is nearer than another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .compare import LEVEL, SMALL, distance, farther

Row = dict[str, Any]
Content = dict[str, Any]


def methods(task: Content, library: str) -> list[str]:
    """Of a library, in order."""
    return list(dict.fromkeys(r["method"] for r in task["cells"] if r["library"] == library))


def calls(task: Content) -> list[int]:
    """NFE that were measured."""
    return sorted({row["nfe"] for row in task["cells"]})


def best(task: Content, library: str, method: str, nfe: int, default: bool = False) -> Row | None:
    """The chosen setting of a method, or its default; None where it was not run or failed."""
    keys, kind = (library, method, nfe), "default" if default else "chosen"
    for row in task["cells"]:
        same = (row["library"], row["method"], row["nfe"]) == keys
        if same and row[kind] and distance(row) < math.inf:
            return row
    return None


def pairs(content: Content) -> list[Row]:
    """Ours beside azula's, for every task, method and NFE that both have."""
    rows = []
    for name, task in content["tasks"].items():
        theirs = methods(task, "azula")
        for method in (m for m in methods(task, "ours") if m in theirs):
            for nfe in calls(task):
                ours, peer = (best(task, who, method, nfe) for who in ("ours", "azula"))
                if ours is None and peer is None:
                    continue
                known = {"task": name, "method": method, "nfe": nfe, "ours": ours, "azula": peer}
                nearer, far = farther(peer or {}, ours or {}), farther(ours or {}, peer or {})
                rows.append({**known, "nearer": nearer, "farther": far})
    return rows


def verdict(content: Content) -> list[str]:
    """In how many cells ours is nearer, as near or farther, and every one where it is farther."""
    rows = pairs(content)
    if not rows:
        return ["azula was not measured."]
    near, far = (sum(r[kind] for r in rows) for kind in ("nearer", "farther"))
    lines = [
        f"At equal NFE ours is at least as close in {len(rows) - far} of {len(rows)} comparisons: "
        f"nearer in {near}, and in {len(rows) - near - far} the difference is within chance "
        f"({LEVEL:.0%} point of Student's law) or below {SMALL:.0%}; farther in {far}."
    ]
    for row in (r for r in rows if r["farther"]):
        lines.append(
            f"- farther: {row['method']}, {row['task']}, NFE {row['nfe']}: "
            f"{_figure(row['ours'], 'sliced')} against {_figure(row['azula'], 'sliced')}"
        )
    chance = len(rows) * (1 - LEVEL)
    told = (
        f"Were all {len(rows)} pairs equal, chance would call ours nearer in about {chance:.1f} "
        f"of them and farther in {chance:.1f}. Settings swept, ours / azula's: {settings(content)}."
    )
    overall = f"Ours over azula's, geometric mean of a method's comparisons: {by_method(rows)}."
    return [*lines, "", overall, "", content["about"]["choice"], "", told]


def by_method(rows: Sequence[Row]) -> str:
    """exp of the mean of log(ours/azula's), of the comparisons in which neither failed."""
    logs: dict[str, list[float]] = {}
    for row in rows:
        ours, peer = (distance(row[who] or {}) for who in ("ours", "azula"))
        if max(ours, peer) < math.inf:
            logs.setdefault(row["method"], []).append(math.log(ours / peer))
    return ", ".join(f"{m} {math.exp(sum(v) / len(v)):.2f} ({len(v)})" for m, v in logs.items())


def settings(content: Content) -> str:
    """How many settings of each method of both libraries were swept; of tasks, least and most."""
    counts: dict[str, dict[str, set[int]]] = {}
    for task in content["tasks"].values():
        names = {(row["method"], row["library"], row["name"]) for row in task["sweep"]}
        swept = Counter(name[:2] for name in names)
        for (method, library), count in swept.items():
            if {(method, "ours"), (method, "azula")} <= set(swept):
                counts.setdefault(method, {}).setdefault(library, set()).add(count)
    span = lambda found: " to ".join(str(n) for n in sorted({min(found), max(found)}))
    both = lambda of: f"{span(of['ours'])} / {span(of['azula'])}"
    return ", ".join(f"{method} {both(of)}" for method, of in counts.items())


def report(content: Content) -> str:
    """All of it as Markdown."""
    text = ["# Distance to the exact posterior", "", *verdict(content)]
    about = content["about"]
    for name, task in content["tasks"].items():
        floor = task["floor"]
        text += ["", f"## {name}", ""]
        text += [
            f"{task['count']} measurements, {task['samples']} samples of each. Exact samples: "
            f"sliced {floor['sliced'][0]:.3f}, KL {floor['kl'][0]:.4f}, "
            f"inside {floor['inside'][0]:.2f}.",
            "",
            *table(task),
        ]
    if "particles" in content:
        text += ["", "## Particles", "", *particles_table(content["particles"])]
    text += ["", "## Where and when", "", *(f"- {k}: {v}" for k, v in about.items())]
    return "\n".join(text) + "\n"


def summary(content: Content, shown: Sequence[int] = (20, 100)) -> str:
    """Sliced distances over those of exact samples, ours and azula's, a table a number of calls."""
    about, names = content["about"], list(content["tasks"])
    text = [
        f"`{about['command']}`, {about['date'][:10]}, {about['processor']}; {about['versions']}."
    ]
    shown = [nfe for nfe in shown if any(nfe in calls(t) for t in content["tasks"].values())]
    for nfe in shown:
        head = [f"{nfe} network calls", *(_short(name) for name in names)]
        text += ["", _line(head), _line(["---"] * len(head))]
        order = dict.fromkeys(
            (library == "exact", method)
            for library in ("exact", "ours")
            for task in content["tasks"].values()
            for method in methods(task, library)
        )
        for exact, method in order:
            cells = [_beside(t, method, nfe, exact) for t in content["tasks"].values()]
            if any(cells):
                text.append(_line([f"*{method}*" if exact else method, *cells]))
    return "\n".join(text) + "\n"


def _beside(task: Content, method: str, nfe: int, exact: bool) -> str:
    """Ours / azula's, over the floor; empty where neither was run."""
    floor = task["floor"]["sliced"][0]
    figure = lambda row: f"{distance(row) / floor:.2g}" if row else "-"
    if exact:
        row = best(task, "exact", method, nfe)
        return figure(row) if row else ""
    ours, peer = (best(task, who, method, nfe) for who in ("ours", "azula"))
    told = figure(ours)
    if not peer:
        return told if ours else ""
    both = {"ours": told, "azula": figure(peer)}
    if farther(peer, ours or {}):
        both["ours"] = f"**{told}**"
    elif farther(ours or {}, peer):
        both["azula"] = f"**{both['azula']}**"
    return " / ".join(both.values())


def _short(name: str) -> str:
    """Without the dimension, which the picture tells."""
    return name.replace(", one row", "")


def table(task: Content, shown: Sequence[int] = (20, 100)) -> list[str]:
    """One line a method and library: sliced, KL and inside at the numbers of calls shown."""
    shown = [nfe for nfe in shown if nfe in calls(task)]
    figures = [f"{what}, {nfe}" for nfe in shown for what in ("sliced", "KL", "inside")]
    head = ["method", "library", *figures, "default", "gradients", "seconds"]
    lines = [_line(head), _line(["---"] * len(head))]
    order = ["exact", "ours", "azula"]
    names = dict.fromkeys(m for library in order for m in methods(task, library))
    for method in names:
        for library in order:
            rows = [best(task, library, method, nfe) for nfe in shown]
            if not any(rows):
                continue
            usual = best(task, library, method, shown[0], True)
            cells = [_figure(r, m) for r in rows for m in ("sliced", "kl", "inside")]
            last = next((r for r in reversed(rows) if r), {})
            costs = [f"{last['gradients'] / max(last['calls'], 1):.0f}", f"{last['seconds']:.2f}"]
            lines.append(_line([method, library, *cells, _figure(usual, "sliced"), *costs]))
    note = (
        "Of the setting chosen at each number of calls; ± one standard error; default: sliced "
        f"distance of the default at NFE {shown[0]}; gradients: through the network, a call; "
        "seconds: of one thread, at the largest NFE shown."
    )
    return [*lines, "", note]


def particles_table(part: Content) -> list[str]:
    """Errors against the number of particles, with their slopes."""
    head = ["problem", "method", "particles", "error of log Z", "error of the mean", "sliced"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in part["rows"]:
        figures = [f"{row[k]:.3g}" for k in ("log_evidence", "mean", "sliced")]
        lines.append(_line([row["task"], row["method"], str(row["particles"]), *figures]))
    slopes = [
        f"- {row['task']}, {row['method']}: error of log Z falls as K^{row['log_evidence']:.2f}, "
        f"of the mean as K^{row['mean']:.2f}"
        for row in part["slopes"]
    ]
    return [*lines, "", *slopes]


def _figure(row: Row | None, metric: str) -> str:
    if row is None:
        return "-"
    value = row[metric]
    if value is None:
        return "inf"
    if metric == "sliced":
        return f"{value:.3g} ± {row['error of sliced']:.2g}"
    return f"{value:.2f}" if metric == "inside" else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
