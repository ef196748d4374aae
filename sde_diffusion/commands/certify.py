"""sde-diffusion certify: the measured certificate of a solver, one of the package or one's own."""

from __future__ import annotations

import argparse

from ..certificates import certify
from ..comparison.entries import options_of, variants
from ..names import look_up
from ..solvers import SOLVERS
from .load import load


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Enter `certify`."""
    parser = commands.add_parser(
        "certify", help="measure a solver's order, exactness, invariants and cost"
    )
    option = parser.add_argument
    option(
        "solver",
        nargs="?",
        metavar="NAME|MODULE:FUNCTION",
        help="a solver of the package, or a function (schedule, times, **options) -> Plan of one's "
        "own, looked for in this folder first; default: every solver in every claimed form",
    )
    option(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the solver; may be repeated",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Certify, and print."""
    if options.solver is None:
        if options.option:
            raise ValueError("--option belongs to one solver: name it (certify ddim --option ...)")
        for entry in variants():
            print(f"{certify(entry.solver, **dict(entry.options))}\n", flush=True)
        return 0
    if ":" in options.solver:
        method = load(options.solver)
    else:
        method = look_up("solver", options.solver, SOLVERS)
    if not callable(method):
        raise ValueError(f"{options.solver} is no function to a Plan but {type(method).__name__}")
    print(certify(method, **options_of(options.solver, method, options.option)))
    return 0
