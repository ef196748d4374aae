"""The exact ends of probability-flow paths, as far as a network of one's own lets them be known.

The ODE is solved by an adaptive method of order 8 at two tolerances, ten times apart. How far the
two ends differ is shown beside every result: an error of a solver below that says nothing.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..adaptive import scipy
from ..denoise import Denoiser
from ..files import write_atomic
from ..states import flat

METHOD = "DOP853"
FINEST = 1e-13  # the finest tolerance that float64 lets the method meet


@dataclass(frozen=True)
class Reference:
    """Where the paths end.

    Attributes:
        x: the ends, (n, *event), float64.
        tolerance: rtol = atol of the finer solution.
        rms, median, worst: of |x - y|/|x|, y the solution at ten times the tolerance: about the
            error of y, and more than that of x.
        nfe: network calls of the finer solution.
    """

    x: Tensor
    tolerance: float
    rms: float
    median: float
    worst: float
    nfe: int

    def numbers(self) -> dict[str, Any]:
        """All but the ends."""
        return {name: value for name, value in asdict(self).items() if name != "x"}


def relative(x: Tensor, exact: Tensor) -> Tensor:
    """|x - x*| / |x*| of every sample, (n,)."""
    difference = flat(x.to(exact) - exact).norm(dim=1)
    return difference / flat(exact).norm(dim=1)


def solve_reference(denoiser: Denoiser, start: Tensor, t_end: float, tolerance: float) -> Reference:
    """The ends of the paths from `start` at t_max.

    Raises:
        ValueError: if the tolerance is not in [1e-13, 0.1).
        FloatingPointError: if the solver gives up.
    """
    if not FINEST <= tolerance < 0.1:
        raise ValueError(
            f"reference_tolerance = {tolerance} must lie between {FINEST:g}, where float64 "
            "ends, and 0.1, well below the errors that are to be seen (1e-6)"
        )
    times = [denoiser.schedule.t_max, t_end]
    rough, fine = (
        scipy(denoiser, start, times, method=METHOD, rtol=tol, atol=tol)
        for tol in (10 * tolerance, tolerance)
    )
    error = relative(rough.x, fine.x)
    return Reference(
        fine.x,
        tolerance,
        float(error.square().mean().sqrt()),
        float(error.median()),
        float(error.max()),
        fine.nfe,
    )


def save_ends(path: Path, ends: Tensor) -> None:
    """As a .npy file, whole or not at all."""
    content = io.BytesIO()
    np.save(content, ends.cpu().numpy(), allow_pickle=False)
    write_atomic(path, content.getvalue())


def load_ends(path: Path, like: Tensor) -> Tensor | None:
    """What `save_ends` wrote; None if there is no such file, or it is damaged."""
    try:
        ends = torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
    return ends.to(like) if ends.shape == like.shape else None
