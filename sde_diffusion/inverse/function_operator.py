"""A function of one's own as an operator, tried at the door and watched at every call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .operator import LinearOperator, Operator, shape_of

Function = Callable[[Tensor], Tensor]
SLACK = 1e-3  # relative: products of matrices may be rounded to 10 bits, and by batches otherwise


class _OfFunction(Operator):
    """y = f(x)."""

    def __init__(
        self,
        function: Function,
        event_shape: tuple[int, ...],
        device: torch.device | str | None = None,
    ) -> None:
        self.event_shape = shape_of(event_shape)
        self.function, self.measured_shape = _tried(function, self.event_shape, device)
        self._check(_draw(self.event_shape, torch.float64, device))

    def _check(self, x: Tensor) -> None:
        """What else must hold on random data."""

    def apply(self, x: Tensor) -> Tensor:
        return _watched(self.function, x, self.measured_shape)


class FunctionOperator(_OfFunction):
    """y = f(x), differentiable, sample by sample.

    It is tried on a few random batches, in float32 and in float64. One that can compute in one of
    them only, such as a network, is given x in that, and its answer is cast back.

    Args:
        function: f: (batch, *event_shape) -> (batch, *measured_shape), in the dtype and on the
            device of x; networks in evaluation mode.
        event_shape: of one datum.
        device: where it is tried, if it cannot compute on the host.

    Raises:
        TypeError: if f is not callable, or answers in another dtype, or with no tensor.
        ValueError: if the shape of an answer depends on the batch, if one sample's answer depends
            on the others, or changes from one call to the next, or is not finite or empty; if f
            changes x in place, or is a module that would learn from being tried.
    """


class LinearFunctionOperator(_OfFunction, LinearOperator):
    """y = f(x), f linear: adjoint by automatic differentiation, systems by conjugate gradients.

    Args, Raises: as for `FunctionOperator`; also ValueError if it is not linear on random data,
    f(a x + b z) = a f(x) + b f(z), or autograd does not follow it, <f(x), y> = <x, f^T y>.
    """

    def _check(self, x: Tensor) -> None:
        # Rounding is the same part of small and of large answers; what is not linear is not.
        for size in (1.0, 1e-3, 1e3):
            _check_linear(self.function, size * x)
        _check_adjoint(self.function, x)


def _tried(
    function: Function, shape: tuple[int, ...], device: torch.device | str | None
) -> tuple[Function, tuple[int, ...]]:
    """f, in the precision that it can, and measured_shape, of one that is as it should be."""
    if not callable(function):
        raise TypeError(f"function must be callable as function(x), not {function!r}")
    _check_mode(function)
    draws = {dtype: _draw(shape, dtype, device) for dtype in (torch.float32, torch.float64)}
    measured: tuple[int, ...] = ()
    with torch.no_grad():
        function = _in_its_precision(function, draws)
        for x in draws.values():
            before = x.clone()
            y = _answer(function, x)
            if not torch.equal(x, before):
                raise ValueError(
                    "the function changes x in place; it must leave the data as they are: write "
                    "2 * x for x.mul_(2), or begin with x = x.clone()"
                )
            measured = _shape_measured(x, y)
            if not bool(torch.isfinite(y).all()):
                raise ValueError("the function's answers are not finite on normal random data")
            alone = _watched(function, x[1:2], measured)
            if bool(((alone - y[1:2]).abs() > SLACK * y.abs().max()).any()):
                raise ValueError(
                    "the function's answer for a sample alone is another than in a batch: it mixes "
                    "samples, or draws random numbers; it must answer each sample by itself (a "
                    "network: in evaluation mode, network.eval())"
                )
    return function, measured


def _in_its_precision(function: Function, draws: dict[torch.dtype, Tensor]) -> Function:
    """f itself; if it fails in one dtype and not in the other: cast to that one and back."""
    failed: dict[torch.dtype, RuntimeError] = {}
    for dtype, x in draws.items():
        try:
            function(x.clone())
        except RuntimeError as error:
            failed[dtype] = error
    if not failed:
        return function
    if len(failed) == len(draws):
        raise ValueError(
            f"the function fails on {tuple(draws[torch.float32].shape)} normal random numbers, in "
            f"float32 and in float64 ({failed[torch.float32]}); give the event_shape of one datum "
            "without the batch, and say with device= where it computes"
        ) from failed[torch.float32]
    (able,) = draws.keys() - failed.keys()
    return lambda x: _answer(function, x.to(able)).to(x.dtype)


def _check_mode(function: Function) -> None:
    """Refuse batch normalisation in training: each call, also on random data, moves its mean."""
    owner = getattr(function, "__self__", function)
    parts = owner.modules() if isinstance(owner, nn.Module) else ()
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in parts):
        raise ValueError(
            "the function is a network in training mode, whose batch normalisation mixes samples "
            "and learns from every call; write network.eval()"
        )


def _shape_measured(x: Tensor, y: Tensor) -> tuple[int, ...]:
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
    if y.numel() == 0:
        raise ValueError(
            f"the function returned shape {tuple(y.shape)}, no numbers, so nothing is measured"
        )
    return tuple(y.shape[1:])


@torch.no_grad()
def _check_linear(function: Function, x: Tensor) -> None:
    f = [function(v) for v in (x, x.flip(0), 2.5 * x - 0.7 * x.flip(0))]
    error = (f[2] - (2.5 * f[0] - 0.7 * f[1])).abs().max()
    if not bool(error <= SLACK * (f[0].abs().max() + f[1].abs().max())):
        raise ValueError(
            f"the function is not linear: f(2.5 x - 0.7 z) misses 2.5 f(x) - 0.7 f(z) by "
            f"{float(error):.2g}; take a constant away from y instead of adding it to f, or "
            "use FunctionOperator"
        )


def _check_adjoint(function: Function, x: Tensor) -> None:
    """<f(x), y> = <x, f^T y> for y = f(x), where both are |y|^2."""
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        y = _answer(function, x)
        if not y.requires_grad:
            raise ValueError(
                "the function's answer has no gradient in x: it computes under no_grad, "
                "detaches, or works in numpy; subclass LinearOperator, with its `_adjoint`"
            )
        (back,) = torch.autograd.grad(y, x, y.detach(), materialize_grads=True)
    there, back = y.detach().square().sum(), (x.detach() * back).sum()
    if not bool((there - back).abs() <= SLACK * there):
        raise ValueError(
            f"<f(x), f(x)> = {float(there):.6g}, but with the adjoint of automatic differentiation "
            f"<x, f^T f(x)> = {float(back):.6g}: a part of the function is detached, computes "
            "under no_grad, or has another gradient; subclass LinearOperator, with its `_adjoint`"
        )


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
    try:
        y = function(x)
    except RuntimeError as error:
        if not (x.requires_grad and "numpy()" in str(error)):
            raise
        raise ValueError(
            "the function has no gradient in x: it works in numpy; write it in torch, or, if it is "
            "linear, subclass LinearOperator, with its `_adjoint`"
        ) from error
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
