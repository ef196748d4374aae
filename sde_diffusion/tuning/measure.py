r"""How good a plan is on pairs: its loss, and the relative error of its ends.

    error of one sample = |x - x*| / |x*|,    as RMS and as median over the samples.

An RMS above a few per cent mostly counts samples that end in another mode of the data; the median
does not see them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..comparison.reference import relative
from ..denoise import Denoiser
from ..plan import Plan
from ..run import record
from .loss import Loss, check_ends, flat
from .pairs import Pairs


@dataclass(frozen=True)
class Errors:
    """A plan's loss, and the RMS and median relative error of its ends; infinite if it fails."""

    loss: float = math.inf
    rms: float = math.inf
    median: float = math.inf

    def plain(self) -> dict[str, Any]:
        """For a plan's origin; None stands for infinite."""
        return {k: v if math.isfinite(v) else None for k, v in asdict(self).items()}


@torch.no_grad()
def measure(
    plan: Plan, denoiser: Denoiser, loss: Loss, pairs: Pairs, chunk: int = 256, noise: int = 0
) -> Errors:
    """The errors of a plan on pairs, samples run in chunks."""
    check_ends(loss, pairs)
    losses, errors = [], []
    for first in range(0, len(pairs), chunk):
        part = pairs.part(first, first + chunk)
        try:
            path = record(plan, denoiser, part.starts, noise=noise + first)
        except FloatingPointError:
            return Errors()
        residual = loss.residual(path.states, path.times.to(path.states.device), part)
        losses.append(loss.penalty(residual.double().square().sum(1)).cpu())
        errors.append(relative(flat(path.states[-1].double()), flat(part.ends.double())).cpu())
    off = torch.cat(errors)
    found = (torch.cat(losses).mean(), off.square().mean().sqrt(), off.median())
    values = [float(v) for v in found]
    return Errors(*values) if all(map(math.isfinite, values)) else Errors()
