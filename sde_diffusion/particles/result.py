"""What sequential Monte Carlo leaves: weighted samples, the evidence, and how it came to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..counts import check_count
from ..noise import seeds_of
from .resampling import systematic, uniform_draws


@dataclass(frozen=True)
class Population:
    """Weighted particles of independent populations.

    sum_k W_k f(x_k) estimates E[f(x_0) | y], consistently in the number K of particles;
    exp(log_evidence) estimates the normalising constant without bias.

    Attributes:
        x: the particles, (populations, K, *event).
        log_weights: log W of each, normalised in its population, (populations, K), float64.
        log_evidence: log of the estimated normalising constant, (populations,), float64.
        times: where particles were weighed, float64, (points,), noisy to clean.
        ess: effective sample size there, before resampling, (points, populations), float64.
        ancestors: of each particle, after the weighing at that point, which it was before,
            (points, populations, K), int64; itself where a population was not resampled.
        values: log potential (or reward) of each particle's own past at those points,
            (populations, K, points), float64.
    """

    x: Tensor
    log_weights: Tensor
    log_evidence: Tensor
    times: Tensor
    ess: Tensor
    ancestors: Tensor
    values: Tensor

    def expect(self, function: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """sum_k W_k f(x_k) in each population; of x itself by default.

        Args:
            function: (n, *event) -> (n, *shape).

        Returns:
            (populations, *shape).

        Raises:
            TypeError, ValueError: no function, or one whose answer has no row for each particle.
        """
        if not (function is None or callable(function)):
            raise TypeError(f"expect takes a function of particles (n, *event), not {function!r}")
        x = self.x if function is None else function(self.x.flatten(0, 1))
        n = self.log_weights.numel()
        if function is not None and not (isinstance(x, Tensor) and x.ndim and len(x) == n):
            given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"the function returned {given} for {n} particles; it must return a row for each, "
                f"shape ({n}, ...): sum over dimensions of the event alone, as x.flatten(1).sum(1)"
            )
        x = x.reshape(*self.log_weights.shape, *x.shape[2 if function is None else 1 :])
        weights = self.log_weights.exp().to(x)
        return torch.einsum("gk,gk...->g...", weights, x)

    def draw(self, n: int, seed: int | None = None) -> Tensor:
        """n equally weighted samples of each population, (populations, n, *event).

        Systematic resampling, in random order: of one population the samples are dependent, and
        with n near or above the effective sample size many are copies.

        Args:
            n: number of samples.
            seed: of the draw; None for one from the system.

        Raises:
            ValueError: if n is no positive integer.
        """
        check_count("n", n)
        uniforms = uniform_draws(seeds_of(seed, len(self.x)), stream=3)
        comb = systematic(self.log_weights, uniforms(n).to(self.log_weights))
        chosen = comb.gather(1, uniforms(n).to(comb.device).argsort(-1))
        groups = torch.arange(len(self.x), device=chosen.device)[:, None]
        return self.x[groups, chosen]

    @property
    def lineages(self) -> Tensor:
        """How many of the first particles have descendants among the last, (populations,)."""
        roots = torch.arange(self.x.shape[1], device=self.ancestors.device)
        roots = roots.expand(self.log_weights.shape)
        for ancestors in self.ancestors:
            roots = roots.gather(1, ancestors)
        alive = torch.zeros_like(roots).scatter(1, roots, 1)
        return alive.sum(1)
