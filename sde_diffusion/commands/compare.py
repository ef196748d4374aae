"""sde-diffusion compare: which solver for one's own model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..comparison import compare
from ..comparison.compare import NFES
from ..comparison.report import SHOWN, in_words_after, ranked, ranking, winners
from .arguments import add_model, check_device, names, numbers
from .load import load_denoiser
from .show import show

DESCRIPTION = """Run every solver on every grid with every number of network calls, from fixed
starting points, and measure how far each ends from the exact path of the network's own ODE. A run
that is stopped (Ctrl-C) keeps what is finished; the same command goes on from there."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Enter `compare`."""
    parser = commands.add_parser(
        "compare", help="which solver for a model of one's own", description=DESCRIPTION
    )
    add_model(parser)
    option = parser.add_argument
    option(
        "--nfe",
        type=numbers,
        default=NFES,
        metavar="4,5,...",
        help=f"network calls allowed (default {','.join(map(str, NFES))})",
    )
    option(
        "--solvers",
        type=names,
        metavar="LIST",
        help="names, comma between, with options: 'ddim,adams order=3 variable=t'; 'default' is "
        "what sample takes where nothing is named (if left out: that and every deterministic one; "
        "see: sde-diffusion list)",
    )
    option("--grids", type=names, metavar="LIST", help="the same: 'uniform,karras rho=5'")
    option(
        "--plans",
        nargs="+",
        default=(),
        metavar="PLAN.JSON",
        help="files of plans (see: sde-diffusion tune), compared at their own NFE beside the "
        "solvers; paths end where they do",
    )
    option("--n", type=int, default=64, help="starting points (default 64)")
    option("--seed", type=int, default=0, help="of the starting points (default 0)")
    option(
        "--t-end",
        type=float,
        metavar="T",
        help="where the paths end (default t_clean, or where the plans do)",
    )
    option(
        "--reference-tolerance",
        type=float,
        default=1e-6,
        metavar="TOL",
        help="of the adaptive solver that the others are measured against (default 1e-6)",
    )
    option("--stochastic", action="store_true", help="take stochastic solvers too")
    option("--device", help="of the states (default: the network's)")
    option(
        "--out",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="where the report and the finished cells go (default: comparison)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare, print the ranking, and say where the files are."""
    check_device(options.device)
    denoiser = load_denoiser(options.model)
    found = compare(
        denoiser,
        options.shape,
        nfe=options.nfe,
        solvers=options.solvers,
        grids=options.grids,
        plans=options.plans,
        n=options.n,
        seed=options.seed,
        t_end=options.t_end,
        reference_tolerance=options.reference_tolerance,
        stochastic=options.stochastic,
        device=options.device,
        out=options.out,
        progress=True,
    )
    show(winners(found), ranked(found, ranking(found)[:SHOWN]))
    print(in_words_after(found))
    print(f"\nThe report: {options.out / 'report.html'}")
    return 0
