r"""What is measured of the data: operators A of y = A(x_0) + sigma_y n, n ~ N(0, I).

A linear one also has its adjoint A^T, <A x, y> = <x, A^T y>, and can solve the systems in which
every method for inverse problems ends,

    (a A A^T + b I) u = v,    a, b >= 0,

in closed form where its singular vectors are known (a mask, a circular blur), from A A^T decomposed
once where it is small, otherwise by conjugate gradients.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..counts import check_count, checked_number
from ..scalar import Scalar
from .conjugate_gradients import TOLERANCE, conjugate_gradients, least_squares, widened

RANK = 1e-6
"""Singular values below so much of the largest count as 0: what was measured by them is rounding
of float32, and dividing by them would bring nothing else to light."""


class Operator(ABC):
    """A: data (batch, *event_shape) -> measurements (batch, *measured_shape), sample by sample.

    A new operator says its shapes and how to `apply` it; it follows the dtype, float32 or float64,
    and the device of x.

    Attributes:
        event_shape: of one datum.
        measured_shape: of one measurement.
    """

    event_shape: tuple[int, ...]
    measured_shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """A(x), of shape (batch, *measured_shape), differentiable in x.

        Args:
            x: (batch, *event_shape).

        Raises:
            TypeError: if x is not a float32 or float64 tensor.
            ValueError: if its shape is another.
        """
        check_batch("x", x, self.event_shape, "measures data of event shape")
        return self.apply(x)

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """A(x), differentiable in x, unchecked."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.event_shape} -> {self.measured_shape})"


