"""Likelihoods: time and network calls at equal error, how honest the error bars are, and digits.

python -m benchmarks.likelihood [--quick] [--only PART] [--output DIR] [--networks DIR]

Three tables. Equal error: log p_t of points of closed-form mixtures by `log_likelihood`, by
score_sde's algorithm (RK45, one probe) and by flow_matching's (exact divergence), against the exact
density; processor time of one thread (that of exact traces is measured on some of the points and
multiplied). Error bars: how many of the exact densities lie within the
stated 95 % bar, by method, problem and schedule. Digits: bits per dimension of held-out digits by
the variational bound and by the flow, and the same comparison with score_sde's algorithm.
Writes likelihood.json, likelihood.md and likelihood.png.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import (
    EDM,
    Bins,
    Denoiser,
    FlowMatching,
    GaussianReference,
    NetworkDenoiser,
    VPCosine,
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
from .model import FOLDER, SCHEDULE, digits_network

Row = dict[str, Any]
EARLY = 1e-5  # where score_sde's code starts
PEERS: dict[str, Callable[..., peers.Found]] = {
    "score_sde, RK45 1e-5, one Rademacher probe": peers.score_sde,
    "score_sde, RK45 1e-3, one Rademacher probe": partial(peers.score_sde, tol=1e-3),
    "score_sde, RK45 1e-5, one Gaussian probe": partial(peers.score_sde, probe="gaussian"),
}
EXACT_PEER = "flow_matching, dopri5 1e-5, exact divergence"


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
    reference: GaussianReference | float = 1.0,
) -> list[Row]:
    """Ours at several numbers of steps and probes, and the peers, on the same points."""
    dimension, rows = math.prod(x.shape[1:]), []
    error = lambda log_prob: (log_prob - exact[: len(log_prob)]) / dimension
    for name, peer in PEERS.items():
        found = [timed(partial(peer, denoiser, x, t, s)) for s in range(seeds)]
        seconds, nfe = sum(took for _, took in found), found[0][0].nfe
        rows.append(
            row_of(name, False, [error(f.log_prob) for f, _ in found], nfe, nfe // 2, seconds)
        )
    if exact_points:
        few = x[:exact_points]
        peer_found, seconds = timed(partial(peers.flow_matching, denoiser, few, t))
        cost = (peer_found.nfe, dimension * peer_found.nfe, seconds * len(x) / len(few))
        rows.append(row_of(EXACT_PEER, False, [error(peer_found.log_prob)], *cost))
        exactly = partial(log_likelihood, denoiser, few, t_end=t, trace="exact")
        for n in (32, 64) if max(probes) < dimension else ():
            ask = partial(exactly, steps=n, tolerance_error=False, reference=reference)
            traced, seconds = timed(ask)
            cost = (traced.nfe, traced.vjp, seconds * len(x) / len(few))
            rows.append(row_of(f"exact trace, {n} steps", True, [error(traced.log_prob)], *cost))
    for m in probes:
        for n in steps:
            kind = "exact trace" if m >= dimension else f"{m} orthogonal probe{'s' * (m > 1)}"
            options: dict[str, Any] = {"steps": n, "t_end": t, "probes": m, "reference": reference}
            solve = partial(log_likelihood, denoiser, x, tolerance_error=False, **options)
            own = [timed(partial(solve, seed=s)) for s in range(1 if m >= dimension else seeds)]
            first, seconds = own[0][0], sum(took for _, took in own)
            errors = [error(f.log_prob) for f, _ in own]
            rows.append(row_of(f"{kind}, {n} steps", True, errors, first.nfe, first.vjp, seconds))
    return rows


def at_equal_error(rows: list[Row]) -> list[Row]:
    """For each peer our cheapest row whose errors (RMS) are no larger."""
    pairs = []
    for peer in (row for row in rows if not row["ours"]):
        able = [row for row in rows if row["ours"] and row["rms"] <= peer["rms"]]
        if able:
            best = min(able, key=lambda row: row["seconds"])
            pairs.append(
                {
                    "peer": peer["method"],
                    "ours": best["method"],
                    "rms": f"{best['rms']:.3g} against {peer['rms']:.3g}",
                    "network calls": f"{best['nfe']} against {peer['nfe']}",
                    "times faster": round(peer["seconds"] / max(best["seconds"], 1e-9), 1),
                }
            )
    return pairs


METHODS: dict[str, tuple[dict[str, Any], int, int]] = {
    "default, exact trace": ({"trace": "exact"}, 0, 64),
    "heun, exact trace": ({"trace": "exact", "solver": "heun", "steps": 60}, 0, 8),
    "per_sample_ode, exact trace": ({"trace": "exact", "solver": "per_sample_ode"}, 0, 8),
    "scipy RK45, exact trace": ({"trace": "exact", "solver": "scipy"}, 0, 8),
    "torchdiffeq dopri5, exact trace": ({"trace": "exact", "solver": "torchdiffeq"}, 0, 8),
    "default, 8 orthogonal probes": ({"probes": 8}, 16, 64),
    "default, 12 Rademacher probes": ({"trace": "rademacher", "probes": 12}, 16, 64),
    "default, 16 Gaussian probes": ({"trace": "gaussian", "probes": 16}, 32, 64),
    "default, Hutch++ with 24 products": ({"trace": "hutch++", "probes": 24}, 32, 64),
}
"""Options, and the least and largest dimension at which each is held to its word."""


def error_bars(quick: bool) -> list[Row]:
    """One row for each method, problem and schedule."""
    schedules = [VPLinear(), EDM()] if quick else [VPLinear(), VPCosine(), EDM(), FlowMatching()]
    cases = {
        "two Gaussians, 1-D": (problems.two_gaussians(), 100),
        "ring of 8, 2-D": (problems.ring(), 100),
        "ring of 8, 8-D": (problems.ring(dimension=8), 100),
        "1/f spectra, 16-D": (problems.spectrum_mixture(4, 16), 100),
        "1/f spectra, 32-D": (problems.spectrum_mixture(4, 32), 100),
    }
    rows = []
    for title, (problem, count) in cases.items():
        for schedule in schedules:
            t = schedule.t_clean if schedule.sigma(schedule.t_min) == 0 else schedule.t_min
            n = count // 5 if quick else count
            x = problem.sample_marginal(n, *schedule(t), torch.Generator().manual_seed(0))
            exact = problem.log_prob(x, *schedule(t))
            at_noise = schedule(schedule.t_max)
            for name, (options, least, most) in METHODS.items():
                dimension = x.shape[1]
                if not least <= dimension <= most or (quick and "scipy" in name):
                    continue
                law = lambda y, p=problem, s=at_noise: p.log_prob(y, *s)
                found = log_likelihood(problem.denoiser(schedule), x, seed=1, prior=law, **options)
                error = (found.log_prob - exact).abs()
                rows.append(
                    {
                        "problem": title,
                        "schedule": type(schedule).__name__,
                        "method": name,
                        "samples": n,
                        "within": int((error <= found.error_bar()).sum()),
                        "median error": float(error.median()),
                        "median bar": float(found.error_bar().median()),
                    }
                )
    return rows


def digits_bits(network: torch.nn.Module, count: int) -> tuple[list[Row], list[Row]]:
    """(bits per dimension of held-out digits by bound and flow, the comparison at equal error)."""
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
    x = SCHEDULE.alpha(t) * (images + u / 8)[: min(count, 32)]
    exact = log_likelihood(
        denoiser, x, steps=100, t_end=t, trace="exact", tolerance_error=False, reference=reference
    ).log_prob
    steps = (8, 16, 32)
    return rows, equal_error(denoiser, x, exact, t, steps, (1, 2, 4, 8), 8, 3, reference)


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


def summary(rows: list[Row]) -> list[Row]:
    """Error bars by method: cases within, of all problems and schedules."""
    found = []
    for name in METHODS:
        own = [row for row in rows if row["method"] == name]
        if own:
            within, samples = (sum(row[k] for row in own) for k in ("within", "samples"))
            share = f"{100 * within / samples:.1f} %"
            worst = min(row["within"] / row["samples"] for row in own)
            found.append(
                {
                    "method": name,
                    "problems x schedules": len(own),
                    "samples": samples,
                    "within": share,
                    "worst of them": f"{100 * worst:.1f} %",
                }
            )
    return found


def draw(tables: dict[str, list[Row]], path: Path) -> None:
    """Error against time, one panel a problem."""
    from .figures import COLOURS, STYLE, NullFormatter, plt, save

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(tables), figsize=(4.6 * len(tables), 4.2), squeeze=False)
        for axis, (title, rows) in zip(axes[0], tables.items(), strict=True):
            kinds: dict[str, list[Row]] = {}
            for row in rows:
                kind = row["method"].rsplit(", ", 1)[0] if row["ours"] else row["method"]
                kinds.setdefault(kind, []).append(row)
            for i, (kind, points) in enumerate(kinds.items()):
                ours = points[0]["ours"]
                axis.plot(
                    [row["seconds"] for row in points],
                    [row["rms"] for row in points],
                    "o-" if ours else "X",
                    color=COLOURS[i % len(COLOURS)],
                    label=kind,
                    markersize=4 if ours else 9,
                )
            axis.set(xscale="log", yscale="log", title=title, xlabel="seconds")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.legend(fontsize=6.5)
        axes[0][0].set_ylabel("RMS error of log p, nats a dimension")
        figure.tight_layout()
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
        ("ring of 8, 2-D", problems.ring(), 256, 32),
        ("1/f spectra, 64-D", problems.spectrum_mixture(), 64, 4),
    ):
        x = problem.sample_marginal(
            n // 4 if quick else n, *schedule(EARLY), torch.Generator().manual_seed(0)
        )
        exact, denoiser = problem.log_prob(x, *schedule(EARLY)), problem.denoiser(schedule)
        steps = (8, 16) if quick else (6, 8, 12, 16, 24, 32)
        probes = [m for m in ((1, 4) if quick else (1, 2, 4, 8)) if m <= x.shape[1]]
        log_likelihood(denoiser, x, steps=2, probes=4, seed=0)  # loads what is loaded once
        cost = (0, 1) if quick else (few, 3)
        tables[title] = equal_error(denoiser, x, exact, EARLY, steps, probes, *cost)
    return {"tables": tables}


def bars_part(quick: bool, networks: Path) -> Row:
    """How honest the error bars are."""
    return {"rows": error_bars(quick)}


def digits_part(quick: bool, networks: Path) -> Row:
    """Bits per dimension of digits, and equal error on their network."""
    network = digits_network(quick, True, networks)
    bits, rows = digits_bits(network, 40 if quick else 200)
    return {"bits": bits, "tables": {"digits network, 64-D": rows}}


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
        text += ["## Exact densities within the stated 95 % error bar\n"]
        text += [markdown(summary(kept["bars"]["rows"]), columns)]
    if "digits" in kept:
        columns = ("what", "clean end", "bits", "standard error", "solver", "seconds")
        text += ["## Bits per dimension of held-out digits, 17 levels\n"]
        text += [markdown(kept["digits"]["bits"], columns)]
    for part, found in kept.items():
        text += [
            f"## Where and when: {part}\n",
            *(f"{k}: {v}  " for k, v in found["about"].items()),
        ]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    sys.exit(main())
