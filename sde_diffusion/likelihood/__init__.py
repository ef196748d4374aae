"""How likely data are: densities along the probability flow, bits per dimension, Ito's estimate."""

from .dequantise import DEQUANTISATIONS, BitsPerDimension, bits_per_dimension
from .flow import log_likelihood
from .ito import REVERSE_SDE, DensitySamples, sample_with_density
from .latents import decode, encode
from .reference import GaussianReference
from .result import Likelihood
from .trace import TRACES

__all__ = [
    "DEQUANTISATIONS",
    "REVERSE_SDE",
    "TRACES",
    "BitsPerDimension",
    "DensitySamples",
    "GaussianReference",
    "Likelihood",
    "bits_per_dimension",
    "decode",
    "encode",
    "log_likelihood",
    "sample_with_density",
]
