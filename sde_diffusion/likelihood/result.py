r"""What a likelihood is: a number of nats for each sample, and how far it may be trusted.

Few probes can agree by accident: of a Jacobian with one pair of off-diagonal entries c, Rademacher
probes give the trace +- 2c, and m of them the same of these with probability 2^(1 - m). So the
squared standard error of a sample is no less than the mean of them over its batch. The error of
the mean of m lanes is then at most q of these, at the level 1 - a, with

    q = t_{m - 1},       Student's, for lanes near normal, or
    q = a^(-1/2),        Chebyshev's, for the batch as a whole and any law, if that is less (m = 2).

A batch below `BATCH` samples tells no mean. There q is that of the most skewed of lanes, chi^2 of
one degree of freedom: a Jacobian of rank one. Probes of signs may all miss what a quadratic form
has in a quarter of the cases (three coordinates, coupled alike), and no less than a quarter, for a
polynomial of degree 2 in signs that is not 0 is not 0 with a probability of 1/4 at least. So m of
them tell nothing there unless (3/4)^m <= a.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch
from scipy.special import stdtrit
from torch import Tensor

BATCH = 16  # samples whose mean squared standard error is known
_ALONE = 11  # lanes of signs without which fewer samples have none: (3/4)^11 < 5 %
_DRAWS = 200_000  # of the studentised error of a Jacobian of rank one


@dataclass(frozen=True)
class Likelihood:
    """Log-densities of a batch along the probability flow; each field one a sample, float64.

    Attributes:
        log_prob: log p_t(x) in nats, t the clean end of the grid, (batch,).
        standard_error: of log_prob, from the spread of the probes, its square no less than the
            mean over the batch: 0 for an exact trace, infinite with a single lane, and with fewer
            than 11 of signs on fewer than 16 samples, whose spread tells too little.
        tolerance_error: how far the solve with half the steps (or ten times the tolerances) is
            away, in its two parts, |change of log p_T(x_T)| + |change of the integral of the
            divergence|, but no less than the median of that over the batch. It estimates the
            error of the coarser solve, and so bounds this one's where the solver converges. It
            covers the discretisation of the flow; not the network's error, nor how far p_T is
            from the prior.
        log_prior: log p_T(x_T) as it entered.
        latents: x_T, (batch, *event).
        t: the time at which x was a state, the clean end of the grid.
        lanes: numbers in whose spread standard_error was found; 1 for an exact trace.
        signs: whether they are of probes of signs, which may agree by accident.
        nfe: network calls, of the coarser solve too.
        vjp: vector-Jacobian products, of a batch, likewise.
    """

    log_prob: Tensor
    standard_error: Tensor
    tolerance_error: Tensor
    log_prior: Tensor
    latents: Tensor
    t: float
    lanes: int
    nfe: int
    vjp: int
    signs: bool = False

    def error_bar(self, level: float = 0.95) -> Tensor:
        """Half-width of an interval of this level: q standard_error + tolerance_error.

        q is as the module says. The level is that of the share of a batch's samples that lie
        within. Of fewer than 16 samples the bar is infinite with fewer than log(1 - level)/log 3/4
        probes of signs ("rademacher", "hutch++"): 11 at 95 %, 17 at 99 %.
        """
        if not 0 < level < 1:
            raise ValueError(f"level = {level} must lie in (0, 1)")
        if self.lanes == 1:
            return self.standard_error + self.tolerance_error
        q = _quantile(self.lanes, self.signs, len(self.log_prob), level)
        if math.isinf(q):
            return torch.full_like(self.standard_error, q)
        return q * self.standard_error + self.tolerance_error

    @property
    def bits_per_dimension(self) -> Tensor:
        """-log_prob/(D log 2): of the continuous data x as it is, (batch,)."""
        return -self.log_prob / (math.prod(self.latents.shape[1:]) * math.log(2))

    @property
    def mean(self) -> float:
        """Mean of log_prob over the batch."""
        return float(self.log_prob.mean())

    @property
    def mean_standard_error(self) -> float:
        """Standard error of `mean` for samples drawn at random; needs two at least."""
        if len(self.log_prob) < 2:
            raise ValueError("one sample has no spread: give at least two")
        return float(self.log_prob.std()) / math.sqrt(len(self.log_prob))

    def __str__(self) -> str:
        shown = torch.stack([self.log_prob, self.standard_error, self.tolerance_error]).cpu()
        lines = [f"log p at t = {self.t:g}: {self.nfe} network calls, {self.vjp} products"]
        for value, error, tolerance in shown[:, :8].T.tolist():
            lines.append(f"{value:14.4f} nats +- {error:.2g} (probes) +- {tolerance:.2g} (solver)")
        if len(self.log_prob) > 8:
            lines.append(f"  ... {len(self.log_prob)} samples, mean {self.mean:.4f}")
        return "\n".join(lines)


def joined(parts: list[Likelihood]) -> Likelihood:
    """The likelihoods of the parts of a batch as one, its standard errors held to their mean."""
    each = lambda name: torch.cat([getattr(part, name) for part in parts])
    standard_error = each("standard_error")
    if len(standard_error) < BATCH and parts[0].signs and 1 < parts[0].lanes < _ALONE:
        standard_error = torch.full_like(standard_error, math.inf)
    return replace(
        parts[0],
        log_prob=each("log_prob"),
        standard_error=standard_error.clamp(min=float(standard_error.square().mean().sqrt())),
        tolerance_error=each("tolerance_error"),
        log_prior=each("log_prior"),
        latents=each("latents"),
        nfe=sum(part.nfe for part in parts),
        vjp=sum(part.vjp for part in parts),
    )


def _quantile(lanes: int, signs: bool, samples: int, level: float) -> float:
    """q at this level, of means of so many lanes; see the module."""
    if samples >= BATCH:
        return min(float(stdtrit(lanes - 1, 0.5 + level / 2)), (1 - level) ** -0.5)
    if signs and 0.75**lanes > 1 - level:
        return math.inf
    return float(_rank_one(lanes)[min(math.ceil(level * _DRAWS), _DRAWS) - 1])


@functools.cache
def _rank_one(lanes: int) -> Tensor:
    """Errors of means of chi^2_1 numbers in standard errors, sorted; the same draws every time."""
    z = torch.randn(_DRAWS, lanes, generator=torch.Generator().manual_seed(0)).square()
    return ((z.mean(1) - 1).abs() * math.sqrt(lanes) / z.std(1)).sort().values
