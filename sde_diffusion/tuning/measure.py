r"""How good a plan is on pairs: its loss, and the relative error of its ends.

    error of one sample = |x - x*| / |x*|,    as RMS and as median over the samples,

each of which counts by its weight, if it has one.

An RMS above a few per cent mostly counts samples that end in another mode of the data; the median
does not see them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..comparison.reference import relative
from ..denoise import Denoiser
from ..plan import Plan
from ..run import record
from ..states import flat
from .loss import Loss, check_ends
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
        times = path.times.to(path.states.device)
        losses.append(loss.values(path.states, times, part).cpu())
        errors.append(relative(flat(path.states[-1].double()), flat(part.ends.double())).cpu())
    off = torch.cat(errors)
    rms = pairs.weighed(off.square()).mean().sqrt()
    found = (torch.cat(losses).mean(), rms, _median(off, pairs.weights))
    values = [float(v) for v in found]
    return Errors(*values) if all(map(math.isfinite, values)) else Errors()


def _median(values: Tensor, weights: Tensor | None) -> Tensor:
    """The least value that half the weight does not exceed."""
    if weights is None:
        return values.median()
    order = values.argsort()
    below = weights[order].cumsum(0)
    return values[order][torch.searchsorted(below, below[-1] / 2)]
