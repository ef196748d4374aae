"""The one network that the benchmarks sample from: a noise predictor of 8 x 8 digits.

Every sampler is compared on the same trained network, so that differences are the sampler's.
It is trained here, in about a minute on two CPU cores, rather than downloaded; the checkpoint of
the training is the cache.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from sde_diffusion.networks import ResidualMLP
from sde_diffusion.schedules import VPLinear
from sde_diffusion.training import ConstantDecay, train

from .data import digits

SCHEDULE = VPLinear()
FOLDER = Path(__file__).parent / "output" / "networks"


@dataclass(frozen=True)
class Recipe:
    """What settles the trained network, and the name of its folder."""

    width: int
    depth: int
    hidden: int
    steps: int
    batch_size: int
    learning_rate: float

    @property
    def name(self) -> str:
        return "digits-" + "-".join(f"{value:g}" for value in asdict(self).values())


FULL = Recipe(width=256, depth=3, hidden=256, steps=6000, batch_size=256, learning_rate=1e-3)
QUICK = Recipe(width=256, depth=3, hidden=256, steps=600, batch_size=256, learning_rate=2e-3)


def digits_network(
    quick: bool = False, progress: bool = True, folder: str | Path | None = None
) -> nn.Module:
    """A noise predictor of the train digits with `SCHEDULE`, from its checkpoint if it is there.

    An interrupted training goes on where it stopped.

    Args:
        quick: a short training, for trying a benchmark out.
        progress: tell progress while training.
        folder: where checkpoints are kept; default benchmarks/output/networks.

    Returns:
        the network with averaged weights: (x_t, t) -> eps, x_t of shape (batch, 1, 8, 8), labels
        t of shape (batch,) in [0, 1].

    Raises:
        ValueError: if the checkpoint of this recipe is damaged or was made from other data.
        ImportError: without scikit-learn, accelerate or safetensors.
    """
    recipe = QUICK if quick else FULL
    images, _ = digits()
    network = ResidualMLP(images.shape[1:], recipe.width, recipe.depth, recipe.hidden)
    result = train(
        network,
        images,
        SCHEDULE,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        clip=None,
        ema=(ConstantDecay(0.999),),
        folder=Path(folder or FOLDER) / recipe.name,
        tensorboard=False,
        progress=progress,
    )
    return result.network.requires_grad_(False)
