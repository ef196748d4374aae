r"""A family's loss on a set of pairs, and what least squares needs of it.

With r_n the residual of sample n, v_n its weight, J_n = dr_n/dtheta and w_n = v_n rho'(|r_n|^2),

    L = mean_n v_n rho(|r_n|^2),     g = mean_n w_n J_n^T r_n,     H = mean_n w_n J_n^T J_n,

half the gradient of L and half its Gauss-Newton Hessian. The gradient is exact. So is H where a
residual has few components (one pull for each); elsewhere it is estimated by random signs s_n,

    E[(J_n^T s_n)(J_n^T s_n)^T] = J_n^T J_n,

one pull a sample whatever the sizes, so that its error, about sqrt(P/N) of H itself in every
direction, only changes how steps are taken (Hutchinson, "A stochastic estimator of the trace of the
influence matrix", 1990, has these signs).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..noise import noise_from
from .family import Family
from .loss import Loss, check_ends
from .pairs import Pairs
from .sensitivity import Path, differentiate, follow, pull, rate


@dataclass
class Objective:
    """The loss of a family's plans on pairs; the noise of a stochastic plan is drawn once.

    Attributes:
        family, denoiser, loss, pairs: of what, by what, on what.
        chunk: samples run at once.
        noise: seed of a stochastic plan's noise.
        probes: random signs a sample for H; residuals with no more components have H exactly.
    """

    family: Family
    denoiser: Denoiser
    loss: Loss
    pairs: Pairs
    chunk: int = 128
    noise: int = 0
    probes: int = 1

    def __post_init__(self) -> None:
        check_ends(self.loss, self.pairs)
        plan, like = self.family.plan(), self.pairs.starts
        draw = noise_from(self.noise).stream(like, plan.course) if plan.stochastic else None
        self._draws = [draw(torch.empty_like(like), t, s) for t, s in plan.noises] if draw else []

    def _chunks(self) -> Iterator[tuple[Pairs, list[Tensor]]]:
        for first in range(0, len(self.pairs), self.chunk):
            last = first + self.chunk
            yield self.pairs.part(first, last), [z[first:last] for z in self._draws]

    def value(self, numbers: Tensor) -> float:
        """L; infinite where there is no such plan, or it leaves the finite numbers."""
        try:
            plan = self.family.plan(numbers)
        except ValueError:
            return math.inf
        total = 0.0
        for part, draws in self._chunks():
            path = follow(plan, self.denoiser, part.starts, draws)
            total += float(self.loss.values(path.states, path.times, part).sum())
        return total / len(self.pairs) if math.isfinite(total) else math.inf

    def normal_equations(self, numbers: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """(g, H), (P,) and (P, P), float64.

        Args:
            numbers: (P,).
            seed: of the signs.
        """
        table = differentiate(self.family, numbers)
        signs = torch.Generator().manual_seed(seed)
        gradient = torch.zeros_like(numbers)
        hessian = torch.outer(gradient, gradient)
        for part, draws in self._chunks():
            path = follow(table.plan, self.denoiser, part.starts, draws)
            weights, states, times, share = self._seeds(path, part, signs, table.moving(path.rows))
            rows = pull(table, self.denoiser, path, states, times).cpu()
            gradient += rows[0].sum(0)
            others = rows[1:].flatten(0, 1)
            hessian += share * (others * weights).T @ others
        return gradient / len(self.pairs), hessian / len(self.pairs)

    def _seeds(
        self, path: Path, part: Pairs, signs: torch.Generator, free: list[int]
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """The weights for H, seeds as dS/dx and dS/dt (first w r, then those for H), 1/probes.

        dS/dt is found at the grid points whose times are free, from times within the plan's own:
        a teacher's path may end there.
        """
        with torch.inference_mode(False), torch.enable_grad():
            states = path.states.detach().clone().requires_grad_()
            times = path.times.clone().requires_grad_()
            r = self.loss.residual(states, times, part)
        residual = r.detach()
        weight = part.weighed(self.loss.weight(residual.double().square().sum(1)).cpu())
        exact = r.shape[1] <= self.probes
        if exact:
            probes = torch.eye(r.shape[1])[:, None].expand(-1, *r.shape)
        else:
            probes = 2.0 * torch.randint(0, 2, (self.probes, *r.shape), generator=signs) - 1
        seeds = torch.cat([(weight.to(residual)[:, None] * residual)[None], probes.to(residual)])
        pulled = [
            torch.autograd.grad(r, (states, times), seed, retain_graph=True, allow_unused=True)
            for seed in seeds
        ]
        moving = seeds.new_zeros(len(seeds), len(times), len(residual))
        if pulled[0][1] is not None:  # the residual looks at the times
            ends = float(path.times.min()), float(path.times.max())
            for g in free:
                slope = rate(
                    lambda t, g=g: self.loss.residual(path.states, _at(path.times, g, t), part),  # type: ignore[misc]
                    float(path.times[g]),
                    *ends,
                    digits=torch.finfo(residual.dtype).eps,
                )
                moving[:, g] = (seeds * slope).sum(2)
        weights = weight.repeat(len(probes))[:, None]
        share = 1.0 if exact else 1 / self.probes
        return weights, torch.stack([state for state, _ in pulled]), moving, share


def _at(times: Tensor, g: int, t: float) -> Tensor:
    """The times with t in place of the g-th."""
    moved = times.clone()
    moved[g] = t
    return moved
