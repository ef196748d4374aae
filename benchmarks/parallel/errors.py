"""How far states are from those of the sequential run."""

from __future__ import annotations

from torch import Tensor


def differences(x: Tensor, exact: Tensor) -> dict[str, float]:
    """RMS over the samples, and largest, of |x - x*| / |x*|."""
    wanted = exact.double().flatten(1)
    errors = (x.double().flatten(1) - wanted).norm(dim=1) / wanted.norm(dim=1)
    return {"rms": float(errors.square().mean().sqrt()), "worst": float(errors.max())}
