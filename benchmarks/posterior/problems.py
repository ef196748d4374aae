r"""Inverse problems whose posterior is known: Gaussian mixtures measured by y = A x_0 + sigma n.

The posterior of a mixture under a linear measurement is a mixture again, so it can be sampled, its
density read, and p(y) evaluated, all exactly. Every task has several measurements, each of a datum
drawn from the prior itself. States are flat, (batch, D); a picture's side is kept for figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sde_diffusion import EDM, VPLinear, problems
from sde_diffusion.digit_mixture import digit_mixture
from sde_diffusion.problems import GaussianMixture
from sde_diffusion.schedule import Schedule


@dataclass(frozen=True)
class Task:
    """A prior, an operator, and measurements.

    Attributes:
        name: for people and files.
        prior: the law of x_0.
        matrix: A, (M, D), float64.
        noise: sigma > 0.
        count: number of measurements y.
        samples: asked of every method for each of them.
        schedule: of the diffusion.
        kept: which coordinates a mask shows, (D,), bool; None for other operators.
        side: of the picture, 0 if there is none.
    """

    name: str
    prior: GaussianMixture
    matrix: Tensor
    noise: float
    count: int
    samples: int
    schedule: Schedule
    kept: Tensor | None = None
    side: int = 0

    @property
    def dimension(self) -> int:
        """D."""
        return self.matrix.shape[1]

    @cached_property
    def truth(self) -> Tensor:
        """The data that were measured, (count, D)."""
        return self.prior.sample(self.count, torch.Generator().manual_seed(1))

    @cached_property
    def y(self) -> Tensor:
        """The measurements, (count, M)."""
        generator = torch.Generator().manual_seed(2)
        clean = self.truth @ self.matrix.T
        n = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        return clean + self.noise * n

    @cached_property
    def posteriors(self) -> list[GaussianMixture]:
        """p(x_0 | y) of every measurement."""
        return [self.prior.posterior(self.matrix, y, self.noise) for y in self.y]

    @cached_property
    def evidence(self) -> list[float]:
        """log p(y) of every measurement."""
        return [float(self.prior.evidence(self.matrix, y, self.noise)) for y in self.y]

    def exact(self, seed: int) -> Tensor:
        """Samples of every posterior, (count, samples, D)."""
        draw = lambda k, p: p.sample(self.samples, torch.Generator().manual_seed(97 * seed + k))
        return torch.stack([draw(k, p) for k, p in enumerate(self.posteriors)])


def tasks(quick: bool = False) -> Iterator[Task]:
    """All of them, the cheapest first; quick: one of each dimension, of few samples."""
    vp = VPLinear()
    small, few, more = ((2, 32),) * 3 if quick else ((4, 256), (3, 48), (2, 32))
    row = torch.tensor([[math.cos(0.1), math.sin(0.1)]], dtype=torch.float64)
    # One Gaussian: here the methods that match moments have no error of their own.
    covariance = torch.tensor([[[1.0, 0.7], [0.7, 1.0]]], dtype=torch.float64)
    gaussian = GaussianMixture([1.0], [[0.5, -0.5]], covariance)
    yield Task("gaussian, one row, 2-D", gaussian, row, 0.1, *small, vp)
    yield Task("ring, one row, 2-D", problems.ring(), row, 0.1, *small, vp)
    if not quick:
        yield Task("ring, one row, 2-D, EDM", problems.ring(), row, 0.1, *small, EDM())
    for name, prior, side, sizes in (
        ("digits", digit_mixture(1).law, 8, few),
        ("fields", fields(), 16, more),
    ):
        noise = 0.2 if name == "digits" else 0.1
        for kind, make in list(OPERATORS.items())[: 1 if quick else None]:
            matrix, kept = make(side)
            title = f"{name}, {kind}, {side * side}-D"
            yield Task(title, prior, matrix, noise, *sizes, vp, kept, side)


def fields(components: int = 5, side: int = 16, seed: int = 0) -> GaussianMixture:
    """Smooth random fields: components with power spectra of a direction and smooth means.

    Component k is N(mu_k, F^T diag(c_k) F) with F the cosine transform, c_k(u, v) proportional to
    (1 + |R_k (u, v)|^2)^{-2}, R_k stretching one direction; mu_k is drawn from half of it. All is
    scaled to variance 1 a pixel.
    """
    generator = torch.Generator().manual_seed(seed)
    i = torch.arange(side, dtype=torch.float64)
    cosines = (math.pi / side * (i + 0.5) * i[:, None]).cos() * math.sqrt(2 / side)
    cosines[0] /= math.sqrt(2)
    basis = torch.kron(cosines, cosines)
    u, v = torch.meshgrid(i, i, indexing="ij")
    means, covariances = [], []
    for k in range(components):
        stretch = 4.0 ** (2 * k / max(components - 1, 1) - 1)
        power = (1 + (u**2 * stretch + v**2 / stretch)).pow(-2).flatten()
        power = power / power.sum() * side**2 / 2
        draw = torch.randn(side**2, generator=generator, dtype=torch.float64)
        means.append((power.sqrt() * draw) @ basis)
        covariances.append((basis.T * power) @ basis)
    weights = [1 / components] * components
    return GaussianMixture(weights, torch.stack(means), torch.stack(covariances))


def mask(side: int) -> tuple[Tensor, Tensor]:
    """A quarter of the pixels, at random places."""
    order = torch.randperm(side**2, generator=torch.Generator().manual_seed(5))
    kept = torch.zeros(side**2, dtype=torch.bool)
    kept[order[: side**2 // 4]] = True
    return torch.eye(side**2, dtype=torch.float64)[kept], kept


def blur(side: int, width: float = 1.5) -> tuple[Tensor, None]:
    """Circular convolution with a Gaussian of that standard deviation, in pixels."""
    i = torch.arange(side, dtype=torch.float64)
    away = (i[:, None] - i + side / 2) % side - side / 2
    line = (-0.5 * (away / width) ** 2).exp()
    line = line / line.sum(1, keepdim=True)
    return torch.kron(line, line), None


def shrink(side: int) -> tuple[Tensor, None]:
    """Averages over squares, four in each direction."""
    line = torch.zeros(4, side, dtype=torch.float64)
    for i in range(side):
        line[4 * i // side, i] = 4 / side
    return torch.kron(line, line), None


OPERATORS: dict[str, Callable[[int], tuple[Tensor, Tensor | None]]] = {
    "mask": mask,
    "blur": blur,
    "down-sampling": shrink,
}
