"""Networks: (x, t, context, drop) -> one prediction of x's shape.

What a network predicts is settled by its training and read by `NetworkDenoiser`, not by its form.
"""

from .embedding import TimeEmbedding
from .mlp import ResidualMLP

__all__ = ["ResidualMLP", "TimeEmbedding"]
