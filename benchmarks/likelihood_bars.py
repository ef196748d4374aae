"""How honest the error bars of likelihoods are: exact densities of mixtures within what is stated.

Each row is one method on one problem and schedule: how many of the exact log-densities lie within
the 95 % bar, and how wide the bar is beside the error. `few_probes` has all traces at 2 to 8.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from sde_diffusion import EDM, FlowMatching, Schedule, VPCosine, VPLinear, log_likelihood, problems
from sde_diffusion.problem import Problem

Row = dict[str, Any]
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
FEW = (2, 3, 4, 6, 8)
TRACES = ("orthogonal", "rademacher", "gaussian", "hutch++")


def bar_row(
    title: str, problem: Problem, schedule: Schedule, method: str, n: int, options: dict[str, Any]
) -> Row:
    """One method on n points of one problem, the prior being the problem's own."""
    t = schedule.t_clean if schedule.sigma(schedule.t_min) == 0 else schedule.t_min
    x = problem.sample_marginal(n, *schedule(t), torch.Generator().manual_seed(0))
    exact, at_noise = problem.log_prob(x, *schedule(t)), schedule(schedule.t_max)
    law = lambda y: problem.log_prob(y, *at_noise)
    found = log_likelihood(problem.denoiser(schedule), x, seed=1, prior=law, **options)
    error, bar = (found.log_prob - exact).abs(), found.error_bar()
    return {
        "problem": title,
        "schedule": type(schedule).__name__,
        "method": method,
        "samples": n,
        "within": int((error <= bar).sum()),
        "median error": float(error.median()),
        "median bar": float(bar.median()) if bool(bar.isfinite().all()) else None,
    }


def error_bars(quick: bool) -> list[Row]:
    """Each method where it is held to its word."""
    schedules = [VPLinear(), EDM()] if quick else [VPLinear(), VPCosine(), EDM(), FlowMatching()]
    cases = {
        "two Gaussians, 1-D": problems.two_gaussians(),
        "ring of 8, 2-D": problems.ring(),
        "ring of 8, 8-D": problems.ring(dimension=8),
        "1/f spectra, 16-D": problems.spectrum_mixture(4, 16),
        "1/f spectra, 32-D": problems.spectrum_mixture(4, 32),
    }
    return [
        bar_row(title, problem, schedule, name, 20 if quick else 100, options)
        for title, problem in cases.items()
        for schedule in schedules
        for name, (options, least, most) in METHODS.items()
        if least <= problem.event_shape[0] <= most and not (quick and "scipy" in name)
    ]


def few_probes(quick: bool) -> list[Row]:
    """Every trace with few probes, of which Hutch++ needs 6 for a bar."""
    cases = {
        "ring of 8, 8-D": problems.ring(dimension=8),
        "ring of 8, 12-D": problems.ring(dimension=12),
        "1/f spectra, 16-D": problems.spectrum_mixture(4, 16),
        "1/f spectra, 32-D": problems.spectrum_mixture(4, 32),
    }
    return [
        bar_row(title, problem, schedule, f"{trace}, {m}", n, {"trace": trace, "probes": m})
        for title, problem in (list(cases.items())[:1] if quick else cases.items())
        for schedule in ((VPLinear(),) if quick else (VPLinear(), EDM()))
        for n in (20 if quick else 200,)
        for trace in TRACES
        for m in (FEW[:2] if quick else FEW)
        if m < problem.event_shape[0] and (trace != "hutch++" or m >= 6)
    ]


def summary(rows: list[Row]) -> list[Row]:
    """By method: cases within, of all problems and schedules, and how wide the bars are."""
    found = []
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        within, samples = (sum(row[k] for row in own) for k in ("within", "samples"))
        worst = min(own, key=lambda row: row["within"] / row["samples"])
        wide = lambda row: math.inf if row["median bar"] is None else row["median bar"]
        ratios = torch.tensor([wide(row) / row["median error"] for row in own])
        found.append(
            {
                "method": name,
                "problems x schedules": len(own),
                "samples": samples,
                "within": f"{100 * within / samples:.1f} %",
                "worst of them": f"{100 * worst['within'] / worst['samples']:.1f} %",
                "bar / error": float(ratios.median()),
                "from": float(ratios.min()),
                "to": float(ratios.max()),
            }
        )
    return found
