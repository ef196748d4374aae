"""What is free in a plan: a family of plans, one for each vector of numbers.

A plan is a table of numbers, and a solver writes that table in operations that carry gradients
(`scalar.py`). So "tune the knots", "tune the coefficients" or "one scalar a step" are all one
thing, a differentiable map

    numbers (P,) -> Plan

and every way of fitting (least squares, gradient) takes any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..plan import Plan


@dataclass(frozen=True)
class Family:
    """Plans that differ in P free numbers.

    Attributes:
        name: what is free, as "table" or "knots".
        build: numbers (P,), float64, to a plan whose coefficients and times carry their gradient.
        start: the numbers to begin with, (P,), float64.
        names: of the numbers, for people.
    """

    name: str
    build: Callable[[Tensor], Plan]
    start: Tensor
    names: tuple[str, ...]

    def plan(self, numbers: Tensor | None = None) -> Plan:
        """The plan of some numbers (default: of the start), in plain floats."""
        with torch.no_grad():
            plan = self.build(self.start if numbers is None else numbers)
        return plan.detached()
