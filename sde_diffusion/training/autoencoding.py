r"""The loss of an autoencoder, plain or regularised towards the normal law.

An encoder answers x with a normal law q(z|x) = N(m(x), diag s^2(x)), a decoder answers z with
x_hat(z), and the loss of a sample x of D coordinates is

    L(x) = ( |x - x_hat(z)|^2 + kl KL(q(z|x) || N(0, I)) ) / D,       z ~ q(z|x),
    KL(q || N(0, I)) = 1/2 sum_j ( m_j^2 + s_j^2 - 1 - log s_j^2 ),

in squared units of the data. If the decoder is read as the law N(x_hat(z), s_x^2 I), then with

    kl = 2 s_x^2,       L(x) = (2 s_x^2 / D) ( -ELBO(x) ) - s_x^2 log(2 pi s_x^2),

so that kl says to what accuracy s_x the data are wanted, and what remains is the bound of Kingma &
Welling, "Auto-encoding variational Bayes", 2014, arXiv:1312.6114. A small kl keeps the images
sharp and the latents from growing without bound (Rombach et al., "High-resolution image synthesis
with latent diffusion models", 2022, arXiv:2112.10752). A plain autoencoder answers with the one
point z = m(x) and has no second term.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..networks.encoding import Autoencoding
from .batch import Batch, Losses
from .objective import Objective


class AutoencoderObjective(Objective):
    r"""Reconstruction, and the divergence of the latents from the normal law.

    L(x) = ( |x - x_hat(z)|^2 + kl KL(q(z|x) || N(0, I)) ) / D, z ~ q(z|x). Kingma & Welling,
    "Auto-encoding variational Bayes", 2014, arXiv:1312.6114.

    Args:
        autoencoder: what is trained: `networks.Autoencoder`, or any module with its `encode` and
            `decode`.
        kl: weight of the divergence, in squared units of the data: 2 s_x^2 for an accuracy s_x of
            the decoder. 0 for a plain autoencoder and only for that one.
        perceptual: a further term, (x_hat, x) -> (batch,), added to L(x); None: none.

    Raises:
        ValueError: if kl is negative or not finite, or a wish that the autoencoder cannot answer:
            kl = 0 with a variational one, whose variance would then shrink to nothing, or kl > 0
            with a plain one.
    """

    network: Autoencoding

    def __init__(
        self,
        autoencoder: Autoencoding,
        kl: float,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(kl) and kl >= 0):
            raise ValueError(f"kl = {kl} must be finite and at least 0 (2 s^2 for an accuracy s)")
        if autoencoder.variational and kl == 0:
            raise ValueError(
                "kl = 0 trains the variance of a variational autoencoder to nothing: give kl > 0, "
                "as 0.01 for data in [-1, 1], or build it with variational=False"
            )
        if not autoencoder.variational and kl > 0:
            raise ValueError(
                f"kl = {kl}, but this autoencoder answers with points, whose divergence is "
                "infinite: build it with variational=True, or give kl=0"
            )
        self.network = autoencoder
        self.kl, self.perceptual = float(kl), perceptual

    def forward(self, batch: Batch, generator: torch.Generator) -> Losses:
        distortion, rate, further = self.terms(batch.x, generator)
        weight = self.kl / math.prod(batch.x.shape[1:])
        return Losses(distortion + weight * rate + further)

    def describe(self) -> dict[str, Any]:
        perceptual = getattr(self.perceptual, "__qualname__", self.perceptual)
        return {**super().describe(), "kl": self.kl, "perceptual": perceptual and str(perceptual)}

    def terms(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The three parts of the loss of each sample.

        Args:
            x: data, shape (batch, *event).
            generator: of the draw of z, on the CPU.

        Returns:
            the distortion |x - x_hat|^2/D, the rate KL in nats, and the perceptual term; each
            (batch,).

        Raises:
            ValueError: if the perceptual term is not one number a sample.
        """
        posterior = self.network.encode(x)
        x_hat = self.network.decode(posterior.draw(generator))
        distortion = (x_hat - x).square().flatten(1).mean(1)
        rate = posterior.divergence() if self.kl else torch.zeros_like(distortion)
        if self.perceptual is None:
            return distortion, rate, torch.zeros_like(distortion)
        further = self.perceptual(x_hat, x)
        if further.shape != distortion.shape:
            raise ValueError(
                f"perceptual returned shape {tuple(further.shape)} for {len(x)} samples; it must "
                f"return one number a sample, shape ({len(x)},)"
            )
        return distortion, rate, further
