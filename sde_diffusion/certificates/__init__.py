"""Certificates: the order, exactness, invariants and cost of a solver, measured."""

from .certificate import SCHEDULES, Certificate, certify, certify_all
from .convergence import Convergence, converge
from .exactness import Exactness, exactness
from .invariants import Invariants, invariants
from .paths import PathOrders

__all__ = [
    "SCHEDULES",
    "Certificate",
    "Convergence",
    "Exactness",
    "Invariants",
    "PathOrders",
    "certify",
    "certify_all",
    "converge",
    "exactness",
    "invariants",
]
