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

TRAIN, HELD_OUT = 1198, 599


@cache
def _load() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits need scikit-learn: pip install 'sde_diffusion[bench]'"
        ) from error
    bunch = load_digits()
    # The legacy generator's stream is frozen: the split is the same with every numpy.
    order = np.random.RandomState(0).permutation(len(bunch.images))
    images = torch.tensor(bunch.images[order] / 8 - 1, dtype=torch.float32)
    return images.unsqueeze(1), torch.tensor(bunch.target[order], dtype=torch.int64)


def digits() -> tuple[Tensor, Tensor]:
    """(train, held_out): images in [-1, 1], float32, shapes (1198, 1, 8, 8) and (599, 1, 8, 8).

    Raises:
        ImportError: without scikit-learn.
    """
    images, _ = _load()
    return images[:TRAIN].clone(), images[TRAIN:].clone()


def digit_labels() -> tuple[Tensor, Tensor]:
    """(train, held_out): the digits 0..9 of the images of `digits`, int64, (1198,) and (599,).

    Raises:
        ImportError: without scikit-learn.
    """
    _, labels = _load()
    return labels[:TRAIN].clone(), labels[TRAIN:].clone()
