"""From data to a denoiser."""

from .batch import Batch, Losses
from .diffusion import DiffusionObjective
from .objective import Objective
from .train import TARGETS, TrainResult, diffusion_loss, train

__all__ = [
    "TARGETS",
    "Batch",
    "DiffusionObjective",
    "Losses",
    "Objective",
    "TrainResult",
    "diffusion_loss",
    "train",
]