class LinearOperator(Operator):
    """A linear operator; its adjoint comes from automatic differentiation unless given.

    Systems of few measured numbers are solved by the eigenvectors of A A^T, found in float64 when
    they are first needed (of 4096, in a minute). More are solved by conjugate gradients, in
    float64 whatever the states are, to a residual of 1e-8 for float32 and of 1e-12 for float64.
    Singular values below 1e-6 of the largest count as 0, in this and in every linear operator;
    conjugate gradients, which do not know them, leave out those that the residual does not need.

    Where a better way is known, a new one also says its `_adjoint` and `_solve`, unchecked.

    Attributes:
        decomposed: up to how many measured numbers A A^T is decomposed.
    """

    decomposed: int = 4096

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, of shape (batch, *event_shape); y of shape (batch, *measured_shape)."""
        return self._adjoint(self._measured("y", y))

    def solve(self, v: Tensor, a: Scalar, b: Scalar) -> Tensor:
        """u with (a A A^T + b I) u = v.

        Args:
            v: (batch, *measured_shape).
            a, b: at least 0 and not both 0; numbers, or one a sample, (batch,). With b = 0 the
                solution of least norm, (a A A^T)^+ v.

        Raises:
            ValueError: if a or b is out of range or of another shape.
            RuntimeError: where conjugate gradients do not converge.
        """
        return self._solve(self._measured("v", v), *_columns(v, a, b))

    def adjoint_solve(self, v: Tensor, a: Scalar, b: Scalar) -> Tensor:
        """A^T u of (a A A^T + b I) u = v, also x of (a A^T A + b I) x = A^T v.

        What no datum explains of v is in u, divided by b, and not in A^T u: where b is small this
        keeps the digits that `adjoint(solve(v, a, b))` would lose. Args and errors as for `solve`.
        """
        return self._adjoint_solve(self._measured("v", v), *_columns(v, a, b))

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A^+ y = A^T (A A^T)^+ y, the datum of least norm among the nearest to y."""
        return self._pseudo_inverse(self._measured("y", y))

    def spectral(self, v: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """f(A A^T) v = U diag(f(s_i^2)) U^T v, where A A^T = U diag(s_i^2) U^T.

        Args:
            v: (batch, *measured_shape).
            function: f, elementwise: a tensor of s_i^2, (1, ..), to as many numbers, or to as many
                for each sample, (batch, ..).

        Raises:
            ValueError: more measured numbers than are decomposed, and no closed form.
        """
        self.check_spectral()
        return self._spectral(self._measured("v", v), function)

    def check_spectral(self) -> None:
        """ValueError where the singular vectors are not known, and too many to be found."""
        if not self._small:
            count = math.prod(self.measured_shape)
            raise ValueError(
                f"{type(self).__name__} has {count} measured numbers and no singular vectors in "
                f"closed form; they are found for at most {self.decomposed}. Set "
                f"operator.decomposed = {count} to have them found, once ({count}^2 numbers in "
                "float64; 4096 take a minute, and the time grows with the cube)"
            )

    def matrix(self) -> Tensor:
        """A as a matrix, float64, (measured numbers, data numbers), both flattened."""
        eye = torch.eye(math.prod(self.event_shape), dtype=torch.float64)
        columns = [
            self.apply(part.reshape(-1, *self.event_shape)).flatten(1) for part in eye.split(256)
        ]
        return torch.cat(columns).T.contiguous()

    def _adjoint(self, y: Tensor) -> Tensor:
        """A^T y = grad_x <A x, y>, the same at every x."""
        with torch.inference_mode(False), torch.enable_grad():
            x = y.new_zeros(len(y), *self.event_shape).requires_grad_()
            (answer,) = torch.autograd.grad(self.apply(x), x, y, create_graph=y.requires_grad)
        return answer

    def _solve(self, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """As `solve`, with a and b as columns, (batch or 1, 1, .., 1)."""
        if not self._small:
            return self._iterate(widened(v), a, b, TOLERANCE[v.dtype]).to(v.dtype)
        basis, squares = self._eigenvectors.like(v)
        weights = inverse(a.reshape(-1, 1) * squares + b.reshape(-1, 1))
        return ((v.flatten(1) @ basis * weights) @ basis.T).reshape(v.shape)

    def _adjoint_solve(self, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if self._small:
            basis, squares = self._eigenvectors.like(v)
            weights = inverse(a.reshape(-1, 1) * squares + b.reshape(-1, 1)) * (squares > 0)
            return self._adjoint(((v.flatten(1) @ basis * weights) @ basis.T).reshape(v.shape))
        right = self._adjoint(widened(v))
        a, b = (c.reshape(-1, *[1] * (right.ndim - 1)) for c in (a, b))
        system = lambda x: a * self._adjoint(self.apply(x)) + b * x
        return conjugate_gradients(system, right, self._most, TOLERANCE[v.dtype]).to(v.dtype)

    def _spectral(self, v: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """As `spectral`, unchecked."""
        basis, squares = self._eigenvectors.like(v)
        return ((v.flatten(1) @ basis * function(squares[None])) @ basis.T).reshape(v.shape)

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        if not self._small:
            way = (self.apply, self._adjoint, widened(y), self._most, TOLERANCE[y.dtype])
            return least_squares(*way).to(y.dtype)
        one = y.new_ones([1] * y.ndim)
        return self._adjoint(self._solve(y, one, torch.zeros_like(one)))

    @property
    def _small(self) -> bool:
        check_count("decomposed", self.decomposed, least=0)
        return math.prod(self.measured_shape) <= self.decomposed

    @cached_property
    def _eigenvectors(self) -> Constants:
        """U and s^2 of A A^T = U diag(s^2) U^T."""
        count = math.prod(self.measured_shape)
        with torch.no_grad():
            parts = torch.eye(count, dtype=torch.float64).split(
                max(1, 2**22 // math.prod(self.event_shape))
            )
            shaped = (part.reshape(-1, *self.measured_shape) for part in parts)
            product = torch.cat([self.apply(self._adjoint(e)).flatten(1) for e in shaped])
        squares, basis = torch.linalg.eigh((product + product.T) / 2)
        return Constants(basis, of_rank(squares.clamp_min(0).sqrt()) ** 2)

    def _iterate(self, v: Tensor, a: Tensor, b: Tensor, tolerance: float) -> Tensor:
        """As `_solve`, by conjugate gradients."""
        a, b = (c.expand(len(v), *c.shape[1:]) for c in (a, b))
        least_norm = (b == 0).flatten()
        if not bool(least_norm.any()):
            system = lambda u: a * self.apply(self._adjoint(u)) + b * u
            return conjugate_gradients(system, v, self._most, tolerance)
        if not bool(least_norm.all()):
            parts = torch.zeros_like(v)
            for who in (least_norm, ~least_norm):
                parts[who] = self._iterate(v[who], a[who], b[who], tolerance)
            return parts
        # (A A^T)^+ = (A^T)^+ A^+.
        x = least_squares(self.apply, self._adjoint, v, self._most, tolerance)
        return least_squares(self._adjoint, self.apply, x, self._most, tolerance) / a

    @property
    def _most(self) -> int:
        """Iterations: as many as there are numbers end it without rounding."""
        return min(100 + 4 * math.prod(self.measured_shape), 2000)

    def _measured(self, name: str, y: Tensor) -> Tensor:
        check_batch(name, y, self.measured_shape, "has measurements of shape")
        return y


class Diagonal(LinearOperator):
    """A linear operator whose A A^T is diagonal in a basis that is known: solved in closed form.

    Attributes:
        power: A A^T = power I, unless `_spectral` is another.
    """

    power: float = 1.0

    def _spectral(self, v: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return v * function(v.new_full([1] * v.ndim, self.power))

    def _adjoint_solve(self, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return self._adjoint(self._solve(v, a, b))

    @property
    def _small(self) -> bool:
        return True


class Constants:
    """Tensors kept in float64 on the host, and once more in each dtype and device asked for."""

    def __init__(self, *values: Tensor) -> None:
        with torch.inference_mode(False):  # usable for good, also in runs with gradients
            # Their own: nobody else's, to change in place.
            self._values = tuple(v.detach().cpu().clone() for v in values)
        self._made: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def __deepcopy__(self, memo: object) -> Constants:
        return self  # nothing of it ever changes

    def like(self, x: Tensor) -> tuple[Tensor, ...]:
        """Real ones in x's dtype, complex ones in its complex partner, integers as they are."""
        key = (x.dtype, x.device)
        if key not in self._made:
            kinds = {torch.float64: x.dtype, torch.complex128: x.dtype.to_complex()}
            with torch.inference_mode(False):
                self._made[key] = tuple(
                    v.to(x.device, kinds.get(v.dtype, v.dtype)) for v in self._values
                )
        return self._made[key]


def of_rank(s: Tensor, cutoff: float = RANK) -> Tensor:
    """Singular values, or complex numbers of which they are the sizes; 0 for what counts as 0."""
    return torch.where(s.abs() > cutoff * s.abs().max(), s, 0.0)


def inverse(spectrum: Tensor) -> Tensor:
    """1 / spectrum, and 0 where it is 0."""
    return torch.where(spectrum > 0, 1 / spectrum, 0.0)


def check_batch(name: str, x: Tensor, shape: tuple[int, ...], what: str) -> None:
    """Refuse what is not a batch of real numbers of this shape."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{name} is {kind}, not a float32 or float64 tensor; write "
            f"torch.as_tensor({name}).float()"
        )
    if x.ndim == 0 or tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, but this operator {what} {tuple(shape)}; give "
            f"{name} of shape (batch, {', '.join(map(str, shape))})"
        )


def shape_of(event_shape: tuple[int, ...], least: int = 0) -> tuple[int, ...]:
    """An event shape of `least` dimensions or more, each of positive whole size."""
    sizes = list(event_shape) if isinstance(event_shape, Sequence) else [event_shape]
    if len(sizes) < least or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(
            f"event_shape = {event_shape!r} must be {least} or more positive whole numbers"
        )
    return tuple(sizes)


def _columns(v: Tensor, a: Scalar, b: Scalar) -> tuple[Tensor, Tensor]:
    """a and b as columns, not both 0."""
    columns = _column("a", a, v), _column("b", b, v)
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        nothing = bool(((columns[0] == 0) & (columns[1] == 0)).any())
    else:
        nothing = a == 0 and b == 0
    if nothing:
        raise ValueError("a = b = 0 leaves no system to solve; one of them must be positive")
    return columns


def _column(name: str, value: Scalar, v: Tensor) -> Tensor:
    """A number, or one a sample, as (batch or 1, 1, .., 1) in v's dtype, not negative."""
    if isinstance(value, Tensor):
        if value.ndim > 1 or (value.ndim == 1 and len(value) != len(v)):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, but there are {len(v)} systems; give a "
                f"number, or one a system, ({len(v)},)"
            )
        allowed = bool(((value >= 0) & (value < math.inf)).all())
    else:
        allowed = 0 <= checked_number(value, name) < math.inf
    if not allowed:
        raise ValueError(f"{name} = {value} must be finite and at least 0")
    column = value.to(v) if isinstance(value, Tensor) else v.new_full((), float(value))
    return column.reshape(-1, *[1] * (v.ndim - 1))
