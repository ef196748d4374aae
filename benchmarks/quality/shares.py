r"""Errors of a set of starts, and of one sampler over another from the same starts.

With e = |x - x*|/|x*| on n starts, R = sqrt(mean e^2), and both samplers run from the same starts,
so that their share s = R/R_other is one of pairs, to first order

    se(R) = sd(e^2) / (2 R sqrt n),
    se(s) = sd(e^2 - s^2 e_other^2) / (2 s R_other^2 sqrt n).

The RMS of a good sampler is a count of the few samples that end in another mode ("elsewhere"): of
k alone it is known to 1/(2 sqrt k). The median's error is half the distance of the quantiles
1/2 -+ 1/(2 sqrt n), and that of a share of medians takes the two for independent.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

ELSEWHERE = 0.3  # e beyond which a sample counts as ended in another mode


def figures(off: Tensor) -> dict[str, Any]:
    """RMS and median with their standard errors, and how many samples ended elsewhere."""
    root = math.sqrt(len(off))
    rms = float(off.square().mean().sqrt())
    low, high = off.quantile(torch.tensor([0.5 - 0.5 / root, 0.5 + 0.5 / root]).to(off)).tolist()
    return {
        "rms": rms,
        "median": float(off.quantile(0.5)),
        "rms error": float(off.square().std()) / (2 * rms * root),
        "median error": (high - low) / 2,
        "elsewhere": int((off > ELSEWHERE).sum()),
    }


def rms_share(off: Tensor, other: Tensor) -> tuple[float, float]:
    """s = R/R_other over the same starts, and its standard error."""
    ours_, theirs = off.square(), other.square()
    s = float((ours_.mean() / theirs.mean()).sqrt())
    spread = float((ours_ - s**2 * theirs).std())
    return s, spread / (2 * s * float(theirs.mean()) * math.sqrt(len(off)))


def median_share(off: Tensor, other: Tensor) -> tuple[float, float]:
    """The share of medians, and its standard error."""
    a, b = figures(off), figures(other)
    s = a["median"] / b["median"]
    return s, s * math.hypot(*(f["median error"] / f["median"] for f in (a, b)))


share_of = {"rms": rms_share, "median": median_share}
