r"""The latents of an autoencoder, shifted and scaled to mean 0 and variance 1.

An autoencoder gives latents y ~ q(y|x) = N(m(x), diag s^2(x)) of any mean and scale, while
schedules and networks are made for data of unit variance. So the process runs on

    z = (y - shift)/scale,        shift = E y = E m(x),        scale^2 = Var y = Var m + E s^2,

one of each a channel, or one for all channels. The moments are those of q(y) = E_x q(y|x) over the
data, by the law of total variance: nothing is drawn, and one pass suffices. Rombach, Blattmann,
Lorenz, Esser & Ommer, "High-resolution image synthesis with latent diffusion models", 2022,
arXiv:2112.10752, take one number from the draws of a batch.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..counts import check_count
from ..networks.build import AUTOENCODERS, build_autoencoder
from ..networks.encoding import Autoencoding, Posterior
from ..training.batch import Batch
from ..training.data import Data, as_data
from ..weights import digest_of, read_file, under, write_file
from .data import Latents

CONSTANT = 1e-6  # deviation over mean below which a channel varies by rounding only
FORMAT = "sde_diffusion.latent_space/1"
LATENTS = "latents"  # the first word of what `LatentSpace.describe` says


class LatentSpace(nn.Module):
    """An autoencoder with the affine map that gives its latents mean 0 and variance 1.

    z = (y - shift)/scale of y ~ q(y|x); made by `LatentSpace.measure` or `LatentSpace.load`.

    Args:
        autoencoder: a trained one; a copy of it is kept, in evaluation mode.
        event_shape: shape of the latents of one sample, channels first.
        shift, scale: one number a channel, shape (channels,), or one for all, shape (1,).

    Raises:
        ValueError: if shift or scale has another shape or is not finite, or scale not positive.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, autoencoder: Autoencoding, event_shape: Sequence[int], shift: Tensor, scale: Tensor
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        sizes = ((1,), self.event_shape[:1])
        if tuple(shift.shape) not in sizes or tuple(scale.shape) not in sizes:
            raise ValueError(
                f"shift and scale have shapes {tuple(shift.shape)} and {tuple(scale.shape)}; need "
                f"one number a channel, {sizes[1]}, or one for all, (1,)"
            )
        if not (shift.isfinite().all() and scale.isfinite().all() and scale.min() > 0):
            raise ValueError(
                f"shift = {shift.tolist()} must be finite, scale = {scale.tolist()} finite and "
                "positive"
            )
        self.autoencoder = copy.deepcopy(autoencoder).eval().requires_grad_(False)
        like = next(autoencoder.parameters(), torch.empty(0))
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.register_buffer("shift", shift.detach().to(like.device, dtype))
        self.register_buffer("scale", scale.detach().to(like.device, dtype))

    @classmethod
    def measure(
        cls,
        autoencoder: Autoencoding,
        data: Data | Tensor,
        per_channel: bool = True,
        batch_size: int = 256,
    ) -> LatentSpace:
        """The latent space of an autoencoder, its shift and scale measured in one pass over data.

        Args:
            autoencoder: a trained one.
            data: what it was trained on, or enough of it.
            per_channel: one shift and scale a channel; else one of each for all.
            batch_size: samples encoded at a time.

        Raises:
            ValueError: if a channel of the latents has no variance over the data, or data or
                latents are not finite; batch_size below 1.
        """
        data, moments = as_data(data), _Moments()
        encoder = copy.deepcopy(autoencoder).eval()
        shape: tuple[int, ...] = ()
        for x, _ in _batches(data, batch_size):
            posterior = _encode(encoder, x)
            shape = tuple(posterior.mean.shape[1:])
            moments.add(posterior, per_channel)
        scale = moments.variance.sqrt()
        constant = scale <= CONSTANT * moments.mean.abs()
        if constant.any():
            raise ValueError(
                f"channel {int(constant.nonzero()[0])} of the latents is the same for all of the "
                "data, so that it cannot have variance 1: train the autoencoder for longer, give "
                "it fewer latent channels, or measure with per_channel=False"
            )
        return cls(autoencoder, shape, moments.mean, scale)

    @property
    def variational(self) -> bool:
        """Whether a sample has a law of latents, and not one point."""
        return self.autoencoder.variational

    def posterior(self, x: Tensor) -> Posterior:
        """q(z|x) = N((m(x) - shift)/scale, diag s^2(x)/scale^2).

        Args:
            x: samples, shape (batch, *event).

        Raises:
            ValueError: if samples or their latents are not finite.
        """
        y = _encode(self.autoencoder, x)
        shift, scale = (_along(c, y.mean) for c in (self.shift, self.scale))
        log_variance = None if y.log_variance is None else y.log_variance - 2 * scale.log()
        return Posterior((y.mean - shift) / scale, log_variance)

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """z of samples x: the mean of q(z|x), or with a generator (on the CPU) a draw from it.

        It raises what `posterior` does.
        """
        posterior = self.posterior(x)
        return posterior.mean if generator is None else posterior.draw(generator)

    def decode(self, z: Tensor, batch_size: int = 256) -> Tensor:
        """x_hat(shift + scale z), in z's dtype.

        Args:
            z: latents, shape (batch, *event_shape).
            batch_size: latents decoded at a time.

        Raises:
            ValueError: if z has another shape, or is not finite; batch_size below 1.
        """
        check_count("batch_size", batch_size)
        if tuple(z.shape[1:]) != self.event_shape or not len(z):
            raise ValueError(
                f"latents of shape {tuple(z.shape)}, but this autoencoder was measured with "
                f"(batch, {', '.join(map(str, self.event_shape))})"
            )
        _check_finite("latents", z)
        y = z * _along(self.scale, z) + _along(self.shift, z)
        like = next(self.autoencoder.parameters(), y)
        parts = [self.autoencoder.decode(part.to(like)) for part in y.split(batch_size)]
        return torch.cat(parts).to(z)

    def encode_all(self, data: Data | Tensor, batch_size: int = 256) -> Latents:
        """Data for a trainer: the posteriors of all samples, with their conditions.

        A trainer is given a new draw from q(z|x) each time that it asks for a sample. What data
        change at random (flips) stays unchanged here: each sample is encoded once.

        Args:
            data: samples, as the autoencoder was trained on.
            batch_size: samples encoded at a time.

        Raises:
            ValueError: if samples or their latents are not finite; batch_size below 1.
        """
        data = as_data(data)
        parts, contexts = list[Posterior](), list[Tensor]()
        for x, context in _batches(data, batch_size):
            parts.append(self.posterior(x))
            contexts += [] if context is None else [context]
        mean = torch.cat([part.mean for part in parts])
        spreads = [part.log_variance for part in parts if part.log_variance is not None]
        posterior = Posterior(mean, torch.cat(spreads) if spreads else None)
        origin = f"{self.describe()}, of {data.describe()}"
        return Latents(posterior, torch.cat(contexts) if contexts else None, origin)

    def describe(self) -> str:
        """What the latents are, with a digest of all that makes them: weights, shift and scale."""
        digest = digest_of(self.state_dict())
        return f"{LATENTS} {self.event_shape} of autoencoder {digest}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write configuration, weights, shift and scale to one safetensors file, whole or not.

        Raises:
            TypeError: if the autoencoder is none of this library's, so that it could not be built
                again.
        """
        write_file(Path(path), FORMAT, self.state_dict(), self.header())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatentSpace:
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is damaged or of another kind.
        """
        tensors, header = read_file(Path(path), FORMAT)
        return cls.restored(tensors, header)

    def header(self) -> dict[str, Any]:
        """What JSON must hold beside the state_dict to have the whole again."""
        configuration = self.autoencoder.configuration
        if configuration.get("kind") not in AUTOENCODERS:
            raise TypeError(
                f"{type(self.autoencoder).__name__} cannot be built again from a file: save the "
                "state_dict of the LatentSpace, and load it into one that you have built"
            )
        return {"autoencoder": configuration, "event_shape": list(self.event_shape)}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> LatentSpace:
        """The inverse of `state_dict` and `header`."""
        autoencoder = build_autoencoder(header["autoencoder"])
        autoencoder.load_state_dict(under("autoencoder.", tensors))
        return cls(autoencoder, header["event_shape"], tensors["shift"], tensors["scale"])


