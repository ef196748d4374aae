r"""The denoising loss, for every prediction, every weight and every law of times.

A network is fitted to F* = p_t x_0 + q_t eps (the noise, the data, a velocity: see `units`), given
x_t = alpha_t x_0 + sigma_t eps,

    L = E [ w(lambda_t) (r_unit/r_own)^2 |F(x_t, t) - F*|^2 / D ],      t ~ law,

with D the number of coordinates. The second factor tells the network's error in the unit in
which the weight is stated; it is 1 where that unit is the network's own. Ho, Jain & Abbeel,
"Denoising diffusion probabilistic models", 2020, arXiv:2006.11239, eq. 14, is the noise prediction
with its own weight and uniform times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..denoise import NetworkDenoiser
from .batch import Batch, Losses
from .describe import describe_schedule, without_addresses
from .importance import BELOW_ONE, Importance
from .laws import Law, law_of
from .objective import Objective
from .units import error, scales, target
from .weightings import Weighting, weighting_of

_DIVIDES_BY_ALPHA = ("noise", "score", "edm")


class DiffusionObjective(Objective):
    """Weighted least squares on what the network predicts.

    Args:
        denoiser: the network to train and how to read it; its network must be a module.
        weighting: name or `Weighting`; "own": the plain squared error of what the network predicts.
        times: name or `Law` of the training times; None: uniform where times lie in [0, 1], else
            log-normal in sigma.
        drop: share of the samples whose context is withheld, for classifier-free guidance; in
            evaluation mode none is.
        low_discrepancy: the times of a batch are one in each of as many parts of equal probability,
            each of them still drawn from the law; False: they are independent.
        importance: "gradient", "loss" or `Importance`: draw more where that varies most, and weigh
            the loss so that its mean stays; None: draw from the law.

    Raises:
        TypeError: the network is no module.
        ValueError: a network with two outputs; an unknown name; a law without weight on the
            schedule; a weighting that is not finite where the law draws; a share outside [0, 1]; a
            prediction that says nothing of the data at an end of the schedule.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        *,
        weighting: str | Weighting = "own",
        times: str | Law | None = None,
        drop: float = 0.0,
        low_discrepancy: bool = True,
        importance: str | Importance | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(denoiser.network, nn.Module):
            raise TypeError(
                f"the network is a {type(denoiser.network).__name__}: to train, it must be a "
                "torch.nn.Module"
            )
        if denoiser.outputs == 2:
            raise ValueError(
                "the network has outputs=2, and this objective trains the first alone: take "
                "LearnedVarianceObjective(denoiser), which trains both, or build it with outputs=1"
            )
        if not 0 <= drop <= 1:
            raise ValueError(f"drop = {drop}: a share of the samples, from 0 to 1")
        self.denoiser, self.network = denoiser, denoiser.network
        self.drop, self.low_discrepancy = float(drop), bool(low_discrepancy)
        self.weighting = weighting_of(weighting)
        self.times = law_of(times, denoiser.schedule).on(denoiser.schedule)
        self.importance = Importance(importance) if isinstance(importance, str) else importance
        self._check()

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "prediction": self.denoiser.prediction,
            "schedule": describe_schedule(self.denoiser.schedule),
            "weighting": without_addresses(self.weighting),
            "times": without_addresses(self.times.law),
            "low_discrepancy": self.low_discrepancy,
            "importance": repr(self.importance),
            "drop": self.drop,
        }

    def forward(self, batch: Batch, generator: torch.Generator) -> Losses:
        check_clean(batch.x)
        count = len(batch.x)
        u, ratio = self._levels(count, generator), None
        if self.importance is not None:
            u, ratio = self.importance.draw(u)
        t = self.times.quantile(u)
        eps = torch.randn(batch.x.shape, generator=generator).to(batch.x)
        losses = self.at(batch, t, eps, withheld(self.drop * self.training, count, generator))
        if self.importance is None or ratio is None:
            return losses
        if self.training and torch.is_grad_enabled():
            self.importance.observe(u, losses.loss, self.coefficient(t))
        return losses._replace(loss=losses.loss * ratio.to(losses.loss))

    def after_step(self) -> None:
        if self.importance is not None:
            self.importance.update()

    def at(self, batch: Batch, t: Tensor, eps: Tensor, dropped: Tensor | None = None) -> Losses:
        """The losses at given times and noises.

        Args:
            batch: clean samples and their conditions.
            t: times, float64 on the CPU, shape (batch,).
            eps: standard normal noise, of the samples' shape and dtype.
            dropped: which samples go without their context, bool, shape (batch,); None: none.

        Raises:
            ValueError: shapes that do not fit.
        """
        (x_0, context), schedule = batch, self.denoiser.schedule
        if t.shape != x_0.shape[:1] or eps.shape != x_0.shape:
            raise ValueError(
                f"x_0 {tuple(x_0.shape)}, t {tuple(t.shape)}, eps {tuple(eps.shape)}: need one "
                f"time for each sample, t of shape {tuple(x_0.shape[:1])}, and eps of x_0's shape"
            )

        # Coefficients, in float64 on the host.
        p, q = target(self.denoiser.prediction, schedule, t, self.denoiser.sigma_data)
        coefficients = torch.stack([*scales(schedule, t), p, q])
        factors = torch.stack([self.coefficient(t), self.noise_factor(t)])

        # The loss, on the device.
        column = (-1,) + (1,) * (x_0.ndim - 1)
        alpha_t, sigma_t, p, q = coefficients.to(x_0).reshape(4, *column).unbind()
        x_t = alpha_t * x_0 + sigma_t * eps
        output, _, _ = conditioned(self.denoiser, context, dropped).output(x_t, t)
        wide = torch.promote_types(x_0.dtype, torch.float32)
        own = (output - (p * x_0 + q * eps)).to(wide).square().reshape(len(x_0), -1).mean(1)
        weight, noise = factors.to(own).unbind()
        lambda_ = torch.as_tensor(schedule.half_log_snr(t)).detach()
        return Losses(weight * own, lambda_, (noise * own).detach())

    def coefficient(self, t: Tensor) -> Tensor:
        """What multiplies the network's own squared error at times t, float64."""
        schedule, unit = self.denoiser.schedule, self.weighting.unit
        weight = self.weighting(torch.as_tensor(schedule.half_log_snr(t)))
        if unit == "nats":  # stated for lambda: the density of the times is divided out
            weight = weight / self.times.density(t)
        if unit in ("own", self.denoiser.prediction):
            return weight
        return weight * (self._error(unit, t) / self._error(self.denoiser.prediction, t)) ** 2

    def _error(self, unit: str, t: Tensor) -> Tensor:
        return error(unit, self.denoiser.schedule, t, self.denoiser.sigma_data)

    def noise_factor(self, t: Tensor) -> Tensor:
        """|eps - eps_hat|^2 / |F - F*|^2 at times t, float64."""
        if self.denoiser.prediction == "noise":
            return torch.ones_like(t)
        return (self._error("noise", t) / self._error(self.denoiser.prediction, t)) ** 2

    def _levels(self, count: int, generator: torch.Generator) -> Tensor:
        """u of the times, each uniform on [0, 1)."""
        if not self.low_discrepancy:
            return torch.rand(count, generator=generator, dtype=torch.float64)
        u = torch.rand((), generator=generator, dtype=torch.float64)
        return (u + torch.arange(count, dtype=torch.float64) / count) % 1

    def _check(self) -> None:
        """The loss is defined wherever the law draws."""
        schedule, prediction = self.denoiser.schedule, self.denoiser.prediction
        check_noisy_end(self.denoiser)
        ends = torch.tensor([0.0, BELOW_ONE], dtype=torch.float64)  # of what `_levels` draws
        u = torch.cat([(torch.arange(33, dtype=torch.float64) + 0.5) / 33, ends])
        t = self.times.quantile(u)
        weight = self.coefficient(t)
        wrong = ~(weight.isfinite() & (weight >= 0))
        if bool(wrong.any()):
            raise ValueError(
                f"{self.weighting!r} of {prediction} prediction is {float(weight[wrong][0]):g} at "
                f"t = {float(t[wrong][0]):g}, lambda = "
                f"{float(schedule.half_log_snr(float(t[wrong][0]))):g}: weights must be finite and "
                "not negative; state it in another unit, or narrow the schedule"
            )

    def extra_repr(self) -> str:
        return f"{self.denoiser.prediction}, {self.weighting!r}, {self.times!r}, drop={self.drop}"


