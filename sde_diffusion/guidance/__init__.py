"""Guidance: a denoiser made of denoisers, for every solver; one paper a file."""

from .autoguidance import autoguidance
from .classifier_free import classifier_free
from .guided import Cost, Guided, Rule, alone

__all__ = ["Cost", "Guided", "Rule", "alone", "autoguidance", "classifier_free"]
