"""Networks: (x, t, context, drop) -> one prediction of x's shape.

What a network predicts is settled by its training and read by `NetworkDenoiser`, not by its form.
"""

from .attention import CrossAttention, SelfAttention
from .autoencoder import Autoencoder
from .build import AUTOENCODERS, NETWORKS, build, build_autoencoder, count_parameters
from .context import Condition, Told
from .dit import DiT
from .embedding import TimeEmbedding
from .encoding import Autoencoding, Posterior
from .mlp import ResidualMLP
from .network import Network
from .unet import UNet

__all__ = [
    "AUTOENCODERS",
    "NETWORKS",
    "Autoencoder",
    "Autoencoding",
    "Condition",
    "CrossAttention",
    "DiT",
    "Network",
    "Posterior",
    "ResidualMLP",
    "SelfAttention",
    "TimeEmbedding",
    "Told",
    "UNet",
    "build",
    "build_autoencoder",
    "count_parameters",
]
