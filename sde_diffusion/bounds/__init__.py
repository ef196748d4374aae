"""Upper bounds on -log p(x_0): the variational bound of a chain of steps, and its limit."""

from ..reverse import Bins
from .bound import Bound, Term
from .continuous import continuous_bound
from .discrete import discrete_bound, step_variances
from .ending import End, best_end

__all__ = [
    "Bins",
    "Bound",
    "End",
    "Term",
    "best_end",
    "continuous_bound",
    "discrete_bound",
    "step_variances",
]
