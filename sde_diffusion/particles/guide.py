r"""What particles are drawn towards, and where they are pushed: all that an application says.

At grid point i the law of the particles' past p(x_T .. x_i) is weighed by psi_i(x_T .. x_i) > 0,
an estimate of E[psi(x_0) | x_T .. x_i], where psi(x_0) is the likelihood or the exponential reward
that is wanted in the end. Beside it a guide may move the means of the next states towards where
psi is large; the weights make up for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..denoise import Denoiser


class Seen(NamedTuple):
    """What is known of some particles once the denoiser was asked at a grid point.

    Attributes:
        d: E[x_0 | x_t] of the model, the particles' shape.
        push: what `Guide.drift` makes of the next states' means, the particles' shape; None: the
            model's own are kept.
        value: of each particle, (n,), for `Guide.log_potential`; None: not weighed here.
    """

    d: Tensor
    push: Tensor | None = None
    value: Tensor | None = None


class Move(NamedTuple):
    """A row of the plan that draws fresh noise.

    Attributes:
        t: time of the last grid point.
        s: time of the row's own state.
        d: the row's coefficients on denoiser outputs, by number.
        variance: of the row's fresh noise, sum_k c_k^2 > 0.
    """

    t: float
    s: float
    d: Mapping[int, float]
    variance: float


class Guide(ABC):
    """A target of sequential Monte Carlo, and a proposal.

    Attributes:
        denoiser: the model.
    """

    denoiser: Denoiser

    @abstractmethod
    def see(self, x: Tensor, t: float, index: int, who: Tensor) -> Seen:
        """Ask the model at a grid point.

        Args:
            x: states of some particles, (n, *event).
            t: their time.
            index: number of the grid point, 0 (noisy) ..
            who: the population of each particle, (n,), int64.
        """

    @abstractmethod
    def end(self, x: Tensor, who: Tensor) -> Tensor:
        """log psi(x_0) of results, (n,); -inf where a sample is impossible."""

    def drift(self, move: Move, pushes: Mapping[int, Tensor]) -> Tensor | None:
        """By how much the proposal's mean of the next state differs from the model's.

        Here as if each d_j were d_j + push_j: sum_j b_j push_j.

        Args:
            move: the row.
            pushes: by number of the output, of the last grid point and of those before it whose
                outputs are still used; not empty.

        Returns:
            A tensor of the particles' shape, or None for nothing.
        """
        parts = [b * pushes[j] for j, b in move.d.items() if j in pushes]
        return sum(parts[1:], parts[0]) if parts else None

    def log_potential(self, values: Tensor) -> Tensor:
        """log psi_i of the particles from the values of their past.

        Args:
            values: (populations, K, points so far).

        Returns:
            (populations, K).
        """
        return values[..., -1]

    def check(self, populations: int, event_shape: tuple[int, ...]) -> None:  # noqa: B027
        """Raise ValueError unless particles of this shape can be guided."""
