r"""A schedule that is learned: lambda(t), monotone by construction.

Variance-preserving on t in [0, 1], alpha^2 = sigmoid(2 lambda), sigma^2 = sigmoid(-2 lambda), with

    lambda(t) = lambda_clean - (lambda_clean - lambda_noisy) s(t),
    s(t)      = (G(t) - G(0)) / (G(1) - G(0)),
    G(t)      = a t + sum_k c_k sigmoid(w_k (t - m_k)),        a, c_k, w_k > 0,

so that s rises from 0 to 1 whatever the weights are. This is the monotone network of Kingma et
al., "Variational diffusion models", 2021, arXiv:2107.00630, appendix, in one hidden layer; a, c_k
and w_k are softplus of what is trained. How it is trained: `training.LearnedScheduleObjective`.
"""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .scalar import Scalar
from .schedule import Schedule


class Curve(NamedTuple):
    """The weights of G: a of shape (), the others of shape (k,)."""

    a: Tensor
    c: Tensor
    w: Tensor
    m: Tensor

    def rise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(s, ds/dt) at t, in t's shape."""
        lowest, total = self._height(t.new_zeros(())), self._height(t.new_ones(()))
        gate = torch.sigmoid(self.w * (t[..., None] - self.m))
        slope = self.a + (self.c * self.w * gate * (1 - gate)).sum(-1)
        return (self._height(t) - lowest) / (total - lowest), slope / (total - lowest)

    def _height(self, t: Tensor) -> Tensor:
        return self.a * t + (self.c * torch.sigmoid(self.w * (t[..., None] - self.m))).sum(-1)


