"""sde-diffusion list: solvers with papers and claimed orders, other samplers, presets, grids; and
what a configuration can name."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..adaptive import ADAPTIVE
from ..comparison.entries import Entry
from ..langevin import LANGEVIN
from ..networks import NETWORKS
from ..options import parameters_of
from ..presets import PRESETS
from ..schedule_names import SCHEDULES
from ..solvers import CLAIMS, PAPERS, SOLVERS
from ..tables import Table
from ..times import GRIDS
from ..training import LAWS, WEIGHTINGS
from ..training.objectives import IMPORTANCES
from ..training.sources import SOURCES
from ..training.weightings import Flat
from ..variances import LEARNED, analytic_dpm
from .show import show


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Enter `list`."""
    parser = commands.add_parser(
        "list", help="solvers, presets and time grids, with papers; what a configuration can name"
    )
    parser.add_argument(
        "what", nargs="?", choices=("solvers", "presets", "grids", "training"), help="default: all"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the tables."""
    tables = {
        "solvers": (solvers, adaptive, langevin, variances),
        "presets": (presets,),
        "grids": (grids,),
        "training": (training,),
    }
    for what, made in tables.items():
        if options.what in (None, what):
            show(*(table() for table in made))
    return 0


def solvers() -> Table:
    """Every solver under every claimed set of options."""
    rows = []
    for name in SOLVERS:
        for claim in CLAIMS[name]:
            entry = Entry(name, tuple(claim.options.items()))
            kind = "stochastic" if entry.stochastic else "ODE"
            orders = (str(claim.order), str(claim.usual_order))
            rows.append((entry.short, kind, *orders, "" if claim.options else PAPERS[name]))
    return Table(
        "Solvers",
        "orders as claimed and held to by the tests: from exact starting values, and from the "
        "solver's own first steps; weak orders where stochastic",
        ("solver", "kind", "order", "own start", "paper"),
        tuple(rows),
    )


def adaptive() -> Table:
    """The solvers that choose their own steps."""
    rows = tuple((name, _first_line(method)) for name, method in ADAPTIVE.items())
    return Table("Adaptive solvers", "", ("solver", "what it is"), rows)


def langevin() -> Table:
    """The samplers that stay at a noise level for several steps."""
    rows = tuple((name, _first_line(method)) for name, method in LANGEVIN.items())
    return Table("Langevin samplers", "", ("sampler", "what it is"), rows)


def variances() -> Table:
    """The samplers that need a variance beside the mean: measured, or learned by the network."""
    samplers = {"analytic_dpm": analytic_dpm, **LEARNED}
    rows = tuple((name, _first_line(method)) for name, method in samplers.items())
    return Table("Measured and learned variances", "", ("sampler", "what it is"), rows)


def presets() -> Table:
    """Every sampler of another package, and the solver that it is."""
    rows = tuple((preset.name, preset.peer, preset.solver) for preset in PRESETS.values())
    return Table("Presets", "samplers of other packages", ("preset", "package", "solver"), rows)


def grids() -> Table:
    """Every named grid."""
    rows = tuple(
        (name, _first_line(grid), ", ".join(re.findall(r"arXiv:\d+\.\d+", grid.__doc__ or "")))
        for name, grid in GRIDS.items()
    )
    return Table("Time grids", "", ("grid", "what it is", "paper"), rows)


def training() -> Table:
    """Every kind that a table of a configuration can name, and its arguments."""
    registries: dict[str, Mapping[str, Callable[..., Any]]] = {
        "[data]": SOURCES,
        "[network]": NETWORKS,
        "[schedule]": SCHEDULES,
        "weighting": WEIGHTINGS,
        "times": LAWS,
        "importance": IMPORTANCES,
    }
    rows = tuple(
        (kind, place, _what(function), " ".join(parameters_of(function)))
        for place, registry in registries.items()
        for kind, function in registry.items()
    )
    columns = ("kind", "of", "what it is", "arguments")
    return Table("Configurations", "see: sde-diffusion train --example digits", columns, rows)


def _what(function: Callable[..., Any]) -> str:
    if not isinstance(function, partial):
        return _first_line(function)
    if function.func is Flat:
        return f"Weight 1 on the error in: {function.args[0]}."
    return f"Times drawn in proportion to the root mean square of the {function.args[0]}."


def _first_line(method: object) -> str:
    return (inspect.getdoc(method) or "").split("\n")[0]
