"""Networks: (x, t, context, drop) -> one prediction of x's shape.

What a network predicts is settled by its training and read by `NetworkDenoiser`, not by its form.
"""

from .attention import CrossAttention, SelfAttention
from .build import NETWORKS, build, count_parameters
from .context import Condition, Told
from .dit import DiT
from .embedding import TimeEmbedding
from .mlp import ResidualMLP
from .network import Network
from .unet import UNet

__all__ = [
    "NETWORKS",
    "Condition",
    "CrossAttention",
    "DiT",
    "Network",
    "ResidualMLP",
    "SelfAttention",
    "TimeEmbedding",
    "Told",
    "UNet",
    "build",
    "count_parameters",
]
