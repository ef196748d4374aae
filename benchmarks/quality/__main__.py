"""Quality of samplers at 4 to 50 network calls: ours and, with --peers, other libraries'.

python -m benchmarks.quality [--peers | --default] [--model NAME ...] [--range NAME ...]
                             [--output DIR] [--kept DIR]

From 512 fixed starting points to sigma = 0: RMS and median of |x - x*|/|x*| against the exact end
of the path. Writes quality.json into the output folder and prints, for each model and range of
noise, the best of ours, the default and the best of each library. A run replaces only what it
measured anew: figures of libraries that are not installed stay. The best of ours is that of all
our settings ("screened") and of the default, which every run but --peers measures.
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
from . import ours, peers
from .models import MAIN, PROBLEMS, SCHEDULES, TITLES, load
from .sweep import METRICS, NFES, Kept, best, measure

PEERS = ("diffusers", "k-diffusion", "azula")


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--peers", action="store_true", help="measure the peers, not us")
    parser.add_argument("--default", action="store_true", help="measure the default alone")
    parser.add_argument("--model", nargs="+", choices=list(PROBLEMS), default=list(MAIN))
    parser.add_argument("--range", nargs="+", choices=list(SCHEDULES), default=["vp", "edm"])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/quality"))
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/output/quality"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    part = "peers" if asked.peers else "default" if asked.default else "ours"
    about = where_and_when("benchmarks.quality")
    if asked.peers:
        about["versions"] += "".join(f", {name} {version(name)}" for name in PEERS)
    for model in asked.model:
        for range_ in asked.range:
            found = _measure(part, model, range_, asked.kept)
            cell = _write(asked.output / "quality.json", part, about, f"{model} {range_}", found)
            print(table(f"{TITLES[model]}, {range_}", cell), flush=True)
    return 0


def _write(
    path: Path, part: str, about: dict[str, str], name: str, found: dict[str, Any]
) -> dict[str, Any]:
    """The cell with what was measured anew, written into the file beside all else in it."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    content.setdefault("about", {})[part] = about
    cell: dict[str, Any] = content.setdefault("cells", {}).setdefault(name, {})
    settings = cell.setdefault("settings", {}) | found.pop("settings", {})
    cell |= {**found, "settings": settings}
    if "screened" in cell and "default" in cell:
        cell["sde_diffusion"] = _better(cell["screened"], cell["default"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(content, indent=1).encode())
    return cell


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


def _measure(part: str, model: str, range_: str, folder: Path) -> dict[str, Any]:
    case = load(folder, model, range_)
    found: dict[str, Any] = {"settings": {}}
    if part != "peers":
        found["default"] = {
            str(nfe): dict(zip(METRICS, measure(case, ours.DEFAULT, nfe), strict=True))
            for nfe in NFES
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
    """RMS/median of each library's best, one row a library."""
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
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
