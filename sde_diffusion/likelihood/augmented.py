r"""The probability flow with its own divergence beside it, as one more process of the same kind.

In data prediction the probability-flow ODE is dx/dt = (sigma'/sigma) x + sigma (e^lambda)' d(x, t),
so that along a trajectory, with tau = tr dd/dx,

    -d log p_t(x_t)/dt = div v = D sigma'/sigma + sigma (e^lambda)' tau.

A coordinate z with the same linear part and the "output" d_z obeys d(z/sigma) = d_z d(e^lambda).
With d_z = sigma tau, z/sigma is the integral of the second term, and the first is D log sigma. So
any solver of the flow, whatever it is, finds log-densities too, to its own order, when it runs
unchanged on the state [x, z]. With the closed form of Gaussian data taken out (`reference`), what z
collects vanishes at both ends, sigma -> 0 and alpha -> 0, on data like it:

    log p_t(x_t) = log p_T(x_T) + log |det dx_T/dx_t|_G + w_T,
    w = int sigma (tau - tau_G) d(e^lambda),     z = sigma w / sqrt(D).

That suits tables of coefficients. Solvers that judge their steps by errors of the state would not
see those of w behind a small sigma; for them z = (alpha + sigma) w / sqrt(D), which is as good a
coordinate, with d_z = u + (alpha + sigma) (tau - tau_G) / sqrt(D), u = z/(alpha + sigma). The root
of D makes an error of z one of log p in nats a dimension, in their root-mean-square norms.
Each probe of a trace has a z of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..answers import wrong_output
from ..denoise import Call, Denoiser, NetworkDenoiser
from ..scalar import Scalar
from .reference import GaussianReference
from .trace import Jacobian, Trace


@dataclass
class Count:
    """What a solve has cost: calls of the network and vector-Jacobian products of a sample."""

    calls: int = 0
    products: int = 0


class Augmented(Denoiser):
    """The denoiser of states [x, z], flat: (batch, D + lanes).

    Args:
        denoiser: of x; differentiable.
        event: shape of one x.
        trace: how tr dd/dx is found.
        reference: what is known of it.
        chunk: vector-Jacobian products at a time.
        count: is added to.
        adaptive: whether z is that of solvers that judge their steps.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        event: tuple[int, ...],
        trace: Trace,
        reference: GaussianReference,
        chunk: int | None,
        count: Count,
        adaptive: bool = False,
    ) -> None:
        self.denoiser, self.schedule, self.event = denoiser, denoiser.schedule, event
        self.trace, self.reference, self.chunk, self.count = trace, reference, chunk, count
        self.dimension, self.adaptive = math.prod(event), adaptive
        self.device = getattr(denoiser, "device", None)

    def start(self, x: Tensor) -> Tensor:
        """[x, 0]; float64, where the device has it."""
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        z = torch.zeros(len(x), self.trace.lanes, dtype=wide, device=x.device)
        return torch.cat([x.reshape(len(x), -1).to(wide), z], 1)

    def read(self, y: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """(x, w), w of shape (batch, lanes), from a state at time t."""
        x, z = y[:, : self.dimension], y[:, self.dimension :]
        alpha_t, sigma_t = self.schedule(t)
        w = z * (math.sqrt(self.dimension) / float(sigma_t + self.adaptive * alpha_t))
        return x.reshape(len(y), *self.event), w

    def __call__(self, y: Tensor, t: Scalar) -> Tensor:
        alpha_t, sigma_t = self.schedule(t)
        if isinstance(t, Tensor):
            return self._answer(y, Call(lambda x, out: self.denoiser(x, t)), alpha_t, sigma_t)
        return self.bind([t], y)[0].function(y, None)

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        like = x[:, : self.dimension].reshape(len(x), *self.event)
        calls = zip(times, self.denoiser.bind(times, like), strict=True)
        return [self._call(call, *self.schedule(t)) for t, call in calls]

    def _call(self, call: Call, alpha: Scalar, sigma: Scalar) -> Call:
        return Call(lambda y, out: self._answer(y, call, alpha, sigma))

    def select(self, who: Tensor) -> Augmented:
        chosen = copy.copy(self)
        chosen.denoiser, chosen.trace = self.denoiser.select(who), self.trace.select(who)
        return chosen

    def _answer(self, y: Tensor, call: Call, alpha: Scalar, sigma: Scalar) -> Tensor:
        """[d, d_z]; see the module."""
        with torch.inference_mode(False), torch.enable_grad():
            flat = y[:, : self.dimension].detach().clone()
            x = flat.reshape(len(y), *self.event).requires_grad_()
            d = call.scale * call.function(x, None)
            if not isinstance(d, Tensor) or d.shape != x.shape:
                raise ValueError(wrong_output(d, x))
            gain = self.reference.gain(alpha, sigma, x)
            lanes = self.trace(Jacobian(x, d, self.reference, gain, self.chunk)).detach()
        self.count.calls += 1
        self.count.products += self.trace.products
        scale = sigma + self.adaptive * alpha
        if isinstance(scale, Tensor):
            scale = scale.to(lanes).reshape(-1, 1)
        d_z = scale / math.sqrt(self.dimension) * lanes
        if self.adaptive:
            d_z = d_z + y[:, self.dimension :] / scale
        return torch.cat([d.detach().reshape(len(y), -1), d_z], 1)


def check_differentiable(denoiser: Denoiser, x: Tensor, t: float) -> None:
    """Raise ValueError if the denoiser's answer to x is random or has no gradient."""
    _check_evaluates(denoiser)
    with torch.inference_mode(False), torch.enable_grad():
        y = x[:1].detach().clone().requires_grad_()
        one = denoiser.select(torch.zeros(1, dtype=torch.int64))
        try:
            if isinstance(one, NetworkDenoiser):  # else d = a x + b F hides that F has none
                times = torch.tensor(t, dtype=torch.float32 if _is_mps(y) else torch.float64)
                answer = one.output(y, times.to(y.device))[0]
            else:
                answer = one(y, t)
            found = None
            if isinstance(answer, Tensor) and answer.requires_grad:
                (found,) = torch.autograd.grad(answer.sum(), y, allow_unused=True)
        except RuntimeError as error:
            if "nference tensor" not in str(error):
                raise
            raise ValueError(_NO_GRADIENT.format(f" ({error})")) from error
    if found is None:
        raise ValueError(_NO_GRADIENT.format(""))


def _check_evaluates(denoiser: Denoiser) -> None:
    network = getattr(denoiser, "network", None)
    for layer in network.modules() if isinstance(network, nn.Module) else ():
        if not layer.training:
            continue
        dropout = isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
        if dropout or isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"the network is in training mode, where {type(layer).__name__} makes its answer "
                "random or dependent on the batch: call network.eval() first"
            )


def _is_mps(x: Tensor) -> bool:
    return x.device.type == "mps"


_NO_GRADIENT = (
    "the network's answer has no gradient with respect to x{}, and a likelihood needs one: take "
    "away torch.no_grad, torch.inference_mode, .detach() and numpy from the network, and load its "
    "weights outside inference mode (an answer that does not depend on x at all has none either)"
)
