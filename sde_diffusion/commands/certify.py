"""sde-diffusion certify: the measured certificate of a solver, one of the package or one's own."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..certificates import certify
from ..certificates.certificate import named
from ..certificates.table import table
from ..comparison.entries import options_of
from ..denoise import Denoiser
from ..files import write_atomic
from ..solvers import CLAIMS
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
        help="a solver or preset of the package, or a function (schedule, times, **options) -> "
        "Plan of one's own, looked for in this folder first; default: every solver in every "
        "claimed form",
    )
    option(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the solver; may be repeated",
    )
    option(
        "--table",
        type=Path,
        metavar="FILE",
        help="write a table of all certificates in Markdown; without a solver only",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Certify, and print; 1 if a measurement falls below its claim."""
    if options.solver is None:
        if options.option:
            raise ValueError("--option belongs to one solver: name it (certify ddim --option ...)")
        if options.table and not options.table.parent.is_dir():
            raise ValueError(f"--table {options.table}: there is no folder {options.table.parent}")
        return _run_all(options.table)
    if options.table:
        raise ValueError("--table is of all solvers: leave out the name")
    if ":" in options.solver:
        method = load(options.solver)
    else:
        method = named(options.solver)
    if isinstance(method, Denoiser):
        raise ValueError(
            f"{options.solver} is a denoiser, and certificates are of solvers, functions "
            "(schedule, times, **options) -> Plan; to try solvers on it: sde-diffusion compare "
            f"--model {options.solver}"
        )
    if not callable(method):
        raise ValueError(f"{options.solver} is no function to a Plan but {type(method).__name__}")
    found = certify(method, **options_of(options.solver, method, options.option))
    print(found)
    return bool(found.failures)


def _run_all(path: Path | None) -> int:
    found = []
    for name, claims in CLAIMS.items():
        for claim in claims:
            found.append(certify(name, **claim.options))
            print(f"{found[-1]}\n", flush=True)
    if path:
        write_atomic(path, table(found).encode())
        print(f"The table: {path}")
    failed = [certificate.name for certificate in found if certificate.failures]
    below = ", ".join(failed) or "-"
    print(f"{len(found)} certificates; below their claims: {below}")
    return bool(failed)
