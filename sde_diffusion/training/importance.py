r"""Importance sampling of the training times: more draws where the estimate varies most.

Every law of times is a function t(u) of a uniform u (see `laws`). Drawing u from a density q and
dividing the loss by it leaves the mean as it was, whatever q is,

    int_0^1 l(u) du = E_{u ~ q} [ l(u)/q(u) ],

and the mean square of l/q is least for q(u) proportional to sqrt(E[l(u)^2]). Here q is constant on
cells of equal probability and follows running means of the squares. Nichol & Dhariwal, "Improved
denoising diffusion probabilistic models", 2021, arXiv:2102.09672, section 3.3, for the loss. What
training should know well is not the loss but its gradient: with l = c |F - F*|^2/D, the gradient
with respect to the network's output has squared length 4 c l/D, so its mean square costs nothing
more to know.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..names import look_up

BELOW_ONE = 1 - 2.0**-53  # laws may have no finite time at u = 1
LEAST = 10.0  # draws that every cell must have seen before q leaves the uniform density
_SQUARES = {"loss": lambda loss, c: loss * loss, "gradient": lambda loss, c: c * loss}


class Importance(nn.Module):
    """A density q of u on [0, 1], learned from what was seen; uniform at first.

    All that it knows is in its buffers. In several processes the sums of a step are added over the
    processes, so that all have one q. Drawing reads `cells` numbers back from the device.

    Args:
        of: "gradient" (of the loss with respect to the network's output) or "loss".
        cells: number of cells of equal probability.
        memory: number of draws in a cell over which its mean square is taken.
        uniform: share of the uniform density in q, in (0, 1]; bounds the weights 1/q by 1/uniform.

    Raises:
        ValueError: an unknown `of`; a number out of range.
    """

    totals: Tensor
    seen: Tensor

    def __init__(
        self, of: str = "gradient", cells: int = 32, memory: float = 200.0, uniform: float = 0.1
    ) -> None:
        super().__init__()
        if not (cells >= 1 and memory >= LEAST and 0 < uniform <= 1):
            raise ValueError(
                f"cells = {cells}, memory = {memory}, uniform = {uniform}: need a cell or more, a "
                f"memory of at least {LEAST:g} draws and a share in (0, 1]"
            )
        self.square = look_up("second moment", of, _SQUARES)
        self.of, self.cells, self.memory, self.uniform = of, int(cells), memory, uniform
        # rows: running totals, then those of the present step; columns: cells
        self.register_buffer("totals", torch.zeros(2, self.cells))
        self.register_buffer("seen", torch.zeros(2, self.cells))

    def density(self) -> Tensor:
        """q in each cell, float64 on the CPU."""
        total, seen = self.totals[0].double().cpu(), self.seen[0].double().cpu()
        if not bool((seen >= LEAST).all()) or not bool((total > 0).any()):
            return torch.ones(self.cells, dtype=torch.float64)
        root = (total / seen).sqrt()
        return self.uniform + (1 - self.uniform) * root / root.mean()

    def draw(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """(u, 1/q(u)) for v uniform on [0, 1), float64 on the CPU; stratified v gives such u.

        u too is below 1.
        """
        q = self.density()
        ends = torch.cat([q.new_zeros(1), (q / self.cells).cumsum(0)])
        cell = (torch.searchsorted(ends, v, right=True) - 1).clamp(0, self.cells - 1)
        inside = ((v - ends[cell]) / (q[cell] / self.cells)).clamp(0, 1)
        return ((cell + inside) / self.cells).clamp(max=BELOW_ONE), 1 / q[cell]

    @torch.no_grad()
    def observe(self, u: Tensor, loss: Tensor, coefficient: Tensor) -> None:
        """Note the losses l(u) (not divided by q) and their coefficients c, for `update`."""
        cell = (u * self.cells).long().clamp(max=self.cells - 1).to(loss.device)
        values = self.square(loss.detach(), coefficient.to(loss))
        self.totals[1].index_add_(0, cell, values.to(self.totals))
        self.seen[1].index_add_(0, cell, torch.ones_like(values).to(self.seen))

    @torch.no_grad()
    def update(self) -> None:
        """Take what was noted since the last time into the running means."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.totals[1])
            torch.distributed.all_reduce(self.seen[1])
        kept = (1 - 1 / self.memory) ** self.seen[1]
        for values in (self.totals, self.seen):
            values[0].mul_(kept).add_(values[1])
            values[1].zero_()

    def extra_repr(self) -> str:
        return f"of={self.of}, cells={self.cells}, memory={self.memory:g}, uniform={self.uniform:g}"
