"""Plans fitted to a model: few steps, chosen by what the network's own paths say."""

from .choices import FAMILIES, LOSSES, METHODS, STRATEGIES
from .grow import grown
from .pairs import Pairs
from .report import report
from .teacher import teach
from .tune import tune
from .undecided import choose_starts

__all__ = [
    "FAMILIES",
    "LOSSES",
    "METHODS",
    "STRATEGIES",
    "Pairs",
    "choose_starts",
    "grown",
    "report",
    "teach",
    "tune",
]
