r"""Knots by dynamic programming on a teacher's paths: GITS and OSS.

The teacher's path is known at M times. A grid of n steps is a choice of n - 1 of those inside.

GITS. One step of the student from the teacher's state at t_i to t_j costs

    c_ij = mean over samples of |Phi(x*_i; t_i -> t_j) - x*_j|,

and the grid is the path 0 = k_0 < k_1 < ... < k_n = M - 1 with the least total

    V = c_{k_0 k_1} + gamma c_{k_1 k_2} + gamma^2 c_{k_2 k_3} + ...,

found by Bellman's recursion in O(n M^2). The network is asked once at each of the M points.
Chen et al., "On the trajectory regularity of ODE-based diffusion sampling", 2024,
arXiv:2405.11326.

OSS. The student goes on from its own states: z_k(j), its state at t_j after k steps, comes from
that z_{k-1}(i) from which a step to t_j ends nearest to x*_j. The errors of the earlier steps are
in it, and the network is asked at (n - 1)(M - n) + 1 points, n the number of steps.
Pei et al., "Optimal stepsize for diffusion sampling", 2025, arXiv:2503.21774.

Distances are those of x/hypot(alpha, sigma), relative to the length of the teacher's: on it, an
error at any noise counts about as it will at the end. (GITS was published with x/alpha.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..denoise import Denoiser
from ..names import look_up
from ..plan import Plan
from ..run import run
from ..scalar import Scalar
from ..schedule import Schedule
from ..solvers.solver import SOLVERS
from ..states import flat
from .pairs import Pairs

Network = Denoiser | Callable[[Tensor, Scalar], Tensor]


def gits_times(
    denoiser: Network,
    schedule: Schedule,
    pairs: Pairs,
    steps: int,
    *,
    solver: str = "ddim",
    growth: float = 1.0,
    chunk: int = 256,
) -> Tensor:
    """The grid whose single steps from the teacher's states have the least total error (GITS).

    Chen et al., "On the trajectory regularity of ODE-based diffusion sampling", 2024,
    arXiv:2405.11326.

    Args:
        denoiser: as for `run`.
        schedule: alpha_t, sigma_t.
        pairs: starts, and the teacher's paths at M > steps times.
        steps: n of the grid.
        solver: whose steps are judged, by name; one that can take a single step. The grid then
            serves any solver.
        growth: gamma > 0: above 1 later steps count more (the authors' code: 1.15).
        chunk: samples denoised at once.

    Returns:
        (steps + 1,) times, float64.

    Raises:
        ValueError: pairs without a path, or one of too few times; growth <= 0.
    """
    costs = step_costs(denoiser, schedule, pairs, solver=solver, chunk=chunk)
    return _path(pairs)[0][shortest_path(costs, steps, growth)]


def oss_times(
    denoiser: Network,
    schedule: Schedule,
    pairs: Pairs,
    steps: int,
    *,
    solver: str = "ddim",
    chunk: int = 256,
) -> Tensor:
    """The grid on which the student's own states stay nearest to the teacher's (OSS).

    Pei et al., "Optimal stepsize for diffusion sampling", 2025, arXiv:2503.21774.

    Args:
        denoiser, schedule, pairs, steps, solver, chunk: as for `gits_times`.

    Returns:
        (steps + 1,) times, float64.

    Raises:
        ValueError: pairs without a path, or one of too few times.
    """
    times, path = _path(pairs)
    last = len(times) - 1
    _check_steps(steps, last)
    student = _Student(denoiser, schedule, times, solver, chunk)
    layer, origins = {0: path[0]}, []
    for k in range(steps):
        left = steps - 1 - k  # steps after this one
        best: dict[int, tuple[float, int, Tensor]] = {}
        for i, x in layer.items():
            d = student.denoised(x, i)
            for j in range(i + 1, last + 1 - left) if left else (last,):
                y = student.step(x, d, i, j)
                error = float(student.distance(y, path[j], j).square().mean())
                if j not in best or error < best[j][0]:
                    best[j] = (error, i, y)
        origins.append({j: i for j, (_, i, _) in best.items()})
        layer = {j: y for j, (_, _, y) in best.items()}
    chosen = [last]
    for origin in reversed(origins):
        chosen.append(origin[chosen[-1]])
    return times[chosen[::-1]]


def step_costs(
    denoiser: Network,
    schedule: Schedule,
    pairs: Pairs,
    *,
    solver: str = "ddim",
    chunk: int = 256,
) -> Tensor:
    """c_ij of GITS, (M, M), float64; infinite for j <= i."""
    times, path = _path(pairs)
    student = _Student(denoiser, schedule, times, solver, chunk)
    costs = torch.full((len(times), len(times)), math.inf, dtype=torch.float64)
    for i in range(len(times) - 1):
        d = student.denoised(path[i], i)
        for j in range(i + 1, len(times)):
            y = student.step(path[i], d, i, j)
            costs[i, j] = float(student.distance(y, path[j], j).mean())
    return costs


def shortest_path(costs: Tensor, steps: int, growth: float = 1.0) -> list[int]:
    """The cheapest path of exactly `steps` steps from node 0 to the last: its steps + 1 nodes.

    V_1(i) = c_{i, M-1};  V_k(i) = min over j > i of c_ij + gamma V_{k-1}(j).

    Args:
        costs: c_ij, (M, M), read above the diagonal.
        steps: from 1 to M - 1.
        growth: gamma > 0, what each step counts more than the one before.

    Raises:
        ValueError: if there is no such path; growth <= 0.
    """
    last = len(costs) - 1
    _check_steps(steps, last)
    if not (math.isfinite(growth) and growth > 0):
        raise ValueError(f"growth = {growth} must be positive and finite")
    costs = costs.double().masked_fill(torch.ones_like(costs, dtype=torch.bool).tril(), math.inf)
    rest = costs[:, last]
    ways = []
    for _ in range(steps - 1):
        rest, way = (costs + growth * rest).min(1)
        ways.append(way)
    if not math.isfinite(float(rest[0])):
        raise ValueError(f"there is no path of {steps} steps of finite cost")
    nodes = [0]
    for way in reversed(ways):
        nodes.append(int(way[nodes[-1]]))
    return [*nodes, last]


class _Student:
    """Single steps of a solver between known times."""

    def __init__(
        self, denoiser: Network, schedule: Schedule, times: Tensor, solver: str, chunk: int
    ) -> None:
        self.denoiser, self.schedule, self.chunk = denoiser, schedule, chunk
        self.times: Sequence[float] = times.tolist()
        self.method: Callable[..., Plan] = look_up("solver", solver, SOLVERS)
        self.sizes = [math.hypot(*(float(v) for v in schedule(t))) for t in self.times]

    def denoised(self, x: Tensor, i: int) -> Tensor:
        """E[x_0 | x] at time i."""
        return self._ask(x, self.times[i])

    def step(self, x: Tensor, d: Tensor, i: int, j: int) -> Tensor:
        """One step from (x, t_i) to t_j; the network's output d there is known."""
        t, s = self.times[i], self.times[j]
        plan = self.method(self.schedule, [t, s])
        return run(plan, lambda y, u: d if u == t else self._ask(y, u), x)

    def distance(self, x: Tensor, exact: Tensor, j: int) -> Tensor:
        """|x - x*| / |x*| of every sample."""
        return flat(x - exact).norm(dim=1) / flat(exact).norm(dim=1)

    @torch.no_grad()
    def _ask(self, x: Tensor, t: Scalar) -> Tensor:
        return torch.cat([self.denoiser(y, t) for y in x.split(self.chunk)])


def _path(pairs: Pairs) -> tuple[Tensor, Tensor]:
    if pairs.times is None or pairs.states is None:
        raise ValueError(
            "these pairs hold the ends of the teacher's paths only; dynamic programming needs "
            "pairs with times and states"
        )
    return pairs.times, pairs.states


def _check_steps(steps: int, most: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= most:
        raise ValueError(
            f"steps = {steps!r} must be a whole number from 1 to {most}: the teacher's path is "
            f"known at {most + 1} times"
        )
