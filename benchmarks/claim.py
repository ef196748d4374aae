"""The classical claim "DDIM wins below about 500 steps, DDPM above", asked of this run's numbers.

For each metric (lower is better) and number of evaluations, DDIM and DDPM were run from the same
starting noise, several times. The difference DDPM - DDIM is paired by repeat; a side wins where
the Student interval of the mean difference leaves out zero, at 95 % for all NFE of a curve
together (Bonferroni). A crossing is a change of sign of the mean difference between two
neighbouring NFE; it is resolved if DDIM wins somewhere on its left and DDPM somewhere on its right
(or the other way round), and not where both are within the noise floor between real sets. Every
sentence is made from these.

Song et al., "Denoising diffusion implicit models", 2021, arXiv:2010.02502, table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from scipy.stats import t as student

from .results import mean_and_spread

CLAIMED = 500
Repeats = dict[int, list[float]]


@dataclass(frozen=True)
class Comparison:
    """DDIM against DDPM at one NFE.

    Attributes:
        nfe: evaluations.
        ddim, ddpm: mean and standard deviation over repeats.
        difference: mean of DDPM - DDIM; positive: DDIM is better.
        margin: half of the interval of that mean; inf for one repeat.
        at_floor: both means are within two standard deviations of that between two real sets.
    """

    nfe: int
    ddim: tuple[float, float]
    ddpm: tuple[float, float]
    difference: float
    margin: float
    at_floor: bool

    @property
    def winner(self) -> str:
        """ "DDIM", "DDPM" or "" where the difference is within the spread."""
        if not abs(self.difference) > self.margin:
            return ""
        return "DDIM" if self.difference > 0 else "DDPM"


@dataclass(frozen=True)
class Crossing:
    """A change of the better side between two NFE, `at` by linear interpolation in log NFE."""

    low: int
    high: int
    at: float
    left: str
    resolved: bool


def compare(ddim: Repeats, ddpm: Repeats, floor: list[float]) -> list[Comparison]:
    """Both sides at every NFE that both have."""
    level, spread = mean_and_spread(floor)
    found = []
    shared = sorted(ddim.keys() & ddpm.keys())
    level_each = 1 - 0.025 / max(len(shared), 1)
    for nfe in shared:
        pairs = list(zip(ddim[nfe], ddpm[nfe], strict=False))
        difference, deviation = mean_and_spread([b - a for a, b in pairs])
        n = len(pairs)
        margin = math.inf
        if n > 1:
            margin = float(student.ppf(level_each, n - 1)) * deviation / math.sqrt(n)
        sides = [mean_and_spread([pair[i] for pair in pairs]) for i in (0, 1)]
        at_floor = all(mean <= level + 2 * spread for mean, _ in sides)
        found.append(Comparison(nfe, sides[0], sides[1], difference, margin, at_floor))
    return found


def crossings(comparisons: list[Comparison]) -> list[Crossing]:
    """Changes of sign of the mean difference."""
    found = []
    for i, (a, b) in enumerate(pairwise(comparisons)):
        if a.difference * b.difference < 0:
            share = a.difference / (a.difference - b.difference)
            at = math.exp(math.log(a.nfe) + share * math.log(b.nfe / a.nfe))
            left = "DDIM" if a.difference > 0 else "DDPM"
            right = "DDPM" if left == "DDIM" else "DDIM"
            clear = [(k, c.winner) for k, c in enumerate(comparisons) if not c.at_floor]
            resolved = any(side == left for k, side in clear if k <= i) and any(
                side == right for k, side in clear if k > i
            )
            found.append(Crossing(a.nfe, b.nfe, at, left, resolved))
    return found


def sentence(name: str, comparisons: list[Comparison]) -> str:
    """One metric and one variance in words, e.g. "...: DDIM better at NFE 5-50; ..."."""
    if not comparisons:
        return f"{name}: not measured."
    if all(math.isinf(c.margin) for c in comparisons):
        return f"{name}: one repeat only, so that the spread over seeds is unknown."
    words = {"DDIM": "DDIM better", "DDPM": "DDPM better", "": "no difference beyond the spread"}
    parts = [f"{words[side]} at NFE {span}" for side, span in _runs(comparisons)]
    marks = [c.nfe for c in comparisons if c.at_floor]
    if marks:
        listed = ", ".join(map(str, marks))
        parts.append(f"both within the noise floor at NFE {listed}")
    changes = crossings(comparisons)
    parts += [
        f"the means cross near NFE {c.at:.0f} ({c.low} to {c.high}, "
        f"{'resolved' if c.resolved else 'within the spread or the floor'})"
        for c in changes
    ]
    if not changes:
        parts.append("the means do not cross")
    return f"{name}: {'; '.join(parts)}."


def verdict(table: dict[str, list[Comparison]]) -> str:
    """The answer over all metrics and variances, in one or two sentences.

    Args:
        table: name of metric and variance -> its comparisons.
    """
    measured = {
        name: rows for name, rows in table.items() if any(math.isfinite(c.margin) for c in rows)
    }
    if not measured:
        return (
            "DDIM and DDPM were not both measured with two seeds or more, so this run says nothing "
            "about the claim."
        )
    found = [c for rows in measured.values() for c in crossings(rows) if c.left == "DDIM"]
    resolved = sorted(c.at for c in found if c.resolved)
    lows = [rows[0].nfe for rows in measured.values()]
    highs = [rows[-1].nfe for rows in measured.values()]
    span = f"NFE {min(lows)} to {max(highs)}"
    asked = f'The claim "DDIM wins below about {CLAIMED} steps, DDPM above"'
    count = f"{len(measured)} comparisons (metric and DDPM variance)"
    if not resolved:
        reach = "is not confirmed by this run"
        if max(highs) < CLAIMED:
            reach = f"is not settled by this run, which ends at NFE {max(highs)}"
        return (
            f"{asked} {reach}: in {count} over {span}, no crossing from DDIM to DDPM exceeds "
            f"the spread over seeds and the noise floor ({len(found)} within them). "
            f"{_edge(measured, max(highs))}"
        )
    near = [at for at in resolved if CLAIMED / 2 <= at <= 2 * CLAIMED]
    where = f"near NFE {resolved[0]:.0f}"
    if len(resolved) > 1:
        where = f"between NFE {resolved[0]:.0f} and {resolved[-1]:.0f}"
    if len(near) == len(resolved):
        judgement = f"{asked} agrees with this run"
    elif near:
        judgement = f"{asked} agrees with this run for {len(near)} of {len(resolved)} crossings"
    else:
        judgement = f"{asked} holds in kind but not in number in this run"
    return (
        f"{judgement}: in {len(resolved)} of {count} over {span}, DDIM is better first and DDPM "
        f"after, crossing {where}. {_edge(measured, max(highs))}"
    )


def _edge(measured: dict[str, list[Comparison]], nfe: int) -> str:
    """Who is better at the largest NFE."""
    last = [rows[-1] for rows in measured.values() if rows[-1].nfe == nfe]
    count = {side: sum(c.winner == side for c in last) for side in ("DDIM", "DDPM", "")}
    floor = sum(c.at_floor for c in last)
    return (
        f"At NFE {nfe}, of {len(last)} comparisons DDIM wins {count['DDIM']} and DDPM "
        f"{count['DDPM']}; {count['']} are within the spread over seeds, and in {floor} both are "
        "within the noise floor between real sets."
    )


def _runs(comparisons: list[Comparison]) -> list[tuple[str, str]]:
    """(winner, "5-50") for each stretch of one winner."""
    spans: list[tuple[str, list[int]]] = []
    for c in comparisons:
        if spans and spans[-1][0] == c.winner:
            spans[-1][1].append(c.nfe)
        else:
            spans.append((c.winner, [c.nfe]))
    return [(w, f"{n[0]} to {n[-1]}" if len(n) > 1 else f"{n[0]}") for w, n in spans]
