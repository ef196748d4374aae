"""Likelihoods: time and network calls at equal error, how honest the error bars are, and digits.

python -m benchmarks.likelihood [--quick] [--only PART] [--output DIR] [--networks DIR]

Three tables. Equal error: log p_t of points of closed-form mixtures by `log_likelihood`, by
score_sde's algorithm (RK45, one probe) and by flow_matching's (exact divergence), against the exact
density; processor time of one thread (that of exact traces is measured on some of the points and
multiplied). Error bars (`likelihood_bars`): how many of the exact densities lie within the stated
95 % bar, by method, problem and schedule, and how wide the bars are. Digits: bits per dimension of
held-out digits by the variational bound and by the flow, and the same comparison at equal error.
Writes likelihood.json, likelihood.md and likelihood.png.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import (
    Bins,
    Denoiser,
    GaussianReference,
    NetworkDenoiser,
    VPLinear,
    bits_per_dimension,
    continuous_bound,
    log_likelihood,
    problems,
)
from sde_diffusion.bounds import best_end
from sde_diffusion.files import write_atomic

from . import likelihood_peers as peers
from .about import where_and_when
from .data import digits
from .likelihood_bars import error_bars, few_probes, summary
from .model import FOLDER, SCHEDULE, digits_network

Row = dict[str, Any]
EARLY = 1e-5  # where score_sde's code starts
PEERS: dict[str, Callable[..., peers.Found]] = {
    "score_sde, RK45 1e-5, one Rademacher probe": peers.score_sde,
    "score_sde, RK45 1e-3, one Rademacher probe": partial(peers.score_sde, tol=1e-3),
    "score_sde, RK45 1e-5, one Gaussian probe": partial(peers.score_sde, probe="gaussian"),
}
EXACT_PEER = "flow_matching, dopri5 1e-5, exact divergence"
REFERENCE = ", reference of the data"
PLAIN: dict[str, GaussianReference | float] = {"": 1.0}
EXACT: dict[str, dict[str, Any]] = {
    **{f"exact trace, {n} steps": {"steps": n} for n in (8, 12, 16, 24, 32, 48, 64, 96, 128)},
    **{
        f"exact trace by dopri5, {tol:g}": {"solver": "torchdiffeq", "rtol": tol, "atol": tol}
        for tol in (1e-3, 1e-4, 1e-5, 1e-6)
    },
}
"""Ours with exact traces."""


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """(answer, seconds of processor time)."""
    before = time.process_time()
    return function(), time.process_time() - before


def row_of(name: str, ours: bool, errors: list[Tensor], nfe: int, vjp: int, seconds: float) -> Row:
    """Errors in nats a dimension, the costs of one pass over the points."""
    every = torch.cat(errors)
    return {
        "method": name,
        "ours": ours,
        "rms": float(every.square().mean().sqrt()),
        "median": float(every.abs().median()),
        "bias": float(every.mean()),
        "nfe": nfe,
        "vjp": vjp,
        "seconds": round(seconds / len(errors), 3),
    }


def equal_error(
    denoiser: Denoiser,
    x: Tensor,
    exact: Tensor,
    t: float,
    steps: Sequence[int],
    probes: Sequence[int],
    exact_points: int,
    seeds: int,
    references: Mapping[str, GaussianReference | float] = PLAIN,
    exactly: Mapping[str, Mapping[str, Any]] = EXACT,
) -> list[Row]:
    """Ours at several settings, and the peers, on the same points.

    Exact traces, ours and the peer's, are run on the first `exact_points` of them, and their times
    multiplied. Ours are without the second solve that tells the solver's error, but for the last
    row of each reference, the call as it is without any option.
    """
    dimension, rows, few = math.prod(x.shape[1:]), list[Row](), x[:exact_points]

    def add(name: str, ours: bool, points: Tensor, asks: Sequence[Callable[[], Any]]) -> None:
        runs = [timed(ask) for ask in asks]
        errors = [(f.log_prob - exact[: len(points)]) / dimension for f, _ in runs]
        nfe = runs[0][0].nfe
        products = nfe * dimension if name == EXACT_PEER else nfe // 2
        vjp = runs[0][0].vjp if ours else products
        seconds = sum(took for _, took in runs) * len(x) / len(points)
        rows.append(row_of(name, ours, errors, nfe, vjp, seconds))

    for name, peer in PEERS.items():
        add(name, False, x, [partial(peer, denoiser, x, t, s) for s in range(seeds)])
    if exact_points:
        add(EXACT_PEER, False, few, [partial(peers.flow_matching, denoiser, few, t)])
    for note, reference in references.items():
        ours = partial(log_likelihood, denoiser, t_end=t, reference=reference)
        once = partial(ours, tolerance_error=False)
        for name, options in exactly.items() if exact_points else ():
            solve = partial(once, few, trace="exact", **options)
            add(name.replace(",", note + ",", 1), True, few, [solve])
        for m in probes:
            for n in steps:
                name = f"{m} orthogonal probe{'s' * (m > 1)}{note}, {n} steps"
                solve = partial(once, x, steps=n, probes=m)
                add(name, True, x, [partial(solve, seed=s) for s in range(seeds)])
        called = [partial(ours, x, seed=s) for s in range(seeds)]
        add(f"as called{note}, all defaults", True, x, called)
    return rows


def at_equal_error(rows: list[Row]) -> list[Row]:
    """For each peer our cheapest row whose errors (RMS) are no larger, with and without reference.

    Where none is as exact, the most exact one, and that it is not.
    """
    pairs = []
    for peer in (row for row in rows if not row["ours"]):
        for told in (False, True):
            own = [row for row in rows if row["ours"] and (REFERENCE in row["method"]) == told]
            if not own:
                continue
            able = [row for row in own if row["rms"] <= peer["rms"]]
            cost = lambda row: row["seconds"]
            best = min(able, key=cost) if able else min(own, key=lambda row: row["rms"])
            faster = peer["seconds"] / max(best["seconds"], 1e-9)
            pairs.append(
                {
                    "peer": peer["method"],
                    "ours": best["method"],
                    "rms": f"{best['rms']:.3g} against {peer['rms']:.3g}",
                    "network calls": f"{best['nfe']} against {peer['nfe']}",
                    "times faster": round(faster, 2) if able else f"not reached ({faster:.2g})",
                }
            )
    return pairs


def digits_bits(network: torch.nn.Module, count: int) -> tuple[list[Row], list[Row], Row]:
    """(bits per dimension by bound and flow, the comparison at equal error, error of its truth)."""
    denoiser = NetworkDenoiser(network, SCHEDULE)
    train, held_out = digits()
    images = held_out[:count]
    reference = GaussianReference.of(train)
    rows: list[Row] = []
    bins, scale = Bins(1 / 8), images[0].numel() * math.log(2)
    end = best_end(denoiser, train, bins=bins)
    ends: dict[str, dict[str, Any]] = {
        "t_clean": {},
        f"t = {end.t:.3g}": {"t_end": end.t, "decoder": end.variance},
    }
    for where, options in ends.items():
        options = {"bins": bins, "points": 64, **options}
        bound, took = timed(partial(continuous_bound, denoiser, images, **options))
        error = bound.standard_error / scale
        rows.append(
            bits_row("variational bound", where, bound.bits_per_dimension, error, 0.0, took)
        )
    for where, options in ends.items():
        for kind in ("uniform", "truncated_normal"):
            for k in (1,) if where == "t_clean" else (1, 4):
                ways: dict[str, Any] = {
                    "levels": 17,
                    "dequantisation": kind,
                    "samples": k,
                    "seed": 0,
                }
                ways |= {"probes": 16, "steps": 24, "reference": reference}
                ways["t_end"] = options.get("t_end", SCHEDULE.t_clean)
                found, took = timed(partial(bits_per_dimension, denoiser, images, **ways))
                solver = float(found.tolerance_error.median())
                name = f"flow, {kind.replace('_', ' ')} law, K = {k}"
                rows.append(bits_row(name, where, found.mean, found.standard_error, solver, took))
    u = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    t = SCHEDULE.t_clean
    x = SCHEDULE.alpha(t) * (images + u / 8)[: min(count, 16)]
    # Solved to a tolerance that is far below all errors compared, with float64 inside too.
    wide = NetworkDenoiser(copy.deepcopy(network).double(), SCHEDULE)
    tight: dict[str, Any] = {"solver": "torchdiffeq", "rtol": 1e-6, "atol": 1e-6}
    exact = log_likelihood(wide, x.double(), t_end=t, trace="exact", **tight)
    own = exact.tolerance_error / x[0].numel()
    about = {"rtol = atol": 1e-6, "median": float(own.median()), "largest": float(own.max())}
    references = {**PLAIN, REFERENCE: reference}
    steps, probes = (8, 16, 32), (1, 2, 4, 8)
    found = equal_error(denoiser, x, exact.log_prob, t, steps, probes, 8, 3, references)
    return rows, found, about


def bits_row(what: str, end: str, bits: float, error: float, solver: float, took: float) -> Row:
    """One line of the table of bits per dimension."""
    costs = {"solver": solver, "seconds": round(took, 1)}
    return {"what": what, "clean end": end, "bits": bits, "standard error": error, **costs}


def markdown(rows: list[Row], columns: Sequence[str]) -> str:
    """A table."""
    write = lambda v: f"{v:.3g}" if isinstance(v, float) else str(v)
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(write(row[c]) for c in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def draw(tables: dict[str, list[Row]], path: Path) -> None:
    """Error against time, one panel a problem; a method has one colour in all of them."""
    from .figures import COLOURS, STYLE, NullFormatter, plt, save

    kind_of = lambda row: row["method"].rsplit(", ", 1)[0] if row["ours"] else row["method"]
    kinds = dict.fromkeys(kind_of(row) for rows in tables.values() for row in rows)
    plain = dict.fromkeys(kind.replace(REFERENCE, "") for kind in kinds)
    colours = dict(zip(plain, [*COLOURS, "black"], strict=False))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(tables), figsize=(4.6 * len(tables), 5.2), squeeze=False)
        drawn: dict[str, Any] = {}
        for axis, (title, rows) in zip(axes[0], tables.items(), strict=True):
            for kind in kinds:
                points = [row for row in rows if kind_of(row) == kind]
                if not points:
                    continue
                ours, told = points[0]["ours"], REFERENCE in kind
                (drawn[kind],) = axis.plot(
                    [row["seconds"] for row in points],
                    [row["rms"] for row in points],
                    ("o--" if told else "o-") if ours else "X",
                    color=colours[kind.replace(REFERENCE, "")],
                    markerfacecolor="white" if told else None,
                    markersize=4 if ours else 9,
                )
            axis.set(xscale="log", yscale="log", title=title, xlabel="seconds")
            axis.xaxis.set_minor_formatter(NullFormatter())
        axes[0][0].set_ylabel("RMS error of log p, nats a dimension")
        figure.tight_layout(rect=(0, 0.2, 1, 1))
        figure.legend(drawn.values(), drawn, loc="lower center", ncol=4, fontsize=7)
        save(figure, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser("python -m benchmarks.likelihood", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="few points, a short training")
    parser.add_argument("--only", choices=list(PARTS), help="one part; the others are kept")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output/likelihood"))
    parser.add_argument("--networks", type=Path, default=FOLDER, help="where the network is kept")
    asked = parser.parse_args(arguments)
    asked.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    about = where_and_when("benchmarks.likelihood")
    path = asked.output / "likelihood.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for part in PARTS if asked.only is None else (asked.only,):
        found = {**PARTS[part](asked.quick, asked.networks), "about": about}
        kept = json.loads(path.read_text()) if path.exists() else {}
        kept[part] = found
        write_atomic(path, json.dumps(kept, indent=1).encode())
    text = report(kept)
    print(text)
    write_atomic(asked.output / "likelihood.md", text.encode())
    if tables := tables_of(kept):
        draw(tables, asked.output / "likelihood.png")
    return 0


def mixtures_part(quick: bool, networks: Path) -> Row:
    """Equal error on closed-form mixtures."""
    schedule, tables = VPLinear(), {}
    for title, problem, n, few in (
        ("ring of 8, 2-D", problems.ring(), 256, 256),
        ("1/f spectra, 64-D", problems.spectrum_mixture(), 64, 4),
    ):
        x = problem.sample_marginal(
            n // 4 if quick else n, *schedule(EARLY), torch.Generator().manual_seed(0)
        )
        exact, denoiser = problem.log_prob(x, *schedule(EARLY)), problem.denoiser(schedule)
        steps = (8, 16) if quick else (6, 8, 12, 16, 24, 32)
        probes = [m for m in ((1, 4) if quick else (1, 2, 4, 8)) if m < x.shape[1]]
        log_likelihood(denoiser, x, steps=2, probes=4, seed=0)  # loads what is loaded once
        cost = (0, 1) if quick else (few, 3)
        tables[title] = equal_error(denoiser, x, exact, EARLY, steps, probes, *cost)
    return {"tables": tables}


def bars_part(quick: bool, networks: Path) -> Row:
    """How honest the error bars are."""
    return {"rows": error_bars(quick), "few": few_probes(quick)}


def digits_part(quick: bool, networks: Path) -> Row:
    """Bits per dimension of digits, and equal error on their network."""
    network = digits_network(quick, True, networks)
    bits, rows, truth = digits_bits(network, 8 if quick else 200)
    return {"bits": bits, "tables": {"digits network, 64-D": rows}, "truth": truth}


PARTS: dict[str, Callable[[bool, Path], Row]] = {
    "mixtures": mixtures_part,
    "bars": bars_part,
    "digits": digits_part,
}


def tables_of(kept: Row) -> dict[str, list[Row]]:
    """Rows at equal error by problem, of all parts."""
    return {k: v for part in kept.values() for k, v in part.get("tables", {}).items()}


def report(kept: Row) -> str:
    """All tables, each with where and when it was measured."""
    text = ["# Likelihoods\n"]
    columns: tuple[str, ...] = ("method", "rms", "median", "bias", "nfe", "vjp", "seconds")
    for title, rows in tables_of(kept).items():
        text += [f"## {title}: errors in nats a dimension, one pass over the points\n"]
        text += [markdown(rows, columns), "At equal error:\n"]
        pairs = ("peer", "ours", "rms", "network calls", "times faster")
        text += [markdown(at_equal_error(rows), pairs)]
    if "bars" in kept:
        columns = ("method", "problems x schedules", "samples", "within", "worst of them")
        columns = (*columns, "bar / error", "from", "to")
        text += ["## Exact densities within the stated 95 % error bar\n"]
        text += ["bar / error: median bar over median error; median and range of all cases\n"]
        text += [markdown(summary(kept["bars"]["rows"]), columns)]
        text += ["## The same at few probes\n", markdown(summary(kept["bars"]["few"]), columns)]
    if "digits" in kept:
        columns = ("what", "clean end", "bits", "standard error", "solver", "seconds")
        text += ["## Bits per dimension of held-out digits, 17 levels\n"]
        text += [markdown(kept["digits"]["bits"], columns)]
        truth = ", ".join(f"{k} {v:.2g}" for k, v in kept["digits"]["truth"].items())
        text += [f"Errors on the digits network are those to an adaptive solve; its own: {truth}\n"]
    for part, found in kept.items():
        text += [
            f"## Where and when: {part}\n",
            *(f"{k}: {v}  " for k, v in found["about"].items()),
        ]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    sys.exit(main())
