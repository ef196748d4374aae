"""What `tune` keeps of a fit in the plan, and what it warns of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..form import number_of
from ..plan import Plan
from ..version import __version__
from .base import Base
from .fit import Fit
from .loss import Loss
from .measure import Errors
from .pairs import Pairs
from .report import ended
from .way import Way

_EARLIER = ("about", "label", "schedule", "loss", "seed", "date", "version")
GAIN = 1 + 1e-6  # less than this is rounding, and no gain over what there was before


def warn(
    found: Mapping[str, tuple[Errors, Errors]], plans: Mapping[str, Plan], fit: Fit, best: str
) -> None:
    """Say aloud what is less than hoped for, at the line that called `tune`."""
    loss = {key: on[1].loss for key, on in found.items()}
    if fit.stopped.startswith("not finite"):
        kept = "the best plan until then, on the validation starts, is kept"
        if best == "base":
            kept = f"until then it had not bettered {plans['base'].name}, which is returned"
        kept += "; look at what the network answers"
        warnings.warn(f"the fit ended early ({fit.stopped}): {kept}", stacklevel=4)
    elif best == "base":
        warnings.warn(
            f"the fit ended ({ended(fit.stopped)}) with a loss of {loss['tuned']:.3g} on the "
            f"validation starts, and {plans['base'].name}, to begin with, has "
            f"{loss['base']:.3g}: that plan is returned. Give more starts, another base or "
            "another `free`",
            stacklevel=4,
        )
    if loss.get("default", math.inf) * GAIN < loss[best]:
        warnings.warn(
            f"the default of sample, {plans['default'].name}, has a loss of {loss['default']:.3g} "
            f"on the validation starts, less than {loss[best]:.3g} of the plan returned: begin "
            "with base='angular', or free more",
            stacklevel=4,
        )


def warn_unused(above: float, base: Base) -> None:
    """Say that the law of the data is not asked where a plan starts, at the line of `tune`."""
    plan, rho = base.plan, float(base.schedule.rho(base.t_start))
    if rho > above:
        text = f"{plan.name} does not ask at its start, where gaussian_start answers for nothing: "
        text += "begin with a plan that does, as base='angular'"
    else:
        text = f"{plan.name} begins at sigma/alpha = {rho:.6g}, and the law of gaussian_start is "
        text += f"asked above {above:.6g}, so that no call is spared: give gaussian_start a lower "
        text += f"level, as above={0.99 * rho:.3g}"
    warnings.warn(text, stacklevel=4)


def record_of(
    plan: Plan, loss: Loss, way: Way, fit: Fit, pairs: Pairs, train: Pairs, held: Pairs
) -> dict[str, Any]:
    """How the plan was made, in plain values."""
    in_all = {} if pairs.weights is None else {"in all": pairs.origin.get("starts in all")}
    return {
        "nfe": plan.nfe,
        "spared": sum(row.kind == "given" for row in plan.rows),
        "t_start": number_of(plan.rows[0].t),
        "t_end": number_of(plan.rows[-1].t),
        "free": way.free,
        "loss": str(loss),
        "method": way.method,
        "fit": {
            "numbers": len(fit.numbers),
            "iterations": fit.iterations,
            "seconds": fit.seconds,
            "stopped": fit.stopped,
        },
        "teacher": dict(pairs.origin),
        "starts": {"train": len(train), "validation": len(held), **in_all},
        "shape": list(pairs.starts.shape[1:]),
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def before(origin: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a plan that is tuned again was, and was before: some words of each, the oldest first."""
    words = {key: origin[key] for key in _EARLIER if key in origin} or dict(origin)
    return [*origin.get("before", ()), words]
