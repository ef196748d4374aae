"""Latent diffusion: the process runs on the latents of an autoencoder, and its ends are decoded."""

from .data import Latents
from .model import LatentDiffusion
from .space import LatentSpace

__all__ = ["LatentDiffusion", "LatentSpace", "Latents"]
