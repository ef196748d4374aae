"""Sequential Monte Carlo over plans: exact conditional sampling as particles grow."""

from .engine import Options, run_particles
from .guide import Guide, Move, Seen
from .resampling import SCHEMES, effective_sample_size
from .result import Population
from .steering import POTENTIALS, steer
from .twisted import TwistedGuide, twisted
from .twists import TWISTS, Level, isotropic, matched, projected, tweedie

__all__ = [
    "POTENTIALS",
    "SCHEMES",
    "TWISTS",
    "Guide",
    "Level",
    "Move",
    "Options",
    "Population",
    "Seen",
    "TwistedGuide",
    "effective_sample_size",
    "isotropic",
    "matched",
    "projected",
    "run_particles",
    "steer",
    "tweedie",
    "twisted",
]
