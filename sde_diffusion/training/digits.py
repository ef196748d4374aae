"""Real data that ship with a package: 1,797 handwritten digits, 8 x 8 pixels.

Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI machine learning repository,
1998; the copy inside scikit-learn, so that nothing is downloaded. Pixels count from 0 to 16 and
are scaled to [-1, 1]. One fixed shuffle splits them into 1,198 to train on and 599 held out.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..extras import optional
from ..names import look_up
from .data import UNIT, TensorData

TRAIN = 1198  # of 1,797
PARTS = {"train": slice(TRAIN), "held_out": slice(TRAIN, None), "all": slice(None)}


@cache
def _load() -> tuple[Tensor, Tensor]:
    bunch = optional("sklearn.datasets", "the digits").load_digits()
    # The legacy generator's stream is frozen: the split is the same with every numpy.
    order = np.random.RandomState(0).permutation(len(bunch.images))
    images = torch.tensor(bunch.images[order] / 8 - 1, dtype=torch.float32)
    return images.unsqueeze(1), torch.tensor(bunch.target[order], dtype=torch.int64)


def digits(part: str = "train", labels: bool = True) -> TensorData:
    """Handwritten digits, (1, 8, 8), in [-1, 1].

    Args:
        part: "train" (1,198 images), "held_out" (599) or "all".
        labels: whether the digits 0..9 are their conditions.

    Raises:
        ImportError: without scikit-learn.
        ValueError: an unknown part.
    """
    chosen = look_up("part", part, PARTS)
    images, classes = _load()
    return TensorData(images[chosen].clone(), classes[chosen].clone() if labels else None, UNIT)
