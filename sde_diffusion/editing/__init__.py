"""Editing: where a sampler starts, and what happens on its way; one method a file.

Every function here takes any denoiser, guided or not.
"""

from .by_inversion import edit, exactly_reversible
from .inpaint import inpaint
from .interpolation import interpolate, interpolation_grid
from .replacement import forgets, replacement
from .sdedit import sdedit

__all__ = [
    "edit",
    "exactly_reversible",
    "forgets",
    "inpaint",
    "interpolate",
    "interpolation_grid",
    "replacement",
    "sdedit",
]
