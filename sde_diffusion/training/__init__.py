"""From data to a denoiser."""

from .autoencoding import AutoencoderObjective
from .batch import Batch, Losses
from .checkpoint import checkpoints, latest
from .data import Data, Flipped, TensorData, as_data
from .diffusion import DiffusionObjective
from .digits import digits
from .ema import Average, ConstantDecay, PowerFunction
from .hugging_face import HuggingFaceData
from .image_folder import ImageFolder
from .loss import TARGETS, diffusion_loss
from .numpy_data import NumpyData
from .objective import Objective
from .train import train
from .trainer import Trainer, TrainResult

__all__ = [
    "TARGETS",
    "AutoencoderObjective",
    "Average",
    "Batch",
    "ConstantDecay",
    "Data",
    "DiffusionObjective",
    "Flipped",
    "HuggingFaceData",
    "ImageFolder",
    "Losses",
    "NumpyData",
    "Objective",
    "PowerFunction",
    "TensorData",
    "TrainResult",
    "Trainer",
    "as_data",
    "checkpoints",
    "diffusion_loss",
    "digits",
    "latest",
    "train",
]
