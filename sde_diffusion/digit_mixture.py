r"""A law of handwritten digits in closed form: samples look like digits, and everything is known.

A few normal components for each of the ten digits, fitted to the images of 8 x 8 pixels that ship
with scikit-learn (`training.digits`): so class-conditional laws, scores, likelihoods and the
posterior given any linear measurement are exact, on data that look like images.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .counts import check_count
from .extras import optional
from .problems import GaussianMixture


class DigitMixture(NamedTuple):
    """A mixture and the digit of each of its components.

    Attributes:
        law: of images in [-1, 1] as 64 numbers; as images, `law.shaped(1, 8, 8)`.
        digits: which digit each component is of, (10 k,), int64.
    """

    law: GaussianMixture
    digits: Tensor

    def given(self, *digits: int) -> GaussianMixture:
        """The law of these digits alone, each 0 to 9."""
        if not digits or any(type(digit) is not int or not 0 <= digit <= 9 for digit in digits):
            raise ValueError(f"digits = {digits} must be one or more of 0 to 9")
        wanted = torch.isin(self.digits, torch.tensor(digits))
        return self.law.given(wanted.nonzero().flatten())


def digit_mixture(
    components: int = 3, shrinkage: float = 20.0, floor: float = 0.1, seed: int = 0
) -> DigitMixture:
    """A mixture of 10 k Gaussians fitted to the 1,198 training digits, k components a digit.

    The images of a digit are parted by k-means. With n images of mean mu_j and covariance S_j in
    part j, and the covariance W about the means pooled over the digit's parts,

        w_j = n / N,    C_j = (n S_j + nu W) / (n + nu) + h^2 I.

    Args:
        components: k, for each digit.
        shrinkage: nu >= 0, how many images the pooled covariance counts for.
        floor: h > 0, the deviation that every pixel has at least; pixels are in [-1, 1].
        seed: of k-means.

    Raises:
        ImportError: without scikit-learn.
        ValueError: components below 1 or above 50, shrinkage negative, or floor not positive, or
            components or seed no whole number.
    """
    check_count("components", components)
    check_count("seed", seed, least=0)
    if not (1 <= components <= 50 and shrinkage >= 0 and floor > 0):
        raise ValueError(
            f"components = {components}, shrinkage = {shrinkage}, floor = {floor}: must be 1 to "
            "50, at least 0, and positive"
        )
    from .training.digits import digits  # a trainer's data: heavier than this module

    cluster = optional("sklearn.cluster", "the digits")
    data = digits("train")
    images, classes = data.batch(torch.arange(len(data)))
    images = images.flatten(1).double()
    weights, means, covariances = [], [], []
    for digit in range(10):
        mine = images[classes == digit]
        fitted = cluster.KMeans(components, n_init=10, random_state=seed).fit(mine.numpy())
        parts = [mine[torch.from_numpy(fitted.labels_) == j] for j in range(components)]
        centred = [part - part.mean(0) for part in parts]
        pooled = sum(c.T @ c for c in centred) / len(mine)
        for part, c in zip(parts, centred, strict=True):
            weights.append(len(part) / len(images))
            means.append(part.mean(0))
            covariances.append((c.T @ c + shrinkage * pooled) / (len(part) + shrinkage))
    least = floor**2 * torch.eye(64, dtype=torch.float64)
    law = GaussianMixture(weights, torch.stack(means), torch.stack(covariances) + least)
    return DigitMixture(law, torch.arange(10).repeat_interleave(components))
