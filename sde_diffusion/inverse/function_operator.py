"""A function of one's own as an operator, tried at the door and watched at every call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .operator import LinearOperator, Operator, shape_of

Function = Callable[[Tensor], Tensor]


class FunctionOperator(Operator):
    """y = f(x), differentiable, sample by sample.

    It is tried on a few random batches, in float32 and in float64.

    Args:
        function: f: (batch, *event_shape) -> (batch, *measured_shape), in the dtype and on the
            device of x.
        event_shape: of one datum.
        device: where it is tried, if it cannot compute on the host.

    Raises:
        TypeError: if f is not callable, or answers in another dtype, or with no tensor.
        ValueError: if the shape of an answer depends on the batch, if one sample's answer depends
            on the others, or changes from one call to the next, or is not finite.
    """

    def __init__(
        self,
        function: Function,
        event_shape: tuple[int, ...],
        device: torch.device | str | None = None,
    ) -> None:
        self.function, self.event_shape = function, shape_of(event_shape)
        self.measured_shape = _tried(function, self.event_shape, device)

    def apply(self, x: Tensor) -> Tensor:
        return _watched(self.function, x, self.measured_shape)


class LinearFunctionOperator(LinearOperator):
    """y = f(x), f linear: adjoint by automatic differentiation, systems by conjugate gradients.

    Args, Raises: as for `FunctionOperator`; also ValueError if it is not linear on random data,
    f(a x + b z) = a f(x) + b f(z), or autograd does not follow it.
    """

    def __init__(
        self,
        function: Function,
        event_shape: tuple[int, ...],
        device: torch.device | str | None = None,
    ) -> None:
        self.function, self.event_shape = function, shape_of(event_shape)
        self.measured_shape = _tried(function, self.event_shape, device)
        x = _draw(self.event_shape, torch.float64, device)
        f = [function(v) for v in (x, x.flip(0), 2.5 * x - 0.7 * x.flip(0))]
        error = (f[2] - (2.5 * f[0] - 0.7 * f[1])).abs().max()
        if bool(error > 1e-9 * (f[0].abs().max() + f[1].abs().max())):
            raise ValueError(
                f"the function is not linear: f(2.5 x - 0.7 z) misses 2.5 f(x) - 0.7 f(z) by "
                f"{float(error):.2g}; take a constant away from y instead of adding it to f, or "
                "use FunctionOperator"
            )
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone()
            if not function(x.requires_grad_()).requires_grad:
                raise ValueError(
                    "the function's answer has no gradient in x: it computes under no_grad, "
                    "detaches, or works in numpy; subclass LinearOperator, with its `_adjoint`"
                )

    def apply(self, x: Tensor) -> Tensor:
        return _watched(self.function, x, self.measured_shape)


def _tried(
    function: Function, shape: tuple[int, ...], device: torch.device | str | None
) -> tuple[int, ...]:
    """measured_shape, of a function that is as it should be."""
    if not callable(function):
        raise TypeError(f"function must be callable as function(x), not {function!r}")
    with torch.no_grad():
        for dtype in (torch.float32, torch.float64):
            x = _draw(shape, dtype, device)
            y = _answer(function, x)
            if y.ndim == 0 or len(y) != len(x):
                raise ValueError(
                    f"the function returned shape {tuple(y.shape)} for {len(x)} samples; it must "
                    f"return one measurement a sample, ({len(x)}, ..)"
                )
            if y.ndim == 1:
                raise ValueError(
                    f"the function returned shape {tuple(y.shape)}; one number a sample is a "
                    f"measurement of shape (1,): return y[:, None]"
                )
            measured = tuple(y.shape[1:])
            alone = _watched(function, x[1:2], measured)
            # Products of matrices round differently for another batch; nothing else may change.
            slack = 1e-4 if dtype is torch.float32 else 1e-10
            if not bool(torch.isfinite(y).all()):
                raise ValueError("the function's answers are not finite on normal random data")
            if bool(((alone - y[1:2]).abs() > slack * y.abs().max()).any()):
                raise ValueError(
                    "the function's answer for a sample alone is another than in a batch: it mixes "
                    "samples, or draws random numbers; it must answer each sample by itself"
                )
    return measured


def _watched(function: Function, x: Tensor, measured: tuple[int, ...]) -> Tensor:
    """f(x), refused if its shape or dtype is another than at the door."""
    y = _answer(function, x)
    if y.shape != (len(x), *measured):
        raise ValueError(
            f"the function returned shape {tuple(y.shape)} for {len(x)} samples, but a measurement "
            f"had shape {measured} before; its shape may not depend on the batch"
        )
    return y


def _answer(function: Function, x: Tensor) -> Tensor:
    y = function(x)
    if not isinstance(y, Tensor):
        raise TypeError(f"the function returned {type(y).__name__}, not a tensor")
    if y.dtype is not x.dtype:
        raise TypeError(
            f"the function returned {y.dtype} for data in {x.dtype}; it must keep the dtype: cast "
            "its constants, kernel.to(x), or the answer, y.to(x)"
        )
    return y


def _draw(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, *shape, generator=generator, dtype=torch.float64).to(device, dtype)