class _Moments:
    """Mean and variance of latents, channel by channel or of all, as batches come, in float64.

    Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1982.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros(1, dtype=torch.float64)

    def add(self, posterior: Posterior, per_channel: bool) -> None:
        """Take in the posteriors of a batch."""
        channels = posterior.mean.shape[1] if per_channel else 1
        rows = lambda c: c.double().transpose(0, 1).reshape(channels, -1)
        m = rows(posterior.mean)
        mean, count = m.mean(1), m.shape[1]
        squares = (m - mean[:, None]).square().sum(1)
        if posterior.log_variance is not None:
            squares = squares + rows(posterior.log_variance).exp().sum(1)
        total, gap = self.count + count, mean - self.mean.to(mean)
        self.squares = self.squares.to(mean) + squares + gap.square() * self.count * count / total
        self.mean = self.mean.to(mean) + gap * count / total
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Var y, of the population."""
        return self.squares / self.count


def _batches(data: Data, size: int) -> Iterator[Batch]:
    """All samples in order."""
    check_count("batch_size", size)
    for start in range(0, len(data), size):
        yield data.batch(torch.arange(start, min(start + size, len(data))))


def _encode(autoencoder: Autoencoding, x: Tensor) -> Posterior:
    """q(y|x) in the dtype and on the device of the autoencoder, without a graph."""
    _check_finite("samples", x)
    with torch.no_grad():
        posterior = autoencoder.encode(x.to(next(autoencoder.parameters(), x)))
    for part in posterior:
        if part is not None:
            _check_finite("latents of the autoencoder", part)
    return posterior


def _check_finite(what: str, x: Tensor) -> None:
    """Raise ValueError unless all numbers are finite."""
    wrong = ~x.isfinite().reshape(len(x), -1).all(1)
    if bool(wrong.any()):
        count, first = int(wrong.sum()), int(wrong.nonzero()[0])
        raise ValueError(
            f"{count} of {len(x)} {what} are not finite, number {first} first: remove or mend them"
        )


def _along(constants: Tensor, z: Tensor) -> Tensor:
    """One number a channel, or one for all, shaped to multiply z."""
    return constants.to(z).reshape(-1, *[1] * (z.ndim - 2))
