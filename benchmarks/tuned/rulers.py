"""What the samples of the network are measured with: three targets, two distances.

The targets are

    "held-out"   599 digits that the network was not trained on,
    "train"      the 1,198 digits that it was trained on,
    "law"        ends of the network's own probability-flow ODE, from other starts.

A sampler that followed the ODE without error would be at the floor of all three: on the first two
it is what the network lacks, on the last what two sets of this size differ by. A set of samples is
as large as a whole number of copies of the real set, and each real point then counts as many times:
sorted, this is the optimal transport in one dimension between sets of the two sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..data import digit_labels, digits
from ..metrics import Moments, classifier_features, directions, frechet_of_moments, moments

TARGETS = ("held-out", "train", "law")
DISTANCES = ("frechet", "sliced")
RULERS = tuple(f"{target} {distance}" for target in TARGETS for distance in DISTANCES)
DIRECTIONS = 128


@dataclass(frozen=True)
class Target:
    """A set of images, worked out beforehand.

    Attributes:
        moments: of the features of its images.
        projections: of its images, sorted, (m, directions).
    """

    moments: Moments
    projections: Tensor

    def sliced(self, projections: Tensor) -> float:
        """Sliced Wasserstein-2 to sorted projections of n samples; m divides n, or n divides m."""
        own, n = self.projections, len(projections)
        if n > len(own):
            own = own.repeat_interleave(n // len(own), 0)
        else:
            projections = projections.repeat_interleave(len(own) // n, 0)
        return float((projections - own).square().mean().sqrt())


class Rulers:
    """All distances of a set of samples.

    Args:
        law: ends of the network's ODE, (n, 1, 8, 8).

    Raises:
        ImportError: without scikit-learn.
    """

    def __init__(self, law: Tensor) -> None:
        (train, held_out), (labels, _) = digits(), digit_labels()
        self.features: Callable[[Tensor], Tensor] = classifier_features(train, labels)
        self.theta = directions(train[0].numel(), DIRECTIONS)
        sets = (held_out, train, law)
        self.targets = {
            name: Target(moments(self.features(x)), self._projected(x))
            for name, x in zip(TARGETS, sets, strict=True)
        }

    def __call__(self, samples: Tensor) -> dict[str, float]:
        """Ruler -> distance.

        Raises:
            ValueError: if their number is no multiple and no divisor of a target's.
        """
        own, projections = moments(self.features(samples)), self._projected(samples)
        found = {}
        for name, target in self.targets.items():
            m, n = len(target.projections), len(samples)
            if max(m, n) % min(m, n):
                raise ValueError(
                    f"{n} samples against the {m} of {name!r}: one must divide the other"
                )
            found[f"{name} frechet"] = frechet_of_moments(own, target.moments)
            found[f"{name} sliced"] = target.sliced(projections)
        return found

    def _projected(self, x: Tensor) -> Tensor:
        return (x.flatten(1).to(self.theta) @ self.theta).sort(0).values
