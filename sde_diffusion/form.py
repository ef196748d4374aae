"""Symbols: sparse linear forms over states x_i, denoiser outputs d_j and noises z_k.

A solver's text computes with them as with numbers, so that running it once writes its table.
Coefficients are floats, or 0-d float64 tensors if a gradient flows through them.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from .scalar import Scalar

Symbol = tuple[str, int]
"""("x", i), ("d", j) or ("z", k)."""


class Form:
    """A sparse linear form over states x_i, outputs d_j and noises z_k; `+ - * /` by scalars."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[Symbol, Scalar]) -> None:
        self.terms = terms

    def __add__(self, other: Form | int) -> Form:
        if isinstance(other, Form):
            terms = dict(self.terms)
            for symbol, c in other.terms.items():
                terms[symbol] = terms[symbol] + c if symbol in terms else c
            return Form(terms)
        if isinstance(other, int) and other == 0:  # sum() starts from 0
            return self
        return NotImplemented

    __radd__ = __add__

    def __mul__(self, scalar: Scalar) -> Form:
        if isinstance(scalar, Form):
            raise TypeError(
                "a product of two states or outputs is not linear, so it is no row of a plan; "
                "write such a sampler as an ordinary function of (denoiser, x)"
            )
        return Form({symbol: c * scalar for symbol, c in self.terms.items()})

    __rmul__ = __mul__

    def __truediv__(self, scalar: Scalar) -> Form:
        return Form({symbol: c / scalar for symbol, c in self.terms.items()})

    def __neg__(self) -> Form:
        return self * -1.0

    def __sub__(self, other: Form) -> Form:
        return self + other * -1.0

    def __repr__(self) -> str:
        return write_terms(self.terms.items())


def write_terms(terms: Iterable[tuple[Symbol, Scalar]]) -> str:
    """Terms as a person writes them: 0.98 x3 - 1.2e-05 d2."""
    text = ""
    for (name, k), c in terms:
        value = number_of(c)
        sign = (" - " if value < 0 else " + ") if text else ("-" if value < 0 else "")
        size = "" if abs(value) == 1.0 else f"{abs(value):.6g} "
        text += f"{sign}{size}{name}{k}"
    return text or "0"


def number_of(c: Scalar) -> float:
    """A coefficient as a plain float."""
    return float(c.detach()) if isinstance(c, Tensor) else float(c)
