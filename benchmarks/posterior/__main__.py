"""Distances to the exact posterior: our methods for inverse problems and azula's, in one run.

python -m benchmarks.posterior [--quick] [--task WORD ...] [--method NAME ...] [--draw]
                               [--processes N] [--output DIR] [--kept DIR]

Tasks of dimension 2, 64 and 256, each with several measurements y of which p(x_0 | y) is a mixture
in closed form: sliced Wasserstein distance to exact samples, KL of the moments, share inside the
90 % credible set, network calls, gradients through the network, and seconds of one thread, at 10,
20, 50 and 100 calls; then errors of the particle methods against their number, log Z among them.
Settings are chosen under some seeds and measured under others, as many for both libraries. azula's
methods are measured where it is installed. Writes posterior.json, pictures.json, posterior.md,
summary.md and, with matplotlib, the pictures; --draw makes only these, from the files. A run that
was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sde_diffusion.files import write_atomic
from sde_diffusion.names import unknown

from ..about import version, where_and_when
from . import azula, ours
from .measure import RULE, SWEPT
from .parts import PARTICLES, each, part
from .problems import tasks
from .tables import report, summary, verdict


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.posterior",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few samples and calls, seconds")
    parser.add_argument("--task", nargs="+", default=[], help="only tasks with one of these words")
    parser.add_argument("--method", nargs="+", default=[], help="only these, in any case")
    parser.add_argument("--draw", action="store_true", help="only the report and the pictures")
    parser.add_argument("--processes", type=int, default=1, help="tasks at once, default 1")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output/posterior"))
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/output/posterior"))
    asked = parser.parse_args(arguments)
    _check(parser, asked)
    torch.set_num_threads(1)
    asked.output.mkdir(parents=True, exist_ok=True)
    if not asked.draw:
        _measure(asked)
    content = json.loads((asked.output / "posterior.json").read_text())
    write_atomic(asked.output / "posterior.md", report(content).encode())
    write_atomic(asked.output / "summary.md", summary(content).encode())
    print("\n".join(verdict(content)))
    if importlib.util.find_spec("matplotlib"):
        from .figure import draw

        shown = json.loads((asked.output / "pictures.json").read_text())
        draw(content, shown, asked.output)
    else:
        print("no pictures without matplotlib: add --draw to this command where it is installed")
    return 0


def _check(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    """Names and files, before anything is measured."""
    if asked.processes < 1:
        parser.error(f"--processes {asked.processes} must be at least 1")
    if asked.draw:
        if asked.task or asked.method or asked.quick:
            parser.error("--draw shows all that was measured: no --task, --method or --quick")
        for name in ("posterior.json", "pictures.json"):
            if not (asked.output / name).exists():
                parser.error(f"no {name} in {asked.output}: run without --draw first")
        return
    names = [task.name for task in tasks(asked.quick)]
    for word in asked.task:
        if not any(word in name for name in names):
            parser.error(unknown("task", word, (w for name in names for w in name.split(", "))))
    every = [*ours.settings(), *azula.settings()]
    known = {s.method.casefold(): s.method for s in every if s.library != "exact"}
    for name in asked.method:
        if name.casefold() not in known:
            parser.error(unknown("method", name.casefold(), known))
    asked.method = [known[name.casefold()] for name in asked.method]
    chosen = [task for task in tasks(asked.quick) if _asked(task.name, asked.task)]
    for name in asked.method:
        own = [s for s in every if s.method == name]
        if not any(s.fits(task, SWEPT) for s in own for task in chosen):
            parser.error(f"{name} is for masks alone, and none of the tasks has one: drop --task")


def _asked(name: str, words: list[str]) -> bool:
    return not words or any(word in name for word in words)


def _measure(asked: argparse.Namespace) -> None:
    about = where_and_when("benchmarks.posterior")
    about["choice"] = "--quick: defaults alone" if asked.quick else RULE
    if azula.settings():
        about["versions"] += f", azula {version('azula')}"
    else:
        print("azula is not installed: ours alone", file=sys.stderr)
    names = [task.name for task in tasks(asked.quick) if _asked(task.name, asked.task)]
    jobs = [*names] if asked.method or asked.task else [*names, PARTICLES]
    # The longest come last in the report, and begin first.
    one = partial(part, kept=asked.kept, methods=asked.method, quick=asked.quick)
    parts = dict(each(one, jobs[::-1], asked.processes))
    content: dict[str, Any] = {"about": about, "tasks": {name: parts[name][0] for name in names}}
    if PARTICLES in parts:
        content[PARTICLES] = parts[PARTICLES][0]
    shown = {name: parts[name][1] for name in names}
    for name, what in (("posterior", content), ("pictures", shown)):
        text = json.dumps(what, separators=(",", ":")).replace('{"library"', '\n{"library"')
        write_atomic(asked.output / f"{name}.json", f"{text}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
