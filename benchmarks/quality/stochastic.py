"""Quality of stochastic samplers at 5, 10 and 20 network calls: ours and, with --peers, others'.

python -m benchmarks.quality.stochastic [--peers] [--model NAME ...] [--range NAME ...]
                                        [--output DIR]

A stochastic sampler has no end of its own to be compared with, only a law: sliced Wasserstein-2
between 8,192 samples, started from the exact law at the noisy end, and as many points of the data.
Every seed draws the starts, the noise and the points anew; figures are the mean over the seeds and
their standard deviation. The floor is the same distance between two sets of points.

Ours is one setting for all cells. Of each peer, and of ours once more, the setting of every cell is
the best of a screening with another seed on fewer samples, so that its figures are not the ones it
was chosen by; ours are screened as many as SA-Solver's, of the same orders, and lower the last
steps as it does (`lower_last`), without which order 3 is far from its best. Seeds are shared, so
that two samplers are compared on the same starts and points: `ahead` is the mean over the seeds of
the difference, with its standard error. Writes stochastic.json after every cell; a run replaces
only what it measured anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde_diffusion.files import write_atomic
from sde_diffusion.spacings import from_sigmas
from sde_diffusion.times import default

from ..about import version, where_and_when
from ..metrics import directions, sliced_wasserstein
from ..peers import _load_sampling
from . import grids, ours
from .models import PROBLEMS, SCHEDULES, TITLES, Case
from .peers import Network, discrete
from .peers import Setting as Peer
from .sweep import Setting

NFES = (5, 10, 20)
SAMPLES, SCREEN = 8192, 2048
SEEDS, SCREEN_SEED = (1, 2, 3, 4, 5), 0
DIRECTIONS, SCREEN_DIRECTIONS = 128, 64
MODELS = ("mixture", "digits", "uneven")  # the setting of ours was chosen on the first two, "edm"
OURS = ours.Rule(
    "sa_solver predictor=2 corrector=2 tau=0.4, default grid",
    "sa_solver",
    default,
    (("predictor", 2), ("corrector", 2), ("tau", 0.4)),
)
BEST = "ours, screened"
SAMPLERS = (OURS.peer, BEST, "SA-Solver", "2M-SDE", "3M-SDE")


def our_settings() -> Iterator[ours.Rule]:
    """`sa_solver` of the orders that SA-Solver is screened with, on four grids, with two tau."""
    through = lambda grid: (
        lambda schedule, n, t_start: from_sigmas(schedule, grid(float(schedule.rho(t_start)), n))
    )
    spacings: dict[str, Any] = {
        "default grid": default,
        "even in VP's time": through(grids.vp(1.0)),
        "even in phi": through(grids.flow(1.0)),
        "log from 0.01": through(grids.even(math.log, math.exp, 0.01)),
    }
    taus: dict[str, dict[str, Any]] = {
        "0.4": {"tau": 0.4},
        "1 where 0.05 < sigma < 1": {"tau": 1.0, "tau_range": (0.05, 1.0)},
    }
    for (way, grid), (tau, chosen), n in itertools.product(spacings.items(), taus.items(), (2, 3)):
        options = {"predictor": n, "corrector": n, "lower_last": True, **chosen}
        name = f"sa_solver orders {n}, tau {tau}, {way}"
        yield ours.Rule(name, "sa_solver", grid, tuple(options.items()), BEST)


def peer_settings() -> Iterator[Peer]:
    """SA-Solver of diffusers, 2M-SDE and 3M-SDE of k-diffusion, under their grids and options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers as D
    D.utils.logging.set_verbosity_error()
    spacings: dict[str, dict[str, Any]] = {
        "linspace": {"timestep_spacing": "linspace"},
        "trailing": {"timestep_spacing": "trailing"},
        **{w: {f"use_{w}_sigmas": True} for w in ("karras", "exponential")},
    }
    taus: dict[str, dict[str, Any]] = {"its own": {}, "0.4": {"tau_func": lambda t: 0.4}}
    for (way, spacing), (tau, chosen), n in itertools.product(
        spacings.items(), taus.items(), (2, 3)
    ):
        options = {"predictor_order": n, "corrector_order": n, **spacing, **chosen}
        name = f"SA-Solver orders {n}, tau {tau}, {way}"
        yield Peer("SA-Solver", name, discrete(D.SASolverScheduler, options, "vp"), fixed=True)

    K = _load_sampling()
    grids: dict[str, Any] = {
        "vp": lambda n, top: K.get_sigmas_vp(n, beta_d=2 * math.log1p(top**2) - 2 * 0.1),
        "karras from 0.01": lambda n, top: K.get_sigmas_karras(n, 0.01, top),
        "log from 0.01": lambda n, top: K.get_sigmas_exponential(n, 0.01, top),
        "log from 0.03": lambda n, top: K.get_sigmas_exponential(n, 0.03, top),
    }
    for (title, sample), (way, grid) in itertools.product(
        {"2M-SDE": K.sample_dpmpp_2m_sde, "3M-SDE": K.sample_dpmpp_3m_sde}.items(), grids.items()
    ):
        yield Peer(title, f"{title}, {way}", _k_diffusion(sample, grid), fixed=True)


def _k_diffusion(sample: Any, grid: Any) -> Any:
    def solve(network: Network, y: Tensor, top: float, steps: int) -> Tensor:
        sigmas = grid(steps, top).to(y.dtype)
        sigmas[0] = top
        model = lambda x, sigma: network(x, float(sigma[0]))
        noise = lambda *_: torch.randn_like(y)
        end: Tensor = sample(model, y, sigmas, disable=True, noise_sampler=noise)
        return end

    return solve


