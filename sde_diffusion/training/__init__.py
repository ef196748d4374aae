"""From data to a denoiser."""

from ..weights import checkpoints, latest
from .autoencoding import AutoencoderObjective
from .batch import Batch, Losses
from .build import trainer_of
from .config import Configuration, read_configuration
from .data import Data, Flipped, TensorData, as_data
from .diffusion import DiffusionObjective
from .digits import digits
from .effective import effective_weight, plot_effective_weights
from .ema import Average, ConstantDecay, PowerFunction
from .hugging_face import HuggingFaceData
from .image_folder import ImageFolder
from .importance import Importance
from .laws import LAWS, Law, law_of
from .learned_variance import LearnedVarianceObjective
from .load import LoadedModel, load_denoiser, load_model
from .numpy_data import NumpyData
from .objective import Objective
from .pairs import Erased, Outline, Pairs, Smaller
from .schedule_learning import LearnedScheduleObjective
from .train import train
from .trainer import Trainer, TrainResult
from .uncertainty import LearnedUncertainty
from .weightings import WEIGHTINGS, Weighting, weighting_of

__all__ = [
    "LAWS",
    "WEIGHTINGS",
    "AutoencoderObjective",
    "Average",
    "Batch",
    "Configuration",
    "ConstantDecay",
    "Data",
    "DiffusionObjective",
    "Erased",
    "Flipped",
    "HuggingFaceData",
    "ImageFolder",
    "Importance",
    "Law",
    "LearnedScheduleObjective",
    "LearnedUncertainty",
    "LearnedVarianceObjective",
    "LoadedModel",
    "Losses",
    "NumpyData",
    "Objective",
    "Outline",
    "Pairs",
    "PowerFunction",
    "Smaller",
    "TensorData",
    "TrainResult",
    "Trainer",
    "Weighting",
    "as_data",
    "checkpoints",
    "digits",
    "effective_weight",
    "latest",
    "law_of",
    "load_denoiser",
    "load_model",
    "plot_effective_weights",
    "read_configuration",
    "train",
    "trainer_of",
    "weighting_of",
]
