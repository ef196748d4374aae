r"""The tables of `sde_diffusion.few_steps`: one a number of calls, fitted to random problems.

python -m benchmarks.few_steps [--calls N ...] [--problems P] [--dimensions D] [--floor F]
                               [--tail W] [--iterations I] [--output FILE]

The numbers of a table (there: kappa, the fractions, the rows) minimise the mean over P random
mixtures of Gaussians, drawn from a fixed seed, of

    exp mean over starts log sqrt(e^2/m^2 + F^2)  +  W sqrt(mean over starts e^2/M^2 + F^2),

with e = |y - y*|/|y*| and m, M its median and its root mean square under the rows of `angular` on
`times.default`, as a table of this form: the typical error and the RMS, each against that of
Adams's rows. Each problem has 2 to 16 components in 1 to D dimensions, a standard deviation from
0.3 to 2, a mean that is 0 in one half of them, and its own first noise level sigma/alpha, from 15
to 1000. The models of the quality benchmark are not among them. Steps of Levenberg and Marquardt,
with exact slopes, start from Adams's rows, from the table in FILE and from those that the one of
a call less there grows into; after a few steps the two that are lowest go on, and the lower is
kept. What is printed is measured on fresh problems, of another seed, and by that P, D, F and W
were chosen: a lower F lets the problems count more whose errors are small already; without W the
RMS is left to itself. The tables are from

    python -m benchmarks.few_steps --calls 4 6 7 --problems 128 --floor 0.3333
    python -m benchmarks.few_steps --calls 5
    python -m benchmarks.few_steps --calls 8 9 10 11 --problems 192 --dimensions 32 --floor 0.1 \
        --tail 2 --iterations 9

the last begun from tables made like the first, but for F = 0.1: a fit ends where its start leads.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sde_diffusion import FlowMatching, Plan
from sde_diffusion.files import write_atomic
from sde_diffusion.grid import time_of_rho
from sde_diffusion.solvers import angular
from sde_diffusion.times import default

PROBLEMS, STARTS, COMPONENTS, DIMENSIONS = 256, 16, 16, 16
FIRST = 4  # steps from every start, before the better two go on
FLOOR = 0.15  # of the usual error: what lies below it counts no more
LINE = FlowMatching()


@dataclass(frozen=True)
class Family:
    """Random mixtures with diagonal covariances, padded to one shape.

    Attributes:
        log_weights, means, variances: of the components, (P, K), (P, K, D), (P, K, D).
        theta: the first angle of each problem, (P, 1, 1).
        start, end: y at that angle and the exact y = x at angle 0, (P, B, D).
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor
    theta: Tensor
    start: Tensor
    end: Tensor

    def denoised(self, y: Tensor, theta: Tensor) -> Tensor:
        """E[x_0 | y], (P, B, D), by products of matrices."""
        cos, sin = theta.cos(), theta.sin()
        inverse = 1 / (cos**2 * self.variances + sin**2)
        pulled = cos * self.means * inverse
        constant = (cos * self.means * pulled - inverse.log()).sum(2)[:, None]
        square = y**2 @ inverse.mT - 2 * y @ pulled.mT + constant
        r = (self.log_weights[:, None] - square / 2).softmax(2)
        moved = r @ (self.means - cos * self.variances * pulled)
        return moved + y * (r @ (cos * self.variances * inverse))

    def errors(self, y: Tensor) -> Tensor:
        """|y - y*|/|y*|, (P, B)."""
        return (y - self.end).norm(dim=2) / self.end.norm(dim=2)


