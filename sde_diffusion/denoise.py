r"""Denoisers: one network, whatever it predicts, seen as x_0, noise, velocity or score.

With x = alpha x_0 + sigma eps, every prediction F of a network is an affine view of the same
conditional mean d = E[x_0 | x]:

    prediction   F estimates                   d =
    "data"       x_0                           F
    "noise"      eps                           (x - sigma F) / alpha
    "velocity"   alpha eps - sigma x_0         (alpha x - sigma F) / (alpha^2 + sigma^2)
    "flow"       alpha' x_0 + sigma' eps       (sigma' x - sigma F) / (alpha sigma' - sigma alpha')
    "score"      grad log p_t                  (x + sigma^2 F) / alpha
    "edm"        see Karras et al. 2022        c_skip x/alpha + c_out F(c_in x/alpha)

Velocity: Salimans & Ho, "Progressive distillation", 2022, arXiv:2202.00512, section 4. Flow:
Lipman et al. 2023, arXiv:2210.02747. Score: Tweedie's formula, Efron 2011. EDM: Karras et al.
2022, arXiv:2206.00364, eq. 7 and table 1.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .answers import comes_from, unseen, wrong_output
from .conditions import check_bound, check_devices, samples_of, select_conditions
from .names import look_up
from .predictions import AFFINE, check_defined, label_of, outputs_of
from .scalar import Scalar
from .schedule import Schedule
from .states import along, double


class Call(NamedTuple):
    """The denoiser at one time, prepared for a loop: d = scale * function(x, out).

    Attributes:
        function: (x, out) -> tensor of x's shape. It may write its answer into `out`, a buffer of
            x's shape, or return a tensor of its own and leave `out` alone; with None it must.
        scale: a factor that the loop multiplies into its coefficients.
        writes: whether it makes use of `out`.
    """

    function: Callable[[Tensor, Tensor | None], Tensor]
    scale: float = 1.0
    writes: bool = False


def plain_call(function: Callable[[Tensor, Scalar], Tensor], t: Scalar) -> Call:
    """A function (x, t) -> E[x_0 | x_t = x] at one time."""
    return Call(lambda x, out: function(x, t))


class Denoiser(ABC):
    """E[x_0 | x_t] as a function of (x, t); everything else about the process follows from it.

    Attributes:
        schedule: the alpha_t, sigma_t for which it is meant.
        asks: whether an answer costs a call of a network.
    """

    schedule: Schedule
    asks: bool = True

    @abstractmethod
    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        """d = E[x_0 | x_t = x].

        Args:
            x: states, shape (batch, *event).
            t: time, a float, a 0-d tensor, or one time a sample, shape (batch,).
        """

    def noise(self, x: Tensor, t: Scalar) -> Tensor:
        """E[eps | x_t = x] = (x - alpha_t d) / sigma_t; sigma_t > 0."""
        alpha_t, sigma_t = (along(c, x) for c in self.schedule(t))
        return (x - alpha_t * self(x, t)) / sigma_t

    def score(self, x: Tensor, t: Scalar) -> Tensor:
        """grad log p_t(x) = (alpha_t d - x) / sigma_t^2; sigma_t > 0."""
        alpha_t, sigma_t = (along(c, x) for c in self.schedule(t))
        return (alpha_t * self(x, t) - x) / sigma_t**2

    def velocity(self, x: Tensor, t: Scalar) -> Tensor:
        """v = alpha_t E[eps | x] - sigma_t E[x_0 | x] (Salimans & Ho 2022); sigma_t > 0."""
        alpha_t, sigma_t = (along(c, x) for c in self.schedule(t))
        d = self(x, t)
        return alpha_t * (x - alpha_t * d) / sigma_t - sigma_t * d

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        """The denoiser at each of the times, for states like x: all that can be done beforehand."""
        return [plain_call(self, t) for t in times]

    @property
    def samples(self) -> int | None:
        """How many samples its conditions are for, the one batch that it answers; None: any."""
        return None

    @property
    def conditioned(self) -> bool:
        """Whether conditions are bound, one a sample: such a denoiser answers one batch alone."""
        return self.samples is not None

    @property
    def jumps(self) -> tuple[float, ...]:
        """Noise levels sigma/alpha at which d is not continuous, from high to low.

        By default those of the denoisers that it holds as attributes. A plan may begin anew there:
        `default_plan(.., jumps=denoiser.jumps)`, as `sample` does, or `transform.afresh`.
        """
        held = [v for value in vars(self).values() for v in _each(value)]
        levels = {rho for one in held if isinstance(one, Denoiser) for rho in one.jumps}
        return tuple(sorted(levels, reverse=True))

    def select(self, who: Tensor) -> Denoiser:
        """The denoiser of some samples of its batch, by index: itself, where all are alike."""
        return self


class FunctionDenoiser(Denoiser):
    """A plain function (x, t) -> E[x_0 | x_t = x], with the schedule it is meant for.

    Args:
        function: asked with x, (batch, *event), and t, a float or a 0-d tensor.
        schedule: the alpha_t, sigma_t that it is meant for.
        per_sample: whether it also takes one time a sample, t of shape (batch,). If not, then
            such times are asked for one by one, each with its sample alone: right, but slow.
    """

    def __init__(
        self,
        function: Callable[[Tensor, Scalar], Tensor],
        schedule: Schedule,
        per_sample: bool = False,
    ) -> None:
        self.function, self.schedule, self.per_sample = function, schedule, per_sample

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        if isinstance(t, Tensor) and t.ndim and not self.per_sample:
            along(t, x)  # refuses another number of times
            return torch.cat([self(y, u) for y, u in zip(x.split(1), t.unbind(), strict=True)])
        d = self.function(x, t)
        if not isinstance(d, Tensor) or d.shape != x.shape:
            raise ValueError(wrong_output(d, x))
        return d


class NetworkDenoiser(Denoiser):
    """A network and how to read it.

    Args:
        network: a callable (x, label) -> tensor of x's shape; x is (batch, *event), label is
            (batch,). Conditions are bound beforehand: `lambda x, t: unet(x, t, context).sample`,
            or `denoiser.given(context)`.
            It returns a tensor of its own at each call, not one buffer that the next overwrites,
            and does not write into x.
        schedule: the alpha_t, sigma_t that it was trained on.
        prediction: "noise", "data", "velocity", "flow", "score" or "edm".
        label: how the network is told the time: "time" (t), "timestep" (the nearest integer
            0 .. N-1, int64), "fractional_timestep" (the same, not rounded), "sigma"
            (sigma/alpha), "log_snr" (2 lambda), "edm" (log(sigma/alpha)/4), or a function of a
            float64 tensor of times.
        timesteps: N for the two timestep labels; default: the schedule's own number.
        sigma_data: standard deviation of the data, for "edm" prediction only.
        dtype, device: what the network computes in and on; default: those of its parameters, where
            it is a module (states keep their own dtype, float32 or wider).
        outputs: 2 for a network that returns twice the channels, (batch, 2C, ...), the second half
            of which tell its variance (see `with_variance`); default: `network.outputs`, else 1.

    Raises:
        ValueError: unknown prediction or label; timestep labels without N; outputs not 1 or 2.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        schedule: Schedule,
        prediction: str = "noise",
        label: str | Callable[[Scalar], Scalar] | None = None,
        timesteps: int | None = None,
        sigma_data: float = 0.5,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        outputs: int | None = None,
    ) -> None:
        if not callable(network):
            raise TypeError(f"network must be callable as network(x, label), not {network!r}")
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule must be a Schedule, not {type(schedule).__name__}")
        if not (math.isfinite(sigma_data) and sigma_data > 0):
            raise ValueError(f"sigma_data = {sigma_data} must be positive")
        self.network, self.schedule, self.prediction = network, schedule, prediction
        self.sigma_data = float(sigma_data)
        self.timesteps = schedule.timesteps if timesteps is None else timesteps
        self._affine = look_up("prediction", prediction, AFFINE)
        label = ("edm" if prediction == "edm" else "time") if label is None else label
        self.label = label
        self._label = label_of(label, schedule, self.timesteps)
        self._rounded = label == "timestep"
        self._condition: tuple[Any, ...] = ()
        self._dtype, self._device = dtype, None if device is None else torch.device(device)
        self.outputs = outputs_of(network, outputs)
        if not (self.timesteps is None or (type(self.timesteps) is int and self.timesteps > 0)):
            raise ValueError(f"timesteps = {self.timesteps!r} must be a positive integer")
        schedule.check(points=33)

    @property
    def dtype(self) -> torch.dtype | None:
        """What the network computes in; None: whatever the state is."""
        parameter = self._parameter()
        return self._dtype or (None if parameter is None else parameter.dtype)

    @property
    def device(self) -> torch.device | None:
        """Where the network is; None: unknown."""
        parameter = self._parameter()
        return self._device or (None if parameter is None else parameter.device)

    def _parameter(self) -> Tensor | None:
        if not isinstance(self.network, torch.nn.Module):
            return None
        return next((p for p in self.network.parameters() if p.is_floating_point()), None)

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        if not isinstance(t, Tensor):
            function, scale, _ = self.bind([t], x)[0]
            return scale * function(x, None)
        output, a, b = self.output(x, t)
        return x * a + output * b

    def output(self, x: Tensor, t: Tensor) -> tuple[Tensor, Scalar, Scalar]:
        """(F, a, b) with d = a x + b F: what the network answers, and how it is read.

        A least-squares loss on d is one on F, with (F - (x_0 - a x)/b)^2 = (d - x_0)^2 / b^2.

        Args:
            x: states, shape (batch, *event).
            t: one time, or one a sample, shape (batch,), floating point; not read, so not checked.

        Returns:
            F of x's shape, and a and b that multiply x and F: of shape () or (batch, 1, .., 1).
        """
        answer, a, b = self._read(x, t)
        return self._mean(answer, x), a, b

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Scalar, Scalar]:
        """(F, v, a, b): d = a x + b F, and v, of x's shape, what the network tells of its variance.

        Args and times as for `output`.

        Raises:
            TypeError: if the network has one output.
        """
        if self.outputs != 2:
            raise TypeError(
                "the network tells no variance: build it with outputs=2, or, where it returns "
                "twice the channels, say so: NetworkDenoiser(..., outputs=2)"
            )
        answer, a, b = self._read(x, t)
        return self._mean(answer, x), answer[:, x.shape[1] :], a, b

    def _read(self, x: Tensor, t: Tensor) -> tuple[Tensor, Scalar, Scalar]:
        """All that the network answers, and a and b by which its mean is read."""
        check_bound(self._condition, x)
        t = double(t)
        c_in, a, b = (
            along(torch.as_tensor(c), x) for c in self._affine(self, t, *self.schedule(t))
        )
        label = self._tell(t, x).expand(len(x))
        return self._answer(self.dtype or x.dtype, label, c_in, x), a, b

    def on(self, schedule: Schedule) -> NetworkDenoiser:
        """The same network, read on another schedule."""
        moved = copy.copy(self)
        moved.schedule = schedule
        return moved

    def given(self, *condition: Any) -> NetworkDenoiser:
        """The same denoiser, its network asked as network(x, label, *condition).

        With the networks of this library the condition is (context,) or (context, drop): class
        labels (batch,) or tokens (batch, length, size), and which samples go without. Every tensor
        has one entry a sample; what all share is bound in a lambda instead.
        """
        samples_of(condition)  # refuses parts of different lengths
        bound = copy.copy(self)
        bound._condition = condition
        return bound

    @property
    def condition(self) -> tuple[Any, ...]:
        """What is bound by `given`."""
        return self._condition

    @property
    def samples(self) -> int | None:
        return samples_of(self._condition)

    @property
    def conditioned(self) -> bool:
        return bool(self._condition)

    def select(self, who: Tensor) -> NetworkDenoiser:
        """With the conditions of these samples, where it is bound to one a sample."""
        return self.given(*select_conditions(self._condition, who)) if self._condition else self

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        check_bound(self._condition, x)
        first, last = self.schedule.t_min, self.schedule.t_max
        if not (first <= min(times) and max(times) <= last):
            wrong = next(u for u in times if not first <= u <= last)
            raise ValueError(
                f"t = {wrong:.9g} lies outside [{first:g}, {last:g}], the range of "
                f"{self.schedule!r}"
            )
        t = torch.tensor(times, dtype=torch.float64)
        alpha_t, sigma_t = self.schedule(t)
        check_defined(self.prediction, self.schedule, times)
        affine = self._affine(self, t, alpha_t, sigma_t)
        c_in, a, b = (_floats(c, len(times)) for c in affine)
        labels = self._tell(t, x)[:, None].expand(len(times), len(x)).unbind()
        dtype = self.dtype or x.dtype
        return [self._call(dtype, *known) for known in zip(labels, c_in, a, b, strict=True)]

    def _call(self, dtype: torch.dtype, label: Tensor, c_in: float, a: float, b: float) -> Call:
        """d = a x + b F(c_in x) in one pass over memory, the larger of a and b as a factor."""
        ask = partial(self._ask, dtype, label, c_in)
        if a == 0.0:
            return Call(ask, b)
        if abs(a) < abs(b):
            ratio = a / b
            return Call(lambda x, out: torch.add(ask(x), x, alpha=ratio, out=out), b, writes=True)
        ratio = b / a
        return Call(lambda x, out: torch.add(x, ask(x), alpha=ratio, out=out), a, writes=True)

    def _ask(
        self, dtype: torch.dtype, label: Tensor, c_in: Scalar, x: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """F(c_in x), without what is told of a variance; `out` is left."""
        return self._mean(self._answer(dtype, label, c_in, x), x)

    def _mean(self, answer: Tensor, x: Tensor) -> Tensor:
        return answer if self.outputs == 1 else answer[:, : x.shape[1]]

    def _answer(self, dtype: torch.dtype, label: Tensor, c_in: Scalar, x: Tensor) -> Tensor:
        """The network at c_in x, asked in its own dtype and answered in the state's."""
        scaled = x if not isinstance(c_in, Tensor) and c_in == 1.0 else x * c_in
        asked = scaled if dtype is x.dtype else scaled.to(dtype)
        differentiated = asked.requires_grad and torch.is_grad_enabled()
        if differentiated:
            asked = asked.view_as(asked)  # a node of its own, to be found in the answer's graph
        try:
            output = self.network(asked, label, *self._condition)
        except RuntimeError as error:
            check_devices(self._condition, asked, error)
            raise
        channels = [self.outputs * c for c in x.shape[1:2]]
        fits = isinstance(output, Tensor) and output.shape == (len(x), *channels, *x.shape[2:])
        if not fits or self.outputs > x.ndim:  # states (batch,) have no channels to double
            raise ValueError(wrong_output(output, x, self.outputs))
        if differentiated and not comes_from(output, asked):  # d = a x + b F would hide it
            raise ValueError(unseen("the network's answer"))
        return output if output.dtype is x.dtype else output.to(x.dtype)

    def _tell(self, t: Tensor, x: Tensor) -> Tensor:
        """The network's labels for times t, in their shape, on x's device."""
        label = torch.as_tensor(self._label(self, t))
        if self._rounded:  # between t_min and the first timestep, the nearest is the first
            label = label.round().long().clamp(min=0)
        elif label.is_floating_point():
            label = label.to(torch.promote_types(self.dtype or x.dtype, torch.float32))
        return label.expand(t.shape).to(x.device)


def _each(value: object) -> Sequence[object]:
    return value if isinstance(value, tuple | list) else (value,)


def _floats(c: Scalar, n: int) -> list[float]:
    return c.tolist() if isinstance(c, Tensor) else [c] * n


def check_denoiser(denoiser: object, who: str = "the denoiser") -> None:
    """TypeError unless it is a Denoiser."""
    if not isinstance(denoiser, Denoiser):
        if isinstance(getattr(denoiser, "denoiser", None), Denoiser):
            raise TypeError(
                f"{who} is {type(denoiser).__name__}: give its denoiser, model.denoiser"
            )
        raise TypeError(
            f"{who} is {type(denoiser).__name__}, which has no schedule; wrap it, to "
            "say how to read the network: NetworkDenoiser(network, schedule, prediction='noise') "
            "or FunctionDenoiser(function, schedule)"
        )