class Monotone(Schedule):
    """Variance-preserving, from a curve s(t) between two half-log-SNRs."""

    t_clean = 0.0

    @abstractmethod
    def rise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(s, ds/dt) at times t, float64."""

    @abstractmethod
    def ends(self) -> tuple[Tensor, Tensor]:
        """(lambda_clean, lambda_noisy), float64."""

    def curve(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(lambda, d lambda/dt) at times t, float64."""
        (clean, noisy), (s, slope) = self.ends(), self.rise(t)
        return clean + (noisy - clean) * s, (noisy - clean) * slope

    def half_log_snr(self, t: Scalar) -> Scalar:
        if not isinstance(t, Tensor):
            with torch.no_grad():
                return float(self.curve(torch.tensor(t, dtype=torch.float64))[0])
        return self.curve(t.double().cpu())[0].to(t)

    def alpha(self, t: Scalar) -> Scalar:
        return _root_sigmoid(self.half_log_snr(t))

    def sigma(self, t: Scalar) -> Scalar:
        return _root_sigmoid(-self.half_log_snr(t))

    def derivatives(self, t: Scalar) -> tuple[Scalar, Scalar]:
        """alpha' = alpha sigma^2 lambda', sigma' = -sigma alpha^2 lambda'."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and isinstance(t, Tensor)):
            u = torch.as_tensor(t, dtype=torch.float64).cpu()
            lambda_, slope = self.curve(u)
            alpha, sigma = (torch.sigmoid(2 * v).sqrt() for v in (lambda_, -lambda_))
            found = alpha * sigma**2 * slope, -sigma * alpha**2 * slope
        if isinstance(t, Tensor):
            return found[0].to(t), found[1].to(t)
        return float(found[0]), float(found[1])


class LearnedSchedule(Monotone, nn.Module):
    """A module whose weights are a schedule; even in lambda when new.

    Args:
        lambda_clean, lambda_noisy: half-log-SNRs at t = 0 and t = 1.
        width: k, the number of steps that the curve is made of.
        learn_ends: whether the two ends are trained too.

    Raises:
        ValueError: ends that are not finite or not in order, or no step.
    """

    def __init__(
        self,
        lambda_clean: float = 6.0,
        lambda_noisy: float = -5.0,
        width: int = 32,
        learn_ends: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        if not (-math.inf < lambda_noisy < lambda_clean < math.inf) or width < 1:
            raise ValueError(
                f"lambda_clean = {lambda_clean}, lambda_noisy = {lambda_noisy}, width = {width}: "
                "need finite ends, the clean one above the noisy one, and a step or more"
            )
        self.learn_ends = bool(learn_ends)
        both = torch.tensor([lambda_clean, lambda_noisy], dtype=torch.float64)
        self.both = nn.Parameter(both, requires_grad=self.learn_ends)
        self.a = nn.Parameter(_unsoftplus(torch.tensor(0.1, dtype=torch.float64)))
        centres = torch.linspace(-0.1, 1.1, width, dtype=torch.float64)  # no fall at the ends
        self.c = nn.Parameter(_unsoftplus(torch.full_like(centres, 1.2 / width)))
        self.w = nn.Parameter(_unsoftplus(torch.full_like(centres, 2 * width / 1.2)))
        self.m = nn.Parameter(centres)

    def weights(self) -> Curve:
        """The weights of the curve, with a graph to what is trained."""
        a, c, w = (nn.functional.softplus(v.double().cpu()) for v in (self.a, self.c, self.w))
        return Curve(a, c, w, self.m.double().cpu())

    def rise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.weights().rise(t)

    def ends(self) -> tuple[Tensor, Tensor]:
        clean, noisy = self.both.double().cpu().unbind()
        return clean, noisy

    @property
    def _lambda_range(self) -> tuple[float, float]:
        clean, noisy = self.both.tolist()  # never kept: they move
        return noisy, clean

    @property
    def _lambda_middle(self) -> float:
        return float(self.half_log_snr(0.5))

    def frozen(self) -> FrozenSchedule:
        """What it is now, as an ordinary schedule that moves no more."""
        clean, noisy = self.both.tolist()
        a, c, w, m = (v.detach() for v in self.weights())
        return FrozenSchedule(
            clean, noisy, float(a), tuple(c.tolist()), tuple(w.tolist()), tuple(m.tolist())
        )

    def __repr__(self) -> str:
        return repr(self.frozen()).replace("FrozenSchedule", "LearnedSchedule")


@dataclass(frozen=True, repr=False)
class FrozenSchedule(Monotone):
    """A learned schedule after its training: plain numbers.

    Args:
        lambda_clean, lambda_noisy: half-log-SNRs at t = 0 and t = 1.
        slope: a > 0.
        heights, rates, centres: c_k > 0, w_k > 0 and m_k, equally many.

    Raises:
        ValueError: numbers that give no falling curve.
    """

    lambda_clean: float
    lambda_noisy: float
    slope: float
    heights: tuple[float, ...]
    rates: tuple[float, ...]
    centres: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("heights", "rates", "centres"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if not len(self.heights) == len(self.rates) == len(self.centres):
            raise ValueError(
                f"{len(self.heights)} heights, {len(self.rates)} rates and {len(self.centres)} "
                "centres: one of each for every step of the curve"
            )
        self.check()

    def rise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rows = (self.slope, self.heights, self.rates, self.centres)
        return Curve(*(torch.tensor(row, dtype=torch.float64) for row in rows)).rise(t)

    def ends(self) -> tuple[Tensor, Tensor]:
        both = torch.tensor([self.lambda_clean, self.lambda_noisy], dtype=torch.float64)
        return both[0], both[1]

    def __repr__(self) -> str:
        numbers = (self.slope, *self.heights, *self.rates, *self.centres)
        check = zlib.crc32(" ".join(map(repr, numbers)).encode())
        return (
            f"FrozenSchedule(lambda_clean={self.lambda_clean:.6g}, "
            f"lambda_noisy={self.lambda_noisy:.6g}, crc32={check:08x})"
        )


class Squared(Monotone):
    """A learned schedule on one batch: its weights receive the gradient of the squared losses.

    With one loss L_i a sample, whose mean is minimised, d L_i^2 = 2 L_i d L_i: the gradient that
    arrives at s and s' of sample i is multiplied by 2 L_i on its way to the weights of the curve.
    The ends, which are not behind s, receive the gradient of the mean.

    Attributes:
        losses: of the samples, detached, shape (batch,); to be set before the gradient is taken.
    """

    losses: Tensor | None = None

    def __init__(self, schedule: LearnedSchedule) -> None:
        self.schedule = schedule
        self._known: tuple[Tensor, tuple[Tensor, Tensor]] | None = None

    def rise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if self._known is not None and self._known[0] is t:  # one batch asks many times
            return self._known[1]
        s, slope = self.schedule.rise(t)
        for value in (s, slope):
            if value.requires_grad:
                value.register_hook(self._square)
        self._known = t, (s, slope)
        return s, slope

    def ends(self) -> tuple[Tensor, Tensor]:
        return self.schedule.ends()

    def _square(self, gradient: Tensor) -> Tensor:
        assert self.losses is not None
        return 2 * self.losses.to(gradient) * gradient


def _root_sigmoid(lambda_: Scalar) -> Scalar:
    """sqrt(sigmoid(2 lambda)), alpha at lambda and sigma at -lambda."""
    if isinstance(lambda_, Tensor):
        return torch.sigmoid(2 * lambda_).sqrt()
    return math.sqrt(0.5 * (1 + math.tanh(lambda_)))


def _unsoftplus(y: Tensor) -> Tensor:
    """The inverse of softplus."""
    return y + torch.log(-torch.expm1(-y))
