"""What a likelihood is: a number of nats for each sample, and how far it may be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import t as student
from torch import Tensor


@dataclass(frozen=True)
class Likelihood:
    """Log-densities of a batch along the probability flow; each field one a sample, float64.

    Attributes:
        log_prob: log p_t(x) in nats, t the clean end of the grid, (batch,).
        standard_error: of log_prob, from the spread of the probes: 0 for an exact trace, infinite
            with a single probe, whose spread nobody knows.
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

    def error_bar(self, level: float = 0.95) -> Tensor:
        """Half-width of an interval of this level: q standard_error + tolerance_error.

        q is the quantile of Student's t for the spread of so many probes.
        """
        if not 0 < level < 1:
            raise ValueError(f"level = {level} must lie in (0, 1)")
        if self.lanes == 1:
            return self.standard_error + self.tolerance_error
        q = float(student.ppf(0.5 + level / 2, self.lanes - 1))
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
    """The likelihoods of the parts of a batch as one."""
    if len(parts) == 1:
        return parts[0]
    return Likelihood(
        log_prob=torch.cat([part.log_prob for part in parts]),
        standard_error=torch.cat([part.standard_error for part in parts]),
        tolerance_error=torch.cat([part.tolerance_error for part in parts]),
        log_prior=torch.cat([part.log_prior for part in parts]),
        latents=torch.cat([part.latents for part in parts]),
        t=parts[0].t,
        lanes=parts[0].lanes,
        nfe=sum(part.nfe for part in parts),
        vjp=sum(part.vjp for part in parts),
    )
