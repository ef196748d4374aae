"""From data to a denoiser."""

from .batch import Batch, Losses
from .data import Data, Flipped, TensorData, as_data
from .diffusion import DiffusionObjective
from .digits import digits
from .hugging_face import HuggingFaceData
from .image_folder import ImageFolder
from .numpy_data import NumpyData
from .objective import Objective
from .train import TARGETS, TrainResult, diffusion_loss, train

__all__ = [
    "TARGETS",
    "Batch",
    "Data",
    "DiffusionObjective",
    "Flipped",
    "HuggingFaceData",
    "ImageFolder",
    "Losses",
    "NumpyData",
    "Objective",
    "TensorData",
    "TrainResult",
    "as_data",
    "diffusion_loss",
    "digits",
    "train",
]
