"""Any plan in parallel: its rows solved at once, for fewer network calls one after another."""

from .network import Conditioned
from .solve import METHODS, ParallelRun, run_parallel

__all__ = ["METHODS", "Conditioned", "ParallelRun", "run_parallel"]
