"""The bookkeeping of particles: weights, evidence, resampling, and the record of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..plan import Plan
from ..states import double
from .guide import Guide
from .resampling import Scheme, effective_sample_size, uniform_draws
from .result import Population


class Weights:
    """Log weights of populations, float64, as a run goes on; nothing is read from the device.

    Args:
        guide: whose `log_potential` weighs.
        scheme: of resampling.
        threshold: part of K below which the effective sample size leads to resampling.
        seeds: one a population.
        start: the first states, (populations, K, *event).
    """

    def __init__(
        self, guide: Guide, scheme: Scheme, threshold: float, seeds: Sequence[int], start: Tensor
    ) -> None:
        self.guide, self.scheme, self.threshold = guide, scheme, threshold
        self.uniforms = uniform_draws(seeds, stream=2)
        self.shape = start.shape[:2]
        zeros = double(torch.zeros(self.shape, device=start.device))
        self.log_weights = zeros.log_softmax(1)
        self.log_evidence = zeros[:, 0]
        self.log_psi, self.owed = zeros, zeros  # the last potential; corrections since it
        self.values = zeros[..., None][..., :0]
        self.times: list[float] = []
        self.ess: list[Tensor] = []
        self.ancestors: list[Tensor] = []
        self.gains: list[Tensor] = []
        self.sound: list[Tensor] = []  # whether all potentials at a point were finite

    def correct(self, log_ratio: Tensor) -> None:
        """Add the log ratio of model to proposal, given by coordinate, (n, *event)."""
        self.owed = self.owed + double(log_ratio).flatten(1).sum(1).reshape(self.shape)

    def weigh(self, t: float, value: Tensor) -> Tensor:
        """Weigh by the potential of values (n,), resample: who goes on, flat, (n,)."""
        self._keep(value)
        self._gain(t, self.guide.log_potential(self.values))
        self.sound.append(torch.isfinite(self.log_psi).all())
        groups, k = self.shape
        ess = self.ess[-1]
        drawn = self.scheme(self.log_weights, self.uniforms(k).to(self.log_weights))
        same = torch.arange(k, device=drawn.device).expand(groups, k)
        low = (ess < self.threshold * k)[:, None]
        chosen = torch.where(low, drawn, same)
        self.log_weights = torch.where(
            low, torch.zeros_like(self.log_weights).log_softmax(1), self.log_weights
        )
        self.log_psi = self.log_psi.gather(1, chosen)
        self.values = self.values.gather(1, chosen[..., None].expand_as(self.values))
        self.ancestors.append(chosen)
        return (chosen + k * torch.arange(groups, device=chosen.device)[:, None]).flatten()

    def finish(self, t: float, value: Tensor) -> None:
        """Weigh by log psi(x_0), (n,)."""
        self._keep(value)
        self._gain(t, self.values[..., -1])
        last = self.values[..., -1]
        self.sound.append(~(last.isnan() | (last == torch.inf)).any())
        same = torch.arange(self.shape[1], device=last.device).expand(self.shape)
        self.ancestors.append(same)

    def population(self, plan: Plan, x: Tensor) -> Population:
        """The result; FloatingPointError if a weight was not a number."""
        self._check(plan)
        return Population(
            x.unflatten(0, self.shape),
            self.log_weights,
            self.log_evidence,
            torch.tensor(self.times, dtype=torch.float64),
            torch.stack(self.ess),
            torch.stack(self.ancestors),
            self.values,
        )

    def _keep(self, value: Tensor) -> None:
        value = double(value).reshape(*self.shape, 1)
        self.values = torch.cat([self.values, value], -1)

    def _gain(self, t: float, log_psi: Tensor) -> None:
        """W <- W e^g / sum W e^g, Z_hat <- Z_hat sum W e^g."""
        joint = self.log_weights + self.owed + log_psi - self.log_psi
        gain = joint.logsumexp(1)
        self.log_weights = joint - gain[:, None]
        self.log_evidence = self.log_evidence + gain
        self.log_psi, self.owed = log_psi, torch.zeros_like(self.owed)
        self.times.append(t)
        self.gains.append(gain)
        self.ess.append(effective_sample_size(self.log_weights))

    def _check(self, plan: Plan) -> None:
        sound, gains = torch.stack(self.sound).cpu(), torch.stack(self.gains).cpu()
        good = sound & torch.isfinite(gains).all(1)
        if bool(good.all()):
            return
        point = int(good.long().argmin())
        last = point == len(good) - 1
        where = f"t = {self.times[point]:.6g}, weighing {point + 1} of {len(good)}"
        if not sound[point]:
            what, cure = (
                ("is NaN or +inf", "look at what it returns there")
                if last
                else (
                    "is not finite",
                    "before the end it must be; a reward of -inf may be asked at the end alone, "
                    "at=[], and NaN or +inf is an error of the function that returned it",
                )
            )
            what = f"a log potential (likelihood, reward) {what}"
        else:
            group = int((~torch.isfinite(gains[point])).long().argmax())
            what = f"all particles of population {group} have weight zero"
            cure = "more particles, or a target that is less sharp"
        raise FloatingPointError(f"{plan.name}: at {where}, {what}: {cure}")
