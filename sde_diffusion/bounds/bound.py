"""A bound on the negative log-likelihood, term by term."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

ROWS = 24  # of the printed table; more steps are gathered into as many groups


@dataclass(frozen=True)
class Term:
    """One term of a bound: its mean over the data, in nats for a whole sample.

    Attributes:
        name: "L_T" (prior), "L_t" (a step, or a part of an integral) or "L_0" (the data).
        t: the time it starts from; of L_T, at which the model's prior begins.
        s: the time it goes to; None for L_T, which goes nowhere, and for L_0, which goes to the
            data.
        nats: the mean over samples and noise.
        standard_error: of that mean, over samples; NaN for one sample.
    """

    name: str
    t: float
    s: float | None
    nats: float
    standard_error: float


@dataclass(frozen=True)
class Bound:
    """An upper bound on -log p(x_0), in nats: of each sample, of each term, and their mean.

    Attributes:
        per_sample: the bound of each sample, averaged over its draws of noise, nats, float64, (n,).
        terms: the means of L_T, of the steps from noisy to clean, and of L_0; they add up to
            `nats`.
        dimension: D, numbers in a sample.
        about: what was bounded, and how.
        discrete: whether p is a probability (data in bins) or a density.
    """

    per_sample: Tensor = field(repr=False)
    terms: tuple[Term, ...] = field(repr=False)
    dimension: int
    about: str = ""
    discrete: bool = False

    @property
    def nats(self) -> float:
        """The mean over samples, nats for a whole sample."""
        return float(self.per_sample.mean())

    @property
    def bits_per_dimension(self) -> float:
        """nats / (D log 2); of a density it goes with the scale of the data, down to below 0."""
        return self.nats / (self.dimension * math.log(2))

    @property
    def standard_error(self) -> float:
        """Of `nats`, from the spread of the samples (each has noise of its own); NaN for one."""
        return standard_error(self.per_sample)

    @property
    def prior(self) -> float:
        """L_T: what is left of the data at the noisy end."""
        return self._sum("L_T")

    @property
    def diffusion(self) -> float:
        """L_t: all steps between the two ends, or their integral."""
        return self._sum("L_t")

    @property
    def reconstruction(self) -> float:
        """L_0: the data from the cleanest state."""
        return self._sum("L_0")

    def _sum(self, name: str) -> float:
        return math.fsum(term.nats for term in self.terms if term.name == name)

    def __str__(self) -> str:
        unit = self.dimension * math.log(2)
        error = self.standard_error
        kind = "probability" if self.discrete else "density"
        lines = [
            self.about,
            f"-log {kind} <= {self.nats:.6g} +- {error:.2g} nats = {self.bits_per_dimension:.5g} "
            f"+- {error / unit:.2g} bits per dimension ({len(self.per_sample)} samples of "
            f"{self.dimension})",
            f"{'term':<9} {'from':>9} {'to':>9} {'nats':>11} {'+-':>8} {'bits/dim':>9}",
        ]
        for name, t, s, nats, spread in _rows(self.terms):
            to = f"{s:.5g}" if s is not None else "prior" if name == "L_T" else "data"
            lines.append(
                f"{name:<9} {t:>9.5g} {to:>9} {nats:>11.5g} {spread:>8} {nats / unit:>9.4g}"
            )
        return "\n".join(line for line in lines if line)


def _rows(terms: Sequence[Term]) -> list[tuple[str, float, float | None, float, str]]:
    """The table, with runs of steps gathered where there are many."""
    steps = [term for term in terms if term.name == "L_t"]
    size = math.ceil(len(steps) / ROWS)
    rows: list[tuple[str, float, float | None, float, str]] = []
    if size <= 1:
        return [(v.name, v.t, v.s, v.nats, f"{v.standard_error:.2g}") for v in terms]
    for term in terms:
        if term.name != "L_t":
            error = f"{term.standard_error:.2g}"
            rows.append((term.name, term.t, term.s, term.nats, error))
        elif term is steps[0]:
            for first in range(0, len(steps), size):
                part = steps[first : first + size]
                total = math.fsum(step.nats for step in part)
                rows.append((f"{len(part)} L_t", part[0].t, part[-1].s, total, ""))
    return rows


def term_of(name: str, t: float, s: float | None, values: Tensor) -> Term:
    """A term, from its value for each sample."""
    return Term(name, t, s, float(values.mean()), standard_error(values))


def standard_error(values: Tensor) -> float:
    """Standard deviation of the mean of independent values; NaN for one."""
    n = len(values)
    return math.sqrt(float(values.var()) / n) if n > 1 else math.nan
