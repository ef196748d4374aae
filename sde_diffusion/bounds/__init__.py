"""Upper bounds on -log p(x_0): the variational bound of a chain of steps, and its limit."""

from ..reverse import Bins
from .bound import Bound, Term
from .continuous import continuous_bound
from .discrete import discrete_bound, step_variances

__all__ = ["Bins", "Bound", "Term", "continuous_bound", "discrete_bound", "step_variances"]
