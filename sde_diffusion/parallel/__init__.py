"""Any plan in parallel: its rows solved at once, for fewer network calls one after another."""

from .solve import METHODS, ParallelRun, run_parallel

__all__ = ["METHODS", "ParallelRun", "run_parallel"]
