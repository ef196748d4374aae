"""Quality of samplers at 4 to 50 network calls: ours and, with --peers, other libraries'.

python -m benchmarks.quality [--peers | --default | --fresh] [--model NAME ...] [--range NAME ...]
                             [--points N] [--output DIR] [--kept DIR]

From 512 fixed starting points to sigma = 0: RMS and median of |x - x*|/|x*| against the exact end
of the path. Writes quality.json into the output folder and prints, for each model and range of
noise, the best of ours, the default and the best of each library. A run replaces only what it
measured anew: figures of libraries that are not installed stay. The best of ours is that of all
our settings ("screened") and of the default, which every run but --peers measures.

--fresh takes the settings that the file names, ours and those of the installed libraries, to 2,048
starts of another seed, which choose, and the chosen and the default to 4,096 (--points) of a third
("fresh" in a cell): figures of nothing that was chosen on the points that it is measured on. With
all libraries installed, each error of ours is told as a share of the best peer's, with its standard
error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from sde_diffusion.files import write_atomic

from ..about import version, where_and_when
from . import fresh, ours, peers
from .models import MAIN, PROBLEMS, SCHEDULES, TITLES, load
from .sweep import METRICS, NFES, Kept, best, measure

PEERS = ("diffusers", "k-diffusion", "azula")


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--peers", action="store_true", help="measure the peers, not us")
    parts.add_argument("--default", action="store_true", help="measure the default alone")
    parts.add_argument("--fresh", action="store_true", help="measure the best on fresh starts")
    parser.add_argument("--model", nargs="+", choices=list(PROBLEMS), default=list(MAIN))
    parser.add_argument("--range", nargs="+", choices=list(SCHEDULES), default=["vp", "edm"])
    parser.add_argument("--points", type=int, default=fresh.MEASURE[1], help="that measure, fresh")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/quality"))
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/output/quality"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    part = next((p for p in ("peers", "default", "fresh") if getattr(asked, p)), "ours")
    about = where_and_when("benchmarks.quality")
    if part in ("peers", "fresh"):
        about["versions"] += "".join(f", {name} {version(name)}" for name in PEERS)
    for model in asked.model:
        for range_ in asked.range:
            path, name = asked.output / "quality.json", f"{model} {range_}"
            if part == "fresh":
                found = _fresh(path, model, range_, asked.points, asked.kept)
                found["fresh"]["about"] = about
            else:
                found = _measure(part, model, range_, asked.kept)
            cell = _write(path, part, about, name, found)
            shown = cell["fresh"] if part == "fresh" else cell
            print(table(f"{TITLES[model]}, {range_}", shown), flush=True)
    return 0


def _write(
    path: Path, part: str, about: dict[str, str], name: str, found: dict[str, Any]
) -> dict[str, Any]:
    """The cell with what was measured anew, written into the file beside all else in it."""
    content = _read(path)
    cell: dict[str, Any] = content["cells"].setdefault(name, {})
    if part != "fresh":
        found["about"] = {part: about}
    for inner in ("about", "settings", "fresh"):
        if inner in found:
            found[inner] = _beside(cell.get(inner, {}), found[inner])
    cell |= found
    if "screened" in cell and "default" in cell:
        cell["sde_diffusion"] = _better(cell["screened"], cell["default"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(content, indent=1).encode())
    return cell


def _beside(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What was found, and what was known of the same starts besides.

    Shares that were known fall with any of the figures that they are the quotients of.
    """
    same = all(known.get(key) == found.get(key) for key in ("seed", "points"))
    both = (known if same else {}) | found
    parts = (ours.DEFAULT.peer, *PEERS)
    if "shares" not in found and any(p not in both or both[p] != known.get(p) for p in parts):
        both.pop("shares", None)
    return both


def _read(path: Path) -> dict[str, Any]:
    """What the file holds, "cells" by name; none where there is no file."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {"cells": {}} | kept


def _better(screened: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """NFE -> metric -> the best of our settings, or the default where it is better still."""
    return {
        nfe: {
            metric: min(
                (best, {"setting": ours.DEFAULT.name, **default[nfe]}), key=lambda f: f[metric]
            )
            for metric, best in figures.items()
        }
        for nfe, figures in screened.items()
    }


def _fresh(path: Path, model: str, range_: str, points: int, folder: Path) -> dict[str, Any]:
    """The default, and what the file names of ours and of the installed libraries, once more."""
    name, own = f"{model} {range_}", ours.DEFAULT.peer
    cell = _read(path)["cells"].get(name, {})
    choice = load(folder, model, range_, *fresh.CHOICE)
    kept = Kept(folder / f"fresh-{model}-{range_}.json")
    seed = fresh.MEASURE[0]
    case = load(folder, model, range_, seed, points)
    distances = fresh.Distances(case, folder / f"fresh-{model}-{range_}-{seed}-{points}.npz")
    found: dict[str, Any] = {"seed": seed, "points": points}
    found["default"] = fresh.plain(distances, ours.DEFAULT, NFES)
    settings: list[Any] = [ours.DEFAULT, *ours.settings(), *peers.settings()]
    for peer in dict.fromkeys(setting.peer for setting in settings):
        place = "screened" if peer == own else peer
        if place in cell:
            named = {setting.name: setting for setting in settings if setting.peer == peer}
            found[place] = fresh.again(choice, distances, cell[place], named, kept)
    if "screened" in found:
        found[own] = _better(found["screened"], found["default"])
    if all(place in found for place in (own, *PEERS)):
        named = {(setting.peer, setting.name): setting for setting in settings}
        found["shares"] = fresh.shares(found, distances, named, own, PEERS)
    return {"fresh": found}


def _measure(part: str, model: str, range_: str, folder: Path) -> dict[str, Any]:
    case = load(folder, model, range_)
    found: dict[str, Any] = {"settings": {}}
    if part != "peers":
        found["default"] = {
            str(n): dict(zip(METRICS, measure(case, ours.DEFAULT, n), strict=True)) for n in NFES
        }
    if part == "default":
        return found
    kept = Kept(folder / f"{part}-{model}-{range_}.json")
    settings: list[Any] = peers.settings() if part == "peers" else ours.settings()
    for name in dict.fromkeys(setting.peer for setting in settings):
        own = [setting for setting in settings if setting.peer == name]
        result = best(case, own, kept, say=lambda line: print(line, file=sys.stderr, flush=True))
        place = "screened" if part == "ours" else name
        found[place] = {str(nfe): figures for nfe, figures in result.items()}
        found["settings"][name] = len(own)
    return found


def table(title: str, cell: dict[str, Any]) -> str:
    """RMS/median of each library's best, one row a library, and ours as shares of the best."""
    rows = [f"{title:24s}" + "".join(f"{nfe:>17d}" for nfe in NFES)]
    for name in ("default", "sde_diffusion", *PEERS):
        if name in cell:
            at = [cell[name][str(nfe)] for nfe in NFES]
            pairs = [
                (a["rms"], a["median"])
                if name == "default"
                else (a["rms"]["rms"], a["median"]["median"])
                for a in at
            ]
            rows.append(f"  {name:22s}" + "".join(f"{f'{r:.2g}/{m:.2g}':>17s}" for r, m in pairs))
    for metric in METRICS if "shares" in cell else ():
        at = [cell["shares"][str(nfe)][metric] for nfe in NFES]
        told = (f"{a['share']:.3f} +- {a['error']:.3f}" for a in at)
        rows.append(f"  {f'share of {metric}':22s}" + "".join(f"{text:>17s}" for text in told))
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
