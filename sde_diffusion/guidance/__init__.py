"""Guidance: a denoiser made of denoisers, for every solver; one paper a file."""

from .adaptive_projected import adaptive_projected
from .autoguidance import autoguidance
from .cfg_zero_star import cfg_zero_star
from .classifier_free import classifier_free
from .energy import classifier, universal
from .guided import Cost, Guided, Rule, alone
from .thresholding import dynamic_thresholding, static_thresholding

__all__ = [
    "Cost",
    "Guided",
    "Rule",
    "adaptive_projected",
    "alone",
    "autoguidance",
    "cfg_zero_star",
    "classifier",
    "classifier_free",
    "dynamic_thresholding",
    "static_thresholding",
    "universal",
]