def family(seed: int, problems: int = PROBLEMS, dimensions: int = DIMENSIONS) -> Family:
    """The problems of a seed, their starts and exact ends."""
    rng = np.random.default_rng(seed)
    shape = (problems, COMPONENTS, dimensions)
    log_weights, means, variances = np.full(shape[:2], -1e9), np.zeros(shape), np.ones(shape)
    x, eps = np.zeros((2, problems, STARTS, dimensions))
    for p in range(problems):
        w, mu, sd = _mixture(rng, dimensions)
        k, d = mu.shape
        log_weights[p, :k], means[p, :k, :d] = np.log(w), mu
        variances[p, :, d:], variances[p, :k, :d] = 0, sd**2
        which = rng.choice(k, STARTS, p=w)
        x[p, :, :d] = mu[which] + sd[which] * rng.standard_normal((STARTS, d))
        eps[p, :, :d] = rng.standard_normal((STARTS, d))
    theta = np.arctan(np.exp(rng.uniform(math.log(15), math.log(1000), (problems, 1, 1))))
    start = np.cos(theta) * x + np.sin(theta) * eps
    arrays = (log_weights, means, variances, theta, start, start)
    found = Family(*map(torch.from_numpy, arrays))
    return replace(found, end=_exact(found))


def _mixture(
    rng: np.random.Generator, dimensions: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (K,), means (K, D) and standard deviations (K, D) of one mixture."""
    d = round(math.exp(rng.uniform(0, math.log(dimensions))))
    k = round(math.exp(rng.uniform(math.log(2), math.log(COMPONENTS))))
    mu = rng.standard_normal((k, d))
    sd = np.exp(rng.uniform(math.log(0.05), 0, (k, 1)) + rng.uniform(math.log(0.2), 0, (k, d)))
    kind = rng.integers(4)
    if kind == 1:  # a spectrum that falls as a power
        fall = np.arange(1.0, d + 1) ** -rng.uniform(0.2, 1.5)
        mu, sd = mu * fall, sd * fall
    if kind == 2:  # thin directions
        thin = np.where(rng.random(d) < 0.5, math.exp(rng.uniform(math.log(0.05), -1)), 1.0)
        mu, sd = mu * thin, sd * thin
    if kind == 3:  # centres on a curved set of few dimensions
        q = int(rng.integers(1, 4))
        along = rng.standard_normal((k, q)) * rng.uniform(0.5, 3)
        mu = np.sin(along @ rng.standard_normal((q, d)) + rng.uniform(0, 2 * math.pi, d))
        sd = np.full((k, d), math.exp(rng.uniform(math.log(0.05), math.log(0.5))))
    w = rng.dirichlet(np.ones(k)) * 0.9 + 0.1 / k if rng.random() < 0.7 else np.full(k, 1 / k)
    mean = w @ mu
    spread = math.sqrt(float((w @ (sd**2 + (mu - mean) ** 2)).mean()))
    size = math.exp(rng.uniform(math.log(0.3), math.log(2))) / spread
    shift = rng.standard_normal(d) * rng.uniform(0, 1.5) * (rng.random() < 0.5)
    return w, (mu - mean) * size + shift, np.maximum(sd * size, 0.01)


@torch.no_grad()
def _exact(problems: Family, steps: int = 400) -> Tensor:
    """y at angle 0, by Runge-Kutta steps of order 4 that are even in the root of the angle."""
    y, first = problems.start, problems.theta
    angles = [first * (1 - i / steps) ** 2 for i in range(steps)]

    def velocity(y: Tensor, theta: Tensor) -> Tensor:
        return (y * theta.cos() - problems.denoised(y, theta)) / theta.sin()

    for t, s in pairwise(angles):
        h = s - t
        k1 = velocity(y, t)
        k2 = velocity(y + h / 2 * k1, t + h / 2)
        k3 = velocity(y + h / 2 * k2, t + h / 2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + velocity(y + h * k3, s))
    return problems.denoised(y, angles[-1])  # the last angle is 1e-5


@dataclass(frozen=True)
class Table:
    """Fractions f_0 = 1 .. f_{n-1} of the first angle, a_1 .. a_n, b_ij, 0 < j < i <= n, kappa."""

    fractions: Tensor
    a: Tensor
    b: Tensor  # (n + 1, n)
    kappa: Tensor

    def states(self, problems: Family) -> Tensor:
        """The last y on a family's starts."""
        n, first = len(self.a), problems.theta
        d = [problems.denoised(problems.start, first)]
        z = problems.start - first.cos() * d[0]
        centre = d[0] - self.kappa * first.cos() * z
        z = problems.start - first.cos() * centre
        for i in range(1, n + 1):
            y = self.a[i - 1] * z
            for j in range(1, i):
                y = y + self.b[i, j] * (d[j] - centre)
            if i == n:
                return y + centre
            theta = first * self.fractions[i]
            d.append(problems.denoised(y + theta.cos() * centre, theta))
        raise AssertionError

    def flat(self) -> Tensor:
        """The free numbers in one vector: logarithms of the steps, a, b, kappa."""
        steps = self.fractions - torch.cat([self.fractions[1:], torch.zeros(1)])
        return torch.cat([steps.log(), self.a, self.b[_lower(len(self.a))], self.kappa])

    @staticmethod
    def of(flat: Tensor, n: int) -> Table:
        """The table of a vector."""
        steps = flat[:n].softmax(0)
        fractions = torch.cat([torch.ones(1), 1 - steps.cumsum(0)[:-1]])
        b = torch.zeros(n + 1, n, dtype=flat.dtype).index_put(_lower(n), flat[2 * n : -1])
        return Table(fractions, flat[n : 2 * n], b, flat[-1:])


def _lower(n: int) -> tuple[Tensor, Tensor]:
    pairs = [(i, j) for i in range(n + 1) for j in range(1, i)]
    rows, columns = zip(*pairs, strict=True)
    return torch.tensor(rows), torch.tensor(columns)


def adams(n: int, rho: float = 100.0) -> Table:
    """The rows of `angular` on `times.default` from a noise level, as a table."""
    plan: Plan = angular(LINE, default(LINE, n, t_start=time_of_rho(LINE, rho)))
    scales = [LINE(t) for t in plan.asked_at]
    r = torch.from_numpy(np.array([*(math.hypot(*map(float, s)) for s in scales), 1.0]))
    angles = torch.from_numpy(np.array([math.atan2(float(s), float(a)) for a, s in scales]))
    matrix = torch.as_tensor(plan.matrix(), dtype=torch.float64)[: n + 1]
    a = matrix[1:, 0] * r[0] / r[1:]
    b = torch.cat([torch.zeros(1, n), matrix[1:, 1 : n + 1] / r[1:, None]])
    return Table(angles / angles[0], a, b, torch.ones(1, dtype=a.dtype))


def grown(table: Table, at: int) -> Table:
    """One call more, after call number `at` >= 1: its state lies midway to the next one's, and it
    takes half of what later states have of the call before it."""
    m = len(table.a)
    fractions = torch.cat([table.fractions, torch.zeros(1)])
    a, b = torch.cat([torch.ones(1), table.a]), table.b
    between = lambda v: torch.cat([v[: at + 1], v[at : at + 2].mean(0, keepdim=True), v[at + 1 :]])
    half = torch.where(torch.arange(m + 2) > at + 1, 0.5, 0.0) * between(b)[:, at]
    b = torch.cat([between(b)[:, : at + 1], half[:, None], between(b)[:, at + 1 :]], 1)
    b[:, at] -= half
    return Table(between(fractions)[:-1], between(a)[1:], b, table.kappa)


def fit(
    problems: Family,
    start: Table,
    iterations: int = 40,
    floor: float = FLOOR,
    tail: float = 0,
) -> tuple[Table, float]:
    """The table that Levenberg and Marquardt's steps reach from a start, and its loss."""
    n = len(start.a)
    adams_errors = problems.errors(adams(n).states(problems))
    usual = adams_errors.median(1, keepdim=True).values
    share = usual**2 / adams_errors.square().mean(1, keepdim=True)
    scale = (usual * problems.end.norm(dim=2))[..., None]

    def residual(flat: Tensor) -> Tensor:
        return (Table.of(flat, n).states(problems) - problems.end) / scale

    single = Family(*(getattr(problems, f.name).float() for f in fields(problems)))
    short = lambda flat: Table.of(flat, n).states(single) / scale.float()

    def judge(r: Tensor) -> tuple[float, Tensor]:
        """The loss and its weight of each squared residual, (P, B)."""
        square = r.square().sum(2)
        inner = square + floor**2
        typical = (inner.log() / 2).mean(1, keepdim=True).exp()
        rms = (share * square.mean(1, keepdim=True) + floor**2).sqrt()
        return float((typical + tail * rms).mean()), typical / inner + tail * share / rms

    flat, damping = start.flat(), 1e-2
    r = residual(flat)
    value, weight = judge(r)
    for _ in range(iterations):
        slopes = torch.func.jacfwd(short)(flat.float()).double().movedim(-1, 0).flatten(1)
        root = weight.sqrt()[..., None].expand_as(r).flatten()
        slopes = slopes * root
        normal, pull = slopes @ slopes.T, slopes @ (r.flatten() * root)
        before = value
        for _ in range(6):
            step = torch.linalg.solve(normal + damping * normal.diagonal().diag(), -pull)
            r_new = residual(flat + step)
            new, weight_new = judge(r_new)
            if new < value:
                flat, r, value, weight = flat + step, r_new, new, weight_new
                damping = max(damping / 4, 1e-7)
                break
            damping *= 5
        if not value < before * (1 - 2e-4):
            break
    return Table.of(flat, n), value


def main(arguments: list[str] | None = None) -> int:
    """Fit, print the ratio of errors on fresh problems, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_steps", description=__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=list(range(4, 13)))
    parser.add_argument("--problems", type=int, default=PROBLEMS)
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS)
    parser.add_argument("--floor", type=float, default=FLOOR)
    parser.add_argument("--tail", type=float, default=0.0)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("sde_diffusion/few_steps.json"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    problems = family(1, asked.problems, asked.dimensions)
    fresh = family(2, dimensions=asked.dimensions)
    for n in asked.calls:
        less = [grown(t, at) for t in _kept(asked.output, n - 1) for at in range(1, n - 1)]
        tables = [adams(n), *_kept(asked.output, n), *less]
        for steps in (FIRST, asked.iterations):
            fits = [fit(problems, table, steps, asked.floor, asked.tail) for table in tables]
            fits.sort(key=lambda found: found[1])
            tables = [table for table, _ in fits[:2]]
        _write(asked.output, tables[0])
        print(f"{n} calls: loss {fits[0][1]:.3f}; on fresh problems, error over Adams's:")
        errors, usual = fresh.errors(tables[0].states(fresh)), fresh.errors(adams(n).states(fresh))
        print("  median", _quantiles(errors.median(1).values / usual.median(1).values))
        rms = (errors.square().mean(1) / usual.square().mean(1)).sqrt()
        print("  RMS   ", _quantiles(rms), flush=True)
    return 0


def _quantiles(ratio: Tensor) -> str:
    at = np.quantile(ratio.numpy(), [0.05, 0.5, 0.95])
    mean = float(ratio.log().mean().exp())
    return f"{mean:.2f} ({', '.join(f'{q:.2f}' for q in at)} at 5, 50, 95 %; {ratio.max():.1f})"


def _kept(path: Path, n: int) -> list[Table]:
    """The table of so many calls in the file, if there is one."""
    found = json.loads(path.read_text()).get(str(n)) if path.exists() else None
    if found is None:
        return []
    rows = torch.zeros(n + 1, n, dtype=torch.float64)
    for i, row in enumerate(found["rows"], 1):
        rows[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    fractions = torch.tensor([1.0, *found["fractions"]], dtype=torch.float64)
    kappa = torch.tensor([found["kappa"]], dtype=torch.float64)
    return [Table(fractions, rows[1:, 0], rows, kappa)]


def _write(path: Path, table: Table) -> None:
    tables = json.loads(path.read_text()) if path.exists() else {}
    n = len(table.a)
    rounded = lambda row: [round(float(v), 5) for v in row]
    tables[str(n)] = {
        "kappa": rounded(table.kappa)[0],
        "fractions": rounded(table.fractions[1:]),
        "rows": [rounded([table.a[i - 1], *table.b[i, 1:i]]) for i in range(1, n + 1)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(tables, indent=1).encode())


if __name__ == "__main__":
    sys.exit(main())