def draw(model: str, range_: str, seed: int, samples: int = SAMPLES) -> tuple[Case, float]:
    """Starts, with points of the data in the place of the ends, and the floor of this seed."""
    problem, (schedule, t) = PROBLEMS[model](), SCHEDULES[range_]
    alpha, sigma = (float(v) for v in schedule(t))
    generator = torch.Generator().manual_seed(seed)
    points, others = (
        problem.sample(samples, generator, torch.float32).reshape(samples, -1) for _ in range(2)
    )
    x = problem.sample_marginal(samples, alpha, sigma, generator, torch.float32)
    case = Case(model, range_, problem, x.reshape(samples, -1) / alpha, points)
    return case, sliced_wasserstein(points, others, directions(points.shape[1], DIRECTIONS))


def distance(case: Case, setting: Setting, nfe: int, seed: int, theta: Tensor) -> float:
    """Sliced Wasserstein-2 of one run to the points; infinite where the sampler fails."""
    torch.manual_seed(seed)
    try:
        y = setting.run(case, nfe, torch.float32)
    except (ValueError, RuntimeError, ArithmeticError, IndexError, AssertionError, TypeError):
        return math.inf  # a sampler that is singular on this grid is out of the running
    if y is None or not bool(torch.isfinite(y).all()):
        return math.inf
    return sliced_wasserstein(y, case.end, theta)


def compare(
    model: str,
    range_: str,
    groups: Mapping[str, Sequence[Setting]],
    samples: int = SAMPLES,
    screen: int = SCREEN,
) -> dict[str, Any]:
    """{"floor": figures, group: {NFE: figures}}: of each group, the best of the screening."""
    cases = {seed: draw(model, range_, seed, samples) for seed in SEEDS}
    small, _ = draw(model, range_, SCREEN_SEED, screen)
    dimension = small.end.shape[1]
    few, many = directions(dimension, SCREEN_DIRECTIONS), directions(dimension, DIRECTIONS)
    found: dict[str, Any] = {"floor": _figures([floor for _, floor in cases.values()])}
    for name, settings in groups.items():
        found[name] = {"settings": len(settings)}
        for nfe in NFES:
            scores = [
                distance(small, s, nfe, SCREEN_SEED, few) if len(settings) > 1 else 0.0
                for s in settings
            ]
            best = settings[scores.index(min(scores))]
            runs = [distance(case, best, nfe, seed, many) for seed, (case, _) in cases.items()]
            found[name][str(nfe)] = {"setting": best.name, **_figures(runs)}
    return found


def _figures(runs: list[float]) -> dict[str, Any]:
    spread = statistics.stdev(runs) if math.isfinite(sum(runs)) else math.inf
    return {"mean": statistics.fmean(runs), "spread": spread, "runs": runs}


def table(title: str, cell: dict[str, Any]) -> str:
    """Mean and spread over the seeds, one row a sampler; how far ours are ahead of SA-Solver."""
    floor = cell["floor"]
    rows = [
        f"{title:24s}" + "".join(f"{nfe:>18d}" for nfe in NFES),
        f"  {'floor':22s}{_pair(floor)}",
    ]
    for name in SAMPLERS:
        if name in cell:
            rows.append(f"  {name:22s}" + "".join(_pair(cell[name][str(nfe)]) for nfe in NFES))
    for name in (OURS.peer, BEST):
        if name in cell and "SA-Solver" in cell:
            gaps = (ahead(cell, name, "SA-Solver", nfe) for nfe in NFES)
            rows.append(
                f"  {name + ', ahead by':22s}" + "".join(f"{a:>10.4f}+-{e:.4f}" for a, e in gaps)
            )
    return "\n".join(rows)


def ahead(cell: dict[str, Any], name: str, other: str, nfe: int) -> tuple[float, float]:
    """How much nearer to the law than another sampler, seed by seed: mean and standard error."""
    runs = zip(cell[other][str(nfe)]["runs"], cell[name][str(nfe)]["runs"], strict=True)
    gaps = [theirs - ours for theirs, ours in runs]
    return statistics.fmean(gaps), statistics.stdev(gaps) / math.sqrt(len(gaps))


def _pair(figures: dict[str, Any]) -> str:
    return f"{figures['mean']:>10.4f}+-{figures['spread']:.4f}"


def _write(path: Path, name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The cell with what was measured anew, written into the file beside all else in it."""
    cells: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    cell: dict[str, Any] = cells.setdefault(name, {})
    cell |= found
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(cells, indent=1).encode())
    return cell


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print."""
    module = "benchmarks.quality.stochastic"
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=__doc__)
    parser.add_argument("--peers", action="store_true", help="measure the peers as well")
    parser.add_argument("--model", nargs="+", choices=list(PROBLEMS), default=list(MODELS))
    parser.add_argument("--range", nargs="+", choices=list(SCHEDULES), default=["edm", "vp"])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/quality"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    about = where_and_when(module)
    groups: dict[str, list[Setting]] = {OURS.peer: [OURS], BEST: list(our_settings())}
    for setting in peer_settings() if asked.peers else ():
        groups.setdefault(setting.peer, []).append(setting)
    if asked.peers:
        about["versions"] += "".join(f", {n} {version(n)}" for n in ("diffusers", "k-diffusion"))
    for range_, model in itertools.product(asked.range, asked.model):
        found = {"about": about, **compare(model, range_, groups)}
        cell = _write(asked.output / "stochastic.json", f"{model} {range_}", found)
        print(table(f"{TITLES[model]}, {range_}", cell), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
