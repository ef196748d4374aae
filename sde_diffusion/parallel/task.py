"""What every parallel method works on, and where it writes down what it did."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..form import number_of
from ..plan import Plan
from ..progress import Progress
from ..states import flat
from .network import Network
from .table import Table


@dataclass
class Task:
    """One sampling to be done in parallel.

    Attributes:
        plan: the sampler's table.
        x: the starting state x_T, (batch, *event), float32 or wider.
        table: the plan's rows, with this sampling's noise.
        network: the denoiser at any rows; it counts calls and evaluations.
        tolerance: the largest relative change of a state that is taken for none.
        max_rounds: the most rounds.
        progress: work done is counted in rows of a sample that need not be asked again.
        rounds: rounds so far.
        sample_rounds: (batch,), the round after which each sample was done; 0: not yet.
        residuals: the largest relative change of a state in each round.
    """

    plan: Plan
    x: Tensor
    table: Table
    network: Network
    tolerance: float
    max_rounds: int
    progress: Progress
    rounds: int = 0
    sample_rounds: np.ndarray = field(init=False)
    residuals: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sample_rounds = np.zeros(len(self.x), dtype=np.int64)

    def not_finite(self, j: int) -> FloatingPointError:
        """What to raise if state j, all outputs before it being right, is not finite."""
        t = number_of(self.plan.rows[self.table.row_of[j]].t)
        return FloatingPointError(
            f"{self.plan.name}: the state is not finite at t = {t:.6g}, after network call {j} "
            f"of {self.plan.nfe}; run(plan, ...) says which step and what it is due to"
        )


def norm(x: Tensor) -> Tensor:
    """Euclidean norm of each sample, (batch,)."""
    return torch.linalg.vector_norm(flat(x), dim=1)
