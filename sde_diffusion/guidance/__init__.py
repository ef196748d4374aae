"""Guidance: a denoiser made of denoisers, for every solver; one paper a file."""

from .adaptive_projected import adaptive_projected
from .autoguidance import autoguidance
from .cfg_plus_plus import cfg_plus_plus
from .cfg_zero_star import cfg_zero_star
from .classifier_free import classifier_free
from .composed import composed
from .energy import classifier, universal
from .gaussian_start import gaussian_start
from .guided import Cost, Guided, Rule, alone
from .interval import limited_interval
from .rescale import rescale
from .thresholding import dynamic_thresholding, static_thresholding

__all__ = [
    "Cost",
    "Guided",
    "Rule",
    "adaptive_projected",
    "alone",
    "autoguidance",
    "cfg_plus_plus",
    "cfg_zero_star",
    "classifier",
    "classifier_free",
    "composed",
    "dynamic_thresholding",
    "gaussian_start",
    "limited_interval",
    "rescale",
    "static_thresholding",
    "universal",
]
