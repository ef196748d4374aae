r"""A diffusion model of latents with the decoder that makes samples of them, as one thing.

    z_T ~ N(0, sigma_T^2 I)  ->  any solver  ->  z_0  ->  x = x_hat(shift + scale z_0).

Rombach, Blattmann, Lorenz, Esser & Ommer, "High-resolution image synthesis with latent diffusion
models", 2022, arXiv:2112.10752.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..denoise import Denoiser, NetworkDenoiser
from ..model import describe_model, model_of
from ..sample import sample
from ..training.load import load_denoiser
from ..weights import TRAINING, latest, read_file, under, write_file
from .space import LatentSpace

FORMAT = "sde_diffusion.latent_diffusion/1"


class LatentDiffusion:
    """A denoiser of latents and the space that they belong to.

    `sample(denoiser, (n, *space.event_shape), ...)`, then `space.decode`. Everything else that
    takes a denoiser takes `model.denoiser`: solvers, guidance, `compare`, `tune`.

    Args:
        denoiser: of latents, as `sample` takes it.
        space: whose latents it was trained on.

    Raises:
        TypeError: if one of them is something else.
    """

    def __init__(self, denoiser: Denoiser, space: LatentSpace) -> None:
        if not isinstance(denoiser, Denoiser):
            raise TypeError(
                f"denoiser is a {type(denoiser).__name__}; say how to read the network: "
                "NetworkDenoiser(network, schedule, prediction='noise')"
            )
        if not isinstance(space, LatentSpace):
            raise TypeError(
                f"space is a {type(space).__name__}; a space is an autoencoder with the scale of "
                "its latents: LatentSpace.measure(autoencoder, data)"
            )
        self.denoiser, self.space = denoiser, space

    def sample(self, count: int, **options: Any) -> Tensor:
        """Draw decoded samples, shape (count, *event).

        Args:
            count: how many, at least 1.
            options: all that `sample` takes: solver, steps, seed, ...

        It raises what `sample` does.
        """
        return self.space.decode(sample(self.denoiser, (count, *self.space.event_shape), **options))

    def given(self, *condition: Any) -> LatentDiffusion:
        """The same model under conditions, (context,) or (context, drop), one a sample.

        Raises:
            TypeError: if the denoiser takes none.
        """
        denoiser = self._network_denoiser("given conditions").given(*condition)
        return LatentDiffusion(denoiser, self.space)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to one safetensors file, whole or not at all; no bound conditions.

        Raises:
            TypeError: if the denoiser is no `NetworkDenoiser`.
            ValueError: if network, schedule, label or autoencoder are not this library's.
            OSError: if it cannot be written; a file that was there stays as it was.
        """
        denoiser = self._network_denoiser("saved")
        network = denoiser.network
        header = {
            "model": describe_model(denoiser, self.space.event_shape),
            "space": self.space.header(),
        }
        assert isinstance(network, nn.Module)  # what has a description is one
        parts = {"network.": network.state_dict(), "space.": self.space.state_dict()}
        tensors = {prefix + k: v for prefix, part in parts.items() for k, v in part.items()}
        write_file(Path(path), FORMAT, tensors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatentDiffusion:
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is damaged or of another kind.
        """
        tensors, header = read_file(Path(path), FORMAT)
        denoiser = model_of(header["model"], f"{path}: model")
        network = denoiser.network
        assert isinstance(network, nn.Module)  # `build` makes no other
        network.load_state_dict(under("network.", tensors))
        network.eval().requires_grad_(False)
        return cls(denoiser, LatentSpace.restored(under("space.", tensors), header["space"]))

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike[str], space: LatentSpace, average: str | float | None = None
    ) -> LatentDiffusion:
        """From a checkpoint of a `Trainer` that was given `space.encode_all(...)` as its data.

        Args:
            path: the checkpoint, or the folder of the run.
            space: the latents that it was trained on.
            average: which average of the weights; see `training.load_denoiser`.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: it was trained on something else than latents of this space (another
                autoencoder, other weights of it, or another scale), or with a network of one's
                own.
        """
        path = latest(path)
        _, header = read_file(path, TRAINING)
        trained_on = header["configuration"]["data"]
        if not trained_on.startswith(space.describe()):
            raise ValueError(
                f"{path} was trained on {trained_on!r}, but this space has {space.describe()!r}: "
                "its samples would be decoded to nonsense; give the space of its training"
            )
        return cls(load_denoiser(path, average), space)

    def _network_denoiser(self, what: str) -> NetworkDenoiser:
        if not isinstance(self.denoiser, NetworkDenoiser):
            raise TypeError(
                f"only a NetworkDenoiser can be {what}, not a {type(self.denoiser).__name__}"
            )
        return self.denoiser
