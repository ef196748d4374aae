"""How much a figure depends on which digits were held out: the jackknife.

The seeds of the starts tell how far chance in the samples moves a distance; that the real set is
599 digits and not all there are moves it too, and for all plans at once. Of a difference of two
plans' Frechet distances to the held-out digits, with groups of them left out in turn,

    se^2 = (g - 1)/g  sum_k (difference without group k  -  mean of these)^2.

Efron & Stein, "The jackknife estimate of variance", 1981.
"""

from __future__ import annotations

import math
import statistics

import torch

from sde_diffusion import Plan

from ..data import digits
from ..metrics import Moments, frechet_of_moments, moments
from .study import Study

GROUPS = 120


def error_over_digits(study: Study, own: Plan, rival: Plan) -> float:
    """Standard error over the held-out digits of own less rival, "held-out frechet"."""
    features = study.rulers.features
    sets = [
        [moments(features(study.samples(plan, seed))) for seed in study.sizes.seeds]
        for plan in (own, rival)
    ]

    def difference(real: Moments) -> float:
        a, b = (statistics.fmean(frechet_of_moments(x, real) for x in some) for some in sets)
        return a - b

    real = features(digits()[1])
    groups = torch.arange(len(real)).tensor_split(GROUPS)  # the digits are in no order
    without = [torch.cat([other for other in groups if other is not group]) for group in groups]
    found = [difference(moments(real[rest])) for rest in without]
    return math.sqrt(GROUPS - 1) * statistics.pstdev(found)
