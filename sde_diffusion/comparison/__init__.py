"""Which solver for one's own model: `compare` runs them all and measures where they end."""

from .compare import Comparison, compare
from .entries import Entry, variants
from .reference import Reference
from .results import Cell, Results

__all__ = ["Cell", "Comparison", "Entry", "Reference", "Results", "compare", "variants"]
