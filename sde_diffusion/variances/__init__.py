"""The variance of a reverse step: measured once for each noise level, or learned by the network.

`analytic_dpm` makes a plan from measured `Moments`; `learned_variance` depends on the state and is
a solver of the second kind. Both can be had by name in `sample`.
"""

from .analytic import analytic_dpm, analytic_variance
from .learned import LEARNED, learned_variance
from .moments import Moments, measure_moments

__all__ = [
    "LEARNED",
    "Moments",
    "analytic_dpm",
    "analytic_variance",
    "learned_variance",
    "measure_moments",
]
