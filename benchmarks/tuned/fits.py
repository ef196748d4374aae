"""The two plans that are tuned for a number of network calls.

    "paths"    the whole table, so that each start ends where the network's own ODE takes it: least
               squares on |x - x*| / |x*|, from `angular` with an analytic first step
    "digits"   the same table, further, so that its samples lie like the digits of the training:
               sliced Wasserstein-2 of pixels and features side by side, by gradient

The held-out digits, and the starts that anything is measured on, are in neither. The features are
the hidden layer of a classifier of those digits, another one than that of `rulers`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import SOLVERS, Plan
from sde_diffusion.times import default
from sde_diffusion.transform import analytic_first_step
from sde_diffusion.tuning.laws import sliced
from sde_diffusion.tuning.pairs import Pairs
from sde_diffusion.tuning.tune import tune

from ..data import digit_labels, digits
from ..metrics import classifier_features
from ..model import SCHEDULE
from .study import Study

FITS = ("paths", "digits")
FIT_SEED = 1000
DIRECTIONS = 256
CLASSIFIER_SEED = 1  # that of the rulers has 0


def tuned_plan(study: Study, name: str, nfe: int) -> Plan:
    """A plan of `FITS`, from its file where it was finished before.

    Raises:
        ValueError: an unknown name.
    """
    if name not in FITS:
        raise ValueError(f"fit {name!r} must be one of {FITS}")
    path = study.folder / f"{name}-{nfe}-{study.key}.json"
    if path.exists():
        return Plan.load(path)
    plan = _to_paths(study, nfe) if name == "paths" else _to_digits(study, nfe)
    plan.save(path)
    return plan


def _to_paths(study: Study, nfe: int) -> Plan:
    sizes = study.sizes
    base = SOLVERS["angular"](SCHEDULE, default(SCHEDULE, nfe + 1))
    pairs = study.pairs(FIT_SEED, sizes.train + sizes.validation)
    return _tune(
        study,
        analytic_first_step(base, SCHEDULE),
        reference=pairs,
        validation=sizes.validation,
        max_iterations=sizes.iterations,
    )


def _to_digits(study: Study, nfe: int) -> Plan:
    sizes, (images, _) = study.sizes, digits()
    sets = sizes.train_sets + sizes.validation_sets  # each as large as that of the digits
    starts = study.starts(FIT_SEED + 1, sets * len(images))
    ends = images.repeat(sets, *[1] * len(study.shape))
    return _tune(
        study,
        tuned_plan(study, "paths", nfe),
        reference=Pairs(starts, ends, SCHEDULE.t_max, SCHEDULE.t_min),
        validation=sizes.validation_sets * len(images),
        loss=sliced(directions=DIRECTIONS, features=pixels_and_features()),
        method="gradient",
        chunk=sizes.validation_sets * len(images),
        batch=len(images),
        max_iterations=sizes.steps,
        learning_rate=0.02,
    )


def pixels_and_features() -> Callable[[Tensor], Tensor]:
    """Images -> their pixels and their features side by side, (n, 64 + 64)."""
    features = classifier_features(digits()[0], digit_labels()[0], seed=CLASSIFIER_SEED)
    return lambda x: torch.cat([x.flatten(1), features(x).to(x)], 1)


def _tune(study: Study, base: Plan, **options: Any) -> Plan:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the record says which plan was chosen
        return tune(
            base, study.denoiser, free="table", label="digits", folder=study.folder, **options
        )
