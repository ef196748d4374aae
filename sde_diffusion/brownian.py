r"""One Brownian path a sample, which grids that refine each other share.

The reverse SDE is driven by a Brownian motion B. Its noise over a step from t to s, in the exact
solution with d held fixed, is sigma_s^2/alpha_s (B(v_s) - B(v_t)) in the clock

    v = e^{2 lambda} = alpha^2/sigma^2,     so     z(t, s) = (B(v_s) - B(v_t)) / sqrt(v_s - v_t)

is the standard normal draw of that step, and coarse noise is the sum of fine noise. No value of B
is ever formed: an interval is a standard normal z, and splitting it at v_m into its two parts is a
rotation of z and one fresh draw w, exact for any clock, up to v = infinity (sigma = 0):

    z_1 = c z + s w,   z_2 = s z - c w,   c^2 = (v_m - v_t)/(v_s - v_t),   s^2 = 1 - c^2,

so that z = c z_1 + s z_2 and z_1, z_2 are independent. A run tells its grid beforehand. Its tree
of intervals is split by number of steps, odd factors first: 40 = 5 * 8 steps in 5 parts, and each
into halves. A grid of 20 has the same parts and halves, one level fewer, and so the same path. The
fresh draw of a node is a function of (sample seed, node) alone.

With a given depth the tree is cut at fixed places instead, lambda = 2 log(u/(1 - u)) for u = 1/2,
1/4, 3/4, 1/8, ..., and a point gets a cut of its own below that depth: more draws, and the same
path on all grids.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .noise import Course, Draw, Noise, PerSampleNoise

Fresh = Callable[[int, Tensor], object]
"""(node, out): fill `out` with the standard normal draw that belongs to this node."""
_DEEPEST = 48  # cells beyond it are too small for fixed places to be told apart
_ROOT = 0  # node of the draw for the whole; splitting node n takes draw n, its parts are 2n, 2n + 1


class BrownianPath(Noise):
    """One Brownian path for each sample, by its own seed.

    Grids that refine each other by halving every step, evenly or not (20, 40, 80 steps), see the
    same path: noise over a step is exactly the weighted sum of that over its parts. Points inside
    a step, as of stages, leave the path at the grid points as it is. Other pairs of grids (20 and
    30 steps) see different paths of the right law, unless a depth is given. A sample's path depends
    neither on its batch nor on the order in which disjoint intervals are drawn. A draw over an
    interval that overlaps an earlier one comes from a further, independent path; so does each pass
    of a run that goes back and forth (Restart, RePaint), and whatever goes from clean to noisy.

    Drawn on the CPU, one normal tensor a step; memory is of order log(steps) states.

    Args:
        seeds: one non-negative integer below 2^63 for each sample of the batch. The draw that
            sampling starts from is that of `PerSampleNoise(seeds)`.
        depth: None, or how often the range of lambda is halved at fixed places, 1 to 40 (12 makes
            cells of 0.002 around lambda = 0). Then all grids see the same path, wherever no two
            of their own points share a cell, for about depth + 2 - log2(steps) draws a step.

    Raises:
        ValueError: if there are no seeds or the depth is out of range; when used, if there is not
            one seed for each sample, or if the plan does not know the noise levels of its draws
            (those of solvers do).
    """

    def __init__(self, seeds: Sequence[int] | Tensor, depth: int | None = None) -> None:
        whole = isinstance(depth, int) and not isinstance(depth, bool)
        if depth is not None and not (whole and 1 <= depth <= 40):
            raise ValueError(f"depth = {depth!r} must be None or an integer from 1 to 40")
        self.depth = depth
        self._plain = PerSampleNoise(seeds)
        self.seeds = self._plain.seeds

    def start(self, out: Tensor) -> Tensor:
        return self._plain.start(out)

    def stream(self, like: Tensor, course: Course) -> Draw:
        self._plain.check_batch(like)
        empty = lambda: torch.empty(like.shape, dtype=like.dtype)
        return draw_along(course, lambda name: fresh(self.seeds, name), empty, self.depth)

    def apart(self) -> PerSampleNoise:
        return self._plain.apart()

    def __repr__(self) -> str:
        depth = "" if self.depth is None else f", depth={self.depth}"
        return f"BrownianPath(<{len(self.seeds)} seeds>{depth})"


@dataclass(frozen=True)
class Path:
    """One Brownian motion and the disjoint intervals that are drawn from it.

    Attributes:
        name: a number by which its draws differ from those of other paths.
        points: lambda of all points, increasing, infinite ends allowed.
        grid: indices of the points that are grid points, first and last among them.
        first, last: indices of the ends of each interval, in increasing order.
        numbers: the number of the draw that each interval is for.
        cuts: where the node from one point to another is split, if not by number of steps.
    """

    name: int
    points: tuple[float, ...]
    grid: tuple[int, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]
    numbers: tuple[int, ...]
    cuts: Mapping[tuple[int, int], int] = field(default_factory=dict)

    def draws(self, fresh: Fresh, empty: Callable[[], Tensor]) -> Iterator[tuple[int, Tensor]]:
        """(number, z) of each interval from left to right; z is overwritten afterwards.

        Args:
            fresh: fills a tensor with the draw of a node.
            empty: makes such a tensor.
        """
        free: list[Tensor] = []
        take = lambda: free.pop() if free else empty()
        total = empty()
        z = take()
        fresh(_ROOT, z)
        stack = [(0, len(self.points) - 1, 1, z)]
        while stack:
            i, j, node, z = stack.pop()
            k = bisect_right(self.last, i)  # the first interval that ends after point i
            if k < len(self.last) and self.first[k] <= i and j <= self.last[k]:
                a, b = self.first[k], self.last[k]
                if (a, b) == (i, j):
                    yield self.numbers[k], z
                else:  # an interval of several nodes is their weighted sum
                    weight = math.sqrt(self._share(a, i, j, b))
                    total = (
                        torch.mul(z, weight, out=total) if a == i else total.add_(z, alpha=weight)
                    )
                    if b == j:
                        yield self.numbers[k], total
            elif k < len(self.last) and self.first[k] < j:
                m = self._middle(i, j)
                c, s = math.sqrt(self._share(i, i, m, j)), math.sqrt(self._share(i, m, j, j))
                w, left = take(), take()
                fresh(node, w)
                torch.mul(z, c, out=left).add_(w, alpha=s)
                right = w.mul_(-c).add_(z, alpha=s)
                stack += [(m, j, 2 * node + 1, right), (i, m, 2 * node, left)]
            free.append(z)

    def _middle(self, i: int, j: int) -> int:
        """Where to split: odd factors of the number of grid steps first, then halves."""
        if self.cuts:
            return self.cuts[i, j]
        low, high = bisect_left(self.grid, i), bisect_left(self.grid, j)
        cells = high - low
        if cells > 1:
            steps = len(self.grid) - 1
            size = steps & -steps  # grid steps in an odd part; a power of 2
            parts = cells // size
            return self.grid[low + (parts // 2 * size if parts > 1 else cells // 2)]
        return (i + j) // 2

    def _share(self, a: int, i: int, j: int, b: int) -> float:
        """(v_j - v_i) / (v_b - v_a) for a <= i < j <= b, without cancellation or overflow."""
        l_a, l_i, l_j, l_b = (self.points[n] for n in (a, i, j, b))
        past = math.exp(2 * (l_j - l_b)) if j != b else 1.0
        return past * math.expm1(2 * (l_i - l_j)) / math.expm1(2 * (l_a - l_b))


@dataclass
class _Way:
    """What a path is made from: intervals (low, high, number), disjoint and in order of lambda."""

    direction: int
    grid: list[float]
    low: float = -math.inf
    high: float = math.inf
    taken: list[tuple[float, float, int]] = field(default_factory=list)

    def takes(self, direction: int, low: float, high: float, number: int) -> bool:
        """Enter an interval if it goes this way and there is room for it."""
        at = bisect_left(self.taken, (low, high, number))
        free_from = self.taken[at - 1][1] if at else self.low
        free_to = self.taken[at][0] if at < len(self.taken) else self.high
        room = direction == self.direction and free_from <= low < high <= free_to
        if room:
            self.taken.insert(at, (low, high, number))
        return room

    def path(self, name: int, depth: int | None) -> Path:
        lows, highs, numbers = zip(*self.taken, strict=True)
        if lows == highs:  # an interval of no length
            return Path(name, lows + highs, (0, 1), (0,), (1,), numbers)
        ends = {*lows, *highs}
        cuts = {} if depth is None else _fixed_cuts(sorted(ends), depth)
        inner = {-math.inf, *cuts.values(), math.inf} if cuts else {*self.grid}
        points = sorted(ends | inner)
        index = {point: i for i, point in enumerate(points)}
        return Path(
            name,
            tuple(points),
            tuple(sorted({0, len(points) - 1, *(index[point] for point in inner or points)})),
            tuple(index[low] for low in lows),
            tuple(index[high] for high in highs),
            numbers,
            {(index[low], index[high]): index[cut] for (low, high), cut in cuts.items()},
        )


def _fixed_cuts(points: list[float], depth: int) -> dict[tuple[float, float], float]:
    """Where each node (low, high) is split: at fixed places, until points are alone and deep."""
    cuts = {}
    stack = [(0, 1, -math.inf, math.inf)]  # number of the cell, of how many, its ends
    while stack:
        cell, cells, low, high = stack.pop()
        inside = points[bisect_right(points, low) : bisect_left(points, high)]
        if not inside:
            continue
        odd = 2 * cell + 1
        middle = 2 * math.log(odd / (2 * cells - odd))
        if cells >= 2**_DEEPEST or (len(inside) == 1 and cells >= 2**depth):
            middle = inside[len(inside) // 2]
        cuts[low, high] = middle
        stack += [(odd - 1, 2 * cells, low, middle), (odd, 2 * cells, middle, high)]
    return cuts


def draw_along(
    course: Course,
    fresh_of: Callable[[int], Fresh],
    empty: Callable[[], Tensor],
    depth: int | None = None,
) -> Draw:
    """The draws of a course, from the fresh ones that each path, by its name, is made of."""
    opened: dict[int, Iterator[tuple[int, Tensor]]] = {}
    for path in lay_out(course, depth):
        opened |= dict.fromkeys(path.numbers, path.draws(fresh_of(path.name), empty))
    early: dict[int, Tensor] = {}  # passed over on the way to a later interval
    numbers = iter(range(len(course.intervals)))

    def draw(out: Tensor, t: float, s: float) -> Tensor:
        number = next(numbers)
        path = opened.pop(number)
        while number not in early:
            found, z = next(path)
            if found == number:
                return out.copy_(z)
            early[found] = z.clone()
        return out.copy_(early.pop(number))

    return draw


def lay_out(course: Course, depth: int | None = None) -> list[Path]:
    """The paths of a course: one for each of its passes, and more where intervals overlap.

    Most runs are one pass, from noisy to clean; Restart and RePaint go back and forth. An interval
    belongs to the pass at hand or, if that goes another way or has drawn there before, to the next
    one that suits it. What no pass takes goes beside: to the first other path that has room.
    """
    clock = course.clock
    for t in (*course.times, *(t for interval in course.intervals for t in interval)):
        if t not in clock:
            raise ValueError(
                f"a Brownian path needs the noise level at t = {t:g}, which this plan does not "
                "know: make it with a solver of SOLVERS, or decorate one's own with @sd.solver"
            )
    passes = _passes([clock[t] for t in course.times])
    beside: list[_Way] = []
    here = 0
    for number, (t, s) in enumerate(course.intervals):
        low, high = sorted((clock[t], clock[s]))
        interval = (_direction(clock[t], clock[s]), low, high, number)
        found = next((i for i in range(here, len(passes)) if passes[i].takes(*interval)), None)
        if found is not None:
            here = found
        elif not any(way.takes(*interval) for way in beside):
            grid = passes[here].grid if passes else []
            beside.append(_Way(interval[0], grid, taken=[(low, high, number)]))
    named = [(2 * i, way) for i, way in enumerate(passes)]
    for direction in (-1, 0, 1):
        alike = [way for way in beside if way.direction == direction]
        named += [(6 * i + 2 * direction + 3, way) for i, way in enumerate(alike)]
    return [way.path(name, depth) for name, way in named if way.taken]


def _passes(grid: list[float]) -> list[_Way]:
    """A grid's longest stretches in one direction."""
    found: list[_Way] = []
    for start, end in pairwise(grid):
        direction = _direction(start, end)
        if not found or found[-1].direction != direction:
            found.append(_Way(direction, [start]))
        found[-1].grid.append(end)
    for way in found:
        way.low, way.high = min(way.grid), max(way.grid)
    return found


def _direction(start: float, end: float) -> int:
    """1 to the cleaner, -1 back, 0 for no way at all."""
    return (start < end) - (start > end)


def fresh(seeds: Sequence[int], path: int) -> Fresh:
    """The draws of a path: row by row, each a function of (seed, path, node) alone."""
    generator = torch.Generator()
    streams = _mix(_mix(np.array(seeds, dtype=np.uint64)) + np.uint64(path))

    def fill(node: int, out: Tensor) -> None:
        states = _mix(streams + np.uint64(node)) >> np.uint64(32)  # of which torch takes 32 bits
        for row, state in zip(out, states.tolist(), strict=True):
            row.normal_(generator=generator.manual_seed(state))

    return fill


def _mix(x: np.ndarray) -> np.ndarray:
    """A random-looking bijection of 64-bit integers (Steele et al., "SplitMix", 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