def check_noisy_end(denoiser: NetworkDenoiser) -> None:
    """Raise ValueError if the prediction says nothing of the data at t_max."""
    schedule, prediction = denoiser.schedule, denoiser.prediction
    if prediction in _DIVIDES_BY_ALPHA and schedule.alpha(schedule.t_max) == 0:
        raise ValueError(
            f"{prediction} prediction says nothing of the data where alpha = 0, at t_max = "
            f"{schedule.t_max:g} of {schedule!r}: train a network that predicts the velocity "
            "or the data, or end the schedule before"
        )


def withheld(share: float, count: int, generator: torch.Generator) -> Tensor | None:
    """Which samples go without their context, bool, (count,); None: none. It always draws."""
    dropped = torch.rand(count, generator=generator) < share
    return dropped if share else None


def conditioned(
    denoiser: NetworkDenoiser, context: Tensor | None, dropped: Tensor | None
) -> NetworkDenoiser:
    """The denoiser, given what there is: nothing, the context, or which go without it too."""
    if context is None:
        return denoiser
    return denoiser.given(context, *([] if dropped is None else [dropped.to(context.device)]))


def check_clean(x_0: Tensor) -> None:
    """Raise unless x_0 is a batch of samples that noise can be added to."""
    if not x_0.is_floating_point():
        raise TypeError(
            f"x_0 has dtype {x_0.dtype}: noise is continuous; scale it to floating point, as in "
            "x_0.float() / 127.5 - 1 for bytes"
        )
    if x_0.ndim == 0 or len(x_0) == 0:
        raise ValueError(f"x_0 has shape {tuple(x_0.shape)}: give one sample or more along axis 0")
