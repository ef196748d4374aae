"""sde-diffusion tune: a plan of few steps, fitted to one's own model."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..comparison.entries import options_of
from ..names import unknown
from ..tuning import FAMILIES, LOSSES, METHODS, STRATEGIES, report, tune
from ..tuning.way import own_options
from .arguments import add_model, check_device, share
from .load import load_denoiser

DESCRIPTION = """Fit a plan to a model: first a teacher finds where the network's own ODE takes many
starting points, then the numbers of a plan of few network calls are chosen so that it ends there
too. The errors shown are on starting points kept apart for it. A run that is stopped (Ctrl-C) keeps
what is finished in a folder beside the plan; the same command goes on from there."""
SHARED = {"chunk": "--chunk", "seed": "--seed", "tolerance": "--teacher-tolerance"}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Enter `tune`."""
    parser = commands.add_parser(
        "tune", help="a plan of few steps for a model of one's own", description=DESCRIPTION
    )
    add_model(parser)
    option = parser.add_argument
    option(
        "--nfe",
        type=int,
        help="network calls a sample at most, as 5; a plan given as base has its own",
    )
    option("--out", required=True, type=Path, metavar="PLAN.JSON", help="where the plan goes")
    option(
        "--base",
        default="angular",
        metavar="SOLVER|PLAN.JSON",
        help="what to begin with: a solver, with options after it ('adams order=3'), or the file "
        "of a plan (default: angular)",
    )
    option(
        "--free",
        default="table",
        help=f"what is free: {', '.join(sorted({*FAMILIES, *STRATEGIES}))} (default: table)",
    )
    option("--loss", default="endpoint", help=f"{', '.join(LOSSES)} (default: endpoint)")
    option(
        "--scale",
        type=float,
        help="relative errors beyond it count little; inf: all count by their square (default: for "
        "endpoint what makes both RMS and median smaller, inf for the others)",
    )
    option("--method", help=f"{', '.join(METHODS)} (default: what suits --free)")
    option(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the method (max_iterations=20); may be repeated",
    )
    option("--starts", type=int, default=4096, help="starting points in all (default 4096)")
    option(
        "--keep",
        type=int,
        metavar="M",
        help="fit on M of the starting points: half those whose end is most in doubt, half others, "
        "weighed (default: on all)",
    )
    option(
        "--validation",
        type=share,
        default=0.25,
        help="share of them kept apart to choose and to report, or their number (default 0.25)",
    )
    option("--seed", type=int, default=0, help="of the starting points (default 0)")
    option("--times", default="default", help="the solver's grid (see: sde-diffusion list grids)")
    option("--t-end", type=float, metavar="T", help="where the paths end (default: the grid's end)")
    option("--teacher", help="exact, dop853 or dopri5 (default: exact if it can be, else dop853)")
    option(
        "--teacher-tolerance",
        type=float,
        default=1e-6,
        metavar="TOL",
        help="of the teacher (default 1e-6)",
    )
    option(
        "--chunk",
        type=int,
        default=256,
        help="samples that the teacher takes at once (default 256)",
    )
    option("--label", help="of the network, for the plan's record (default: what --model says)")
    option("--device", help="of the states (default: the network's)")
    option("--dtype", choices=DTYPES, help="of the states (default: the network's)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Tune, save the plan, print the report and how to use it."""
    if not options.out.parent.is_dir():
        raise ValueError(f"--out {options.out}: there is no folder {options.out.parent}; make it")
    if options.out.is_dir() or options.out.suffix != ".json":
        raise ValueError(f"--out {options.out}: give the name of a file that ends in .json")
    check_device(options.device)
    fitting = _method_options(options)
    denoiser = load_denoiser(options.model)
    folder = options.out.with_suffix(".tuning")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        plan = tune(
            options.base,
            denoiser,
            options.starts,
            options.teacher,
            nfe=options.nfe,
            free=options.free,
            loss=options.loss,
            scale=options.scale,
            method=options.method,
            keep=options.keep,
            validation=options.validation,
            shape=options.shape,
            seed=options.seed,
            times=options.times,
            t_end=options.t_end,
            tolerance=options.teacher_tolerance,
            chunk=options.chunk,
            label=options.label or options.model,
            folder=folder,
            dtype=DTYPES.get(options.dtype),
            device=options.device,
            progress=True,
            **fitting,
        )
    plan.save(options.out)
    print(report(plan))
    for warning in said:
        print(f"\nwarning: {warning.message}")
    shape = ", ".join(map(str, (16, *options.shape)))
    print(
        f"\nThe plan: {options.out}. Use it as\n"
        f'    sde_diffusion.sample(denoiser, ({shape}), solver="{options.out.as_posix()}")\n'
        f"{folder} holds the teacher's paths, to tune again from; it may be deleted."
    )
    return 0


def _method_options(options: argparse.Namespace) -> dict[str, Any]:
    function: Callable[..., Any]
    if options.free in STRATEGIES and options.method is None:
        name, function = f"free={options.free}", STRATEGIES[options.free]
    elif (options.method or "least_squares") in METHODS:
        name = options.method or "least_squares"
        function = METHODS[name]
    else:
        return {}  # tune says which methods there are
    own = own_options(function) - set(SHARED)
    for word in options.option:
        key, equals, _ = word.partition("=")
        if key in SHARED:
            raise ValueError(f"--option {word}: {key} has a flag of its own, {SHARED[key]}")
        if equals and key not in own:
            raise ValueError(unknown(f"option of {name}", key, own))
    return options_of(name, function, options.option)
