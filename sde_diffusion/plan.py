r"""A sampler as a table: the `Plan`.

A sampler whose times and coefficients are known before it sees a sample is a table. With states
x_i, denoiser outputs d_j = E[x_0 | x_t] and standard normal draws z_k, each row says

    x_i = sum_{i' < i} a_{i i'} x_{i'} + sum_j b_{ij} d_j + sum_k c_{ik} z_k,

and whether the denoiser is asked at x_i. A solver writes its algorithm over symbols (`Form`);
running that text once leaves a trace, the `Plan`. Coefficients are float64 throughout.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .form import Symbol, number_of, write_terms
from .noise import Course
from .plan_file import read_table, write_table
from .program import Program, compile_rows
from .scalar import Scalar, log
from .schedule import Schedule

KINDS = ("denoise", "given", "stage", "store", "end")


class SingularError(ValueError):
    """A table that has a number that is not finite, or cannot be written: a grid out of reach."""


@dataclass(frozen=True)
class Row:
    """One state of a plan: where it lies, what it is made of, whether the denoiser is asked there.

    Attributes:
        kind: "denoise" (a grid point, asked), "given" (a grid point whose output is known without
            asking), "stage" (a trial point, asked), "store" (kept,
            not asked) or "end".
        t: the time at which the state lies.
        x, d, z: coefficients on earlier states, denoiser outputs and noises. Row 0 has none: it
            is the state that the plan starts from.
    """

    kind: str
    t: Scalar
    x: Mapping[int, Scalar] = field(default_factory=dict)
    d: Mapping[int, Scalar] = field(default_factory=dict)
    z: Mapping[int, Scalar] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """Whether the denoiser is asked at this state."""
        return self.kind in ("denoise", "stage")

    @property
    def on_grid(self) -> bool:
        """Whether callbacks see this state."""
        return self.kind in ("denoise", "given", "end")

    def terms(self) -> list[tuple[Symbol, Scalar]]:
        """((symbol, index), coefficient) of every term."""
        groups = (("x", self.x), ("d", self.d), ("z", self.z))
        return [((name, i), c) for name, group in groups for i, c in group.items()]


@dataclass(frozen=True)
class Plan:
    """A sampler's whole table.

    Attributes:
        rows: the states in order; row 0 is the start, the last is the result.
        noises: the interval (t, s) of each draw z_k, numbered in order of first use.
        name: the solver and its options, for people.
        schedule: repr of the schedule it was made for, for people.
        scales: (t, alpha_t, sigma_t) at some times: by the first three, `check_schedule` knows
            the schedule; a stochastic plan also has those of its grid and of its noises.
        origin: where its numbers come from, in plain JSON values: empty for a solver's plan, a
            record of the fit for a tuned one. "about" is what `print` says of it. What a
            transform makes is another table, and has none.

    Raises:
        ValueError: if a row refers to what does not exist yet, or a coefficient is not finite.
    """

    rows: tuple[Row, ...]
    noises: tuple[tuple[float, float], ...] = ()
    name: str = "plan"
    schedule: str = ""
    scales: tuple[tuple[float, float, float], ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if len(self.rows) < 2 or self.rows[-1].kind != "end" or self.rows[0].terms():
            raise ValueError("a plan needs a start row without terms and an end row")
        outputs = draws = 0
        for i, row in enumerate(self.rows):
            if row.kind not in KINDS or (row.kind == "end" and i != len(self.rows) - 1):
                raise ValueError(f"row {i} has kind {row.kind!r}; it must be one of {KINDS}")
            if i and not (row.x or row.d or row.z):
                raise ValueError(f"row {i} has no terms; only row 0 (the start) may be empty")
            if not math.isfinite(number_of(row.t)):
                raise ValueError(f"row {i} has t = {number_of(row.t)}; times must be finite")
            limits = (("x", row.x, i), ("d", row.d, outputs), ("z", row.z, len(self.noises)))
            for name, group, limit in limits:
                for k, c in group.items():
                    if not 0 <= k < limit:
                        raise ValueError(f"row {i} uses {name}{k}, which does not exist before it")
                    if not math.isfinite(c if isinstance(c, float) else number_of(c)):
                        raise SingularError(
                            f"row {i} of {self.name} (t = {number_of(row.t):.6g}) has coefficient "
                            f"{number_of(c)} on {name}{k}: the method is singular there; move the "
                            "grid's end inside (alpha and sigma both positive) or choose a solver "
                            "that reaches it"
                        )
            for k in row.z:
                if k > draws:
                    raise ValueError(
                        f"row {i} uses z{k} before z{draws}; number draws by first use"
                    )
                draws = max(draws, k + 1)
            outputs += row.asks
        if draws != len(self.noises):
            raise ValueError(f"{len(self.noises)} noises are declared and {draws} are used")

    @cached_property
    def nfe(self) -> int:
        """Number of network evaluations."""
        return sum(row.asks for row in self.rows)

    @property
    def stochastic(self) -> bool:
        """Whether the plan draws noise."""
        return bool(self.noises)

    @cached_property
    def times(self) -> tuple[float, ...]:
        """Times of the grid: where the plan denoises (churn: the raised times), and its end."""
        return tuple(number_of(row.t) for row in self.rows if row.on_grid)

    @cached_property
    def asked_at(self) -> tuple[float, ...]:
        """The time of each network evaluation, in order."""
        return tuple(number_of(row.t) for row in self.rows if row.asks)

    @cached_property
    def history(self) -> int:
        """The most denoiser outputs that must be kept at once."""
        last_use = {j: i for i, row in enumerate(self.rows) for j in row.d}
        made = [i for i, row in enumerate(self.rows) if row.asks]
        changes = [0] * (len(self.rows) + 1)  # of how many are alive, from row to row
        for j, last in last_use.items():
            changes[made[j] + 1] += 1
            changes[last + 1] -= 1
        return max(accumulate(changes))

    @cached_property
    def program(self) -> Program:
        """The rows as the engine runs them, in place on few buffers."""
        return compile_rows(self.rows, self.noises)

    @cached_property
    def course(self) -> Course:
        """What the noise of a run must cover."""
        clock = {t: float(log(alpha_t) - log(sigma_t)) for t, alpha_t, sigma_t in self.scales}
        return Course(self.noises, self.times, clock)

    def detached(self) -> Plan:
        """The same table in plain floats, whatever its coefficients carry."""
        rows = tuple(
            Row(
                row.kind,
                number_of(row.t),
                *({k: number_of(c) for k, c in group.items()} for group in (row.x, row.d, row.z)),
            )
            for row in self.rows
        )
        return replace(self, rows=rows)

    def check_schedule(self, schedule: Schedule) -> None:
        """Raise ValueError if a schedule is not the one that the plan was made for."""
        for t, alpha_t, sigma_t in self.scales[:3]:
            if not schedule.t_min <= t <= schedule.t_max:
                raise ValueError(
                    f"{self.name} was made for {self.schedule}, not for {schedule!r}, which has no "
                    f"t = {t:g}; make the plan with the denoiser's schedule"
                )
            given = (float(schedule.alpha(t)), float(schedule.sigma(t)))
            if not all(map(_close, given, (alpha_t, sigma_t))):
                raise ValueError(
                    f"{self.name} was made for {self.schedule}, not for {schedule!r}: at t = {t:g} "
                    f"(alpha, sigma) is ({alpha_t:.6g}, {sigma_t:.6g}) there and ({given[0]:.6g}, "
                    f"{given[1]:.6g}) here; make the plan with the denoiser's schedule"
                )

    def matrix(self) -> Tensor:
        """Every state the denoiser is asked at, and the end, over (x_T, d_0.., z_0..).

        The intermediate states are unrolled, so two samplers are the same map if and only if
        their matrices are equal (stochastic ones: up to an orthogonal change of the noises).

        Returns:
            float64 tensor, shape (nfe + 1, 1 + nfe + number of noises).
        """
        width = 1 + self.nfe + len(self.noises)
        offset = {"d": 1, "z": 1 + self.nfe}
        states: list[Tensor] = []
        for i, row in enumerate(self.rows):
            # A list of terms, then one sum: coefficients that carry gradients keep them.
            line = torch.zeros(width, dtype=torch.float64)
            if i == 0:
                line[0] = 1.0
            for k, c in row.x.items():
                line = line + c * states[k]
            for name, group in (("d", row.d), ("z", row.z)):
                if group:
                    index = torch.tensor([offset[name] + k for k in group])
                    line = line.index_add(0, index, _stack(list(group.values())))
            states.append(line)
        rows = zip(states, self.rows, strict=True)
        return torch.stack([line for line, row in rows if row.asks or row.kind == "end"])

    def equals(self, other: Plan, tolerance: float = 1e-9) -> bool:
        """Whether both plans are the same sampler: same questions, same map, same noise law.

        Compares the times asked, the unrolled coefficients on x_T and d, and the Gram matrix
        C C^T of the noise coefficients, each relative to its row's largest entry. (`==` compares
        the tables literally.)
        """
        if self.nfe != other.nfe:
            return False
        asked, other_asked = (p.asked_at + p.times[-1:] for p in (self, other))
        for t, u in zip(asked, other_asked, strict=True):
            if not math.isclose(t, u, rel_tol=tolerance, abs_tol=tolerance):
                return False
        a, b = self.matrix(), other.matrix()
        n = 1 + self.nfe
        scale = a[:, :n].abs().amax(1, keepdim=True).clamp(min=1e-300)
        if ((a[:, :n] - b[:, :n]).abs() > tolerance * scale).any():
            return False
        gram_a, gram_b = a[:, n:] @ a[:, n:].T, b[:, n:] @ b[:, n:].T
        return bool((gram_a - gram_b).abs().le(tolerance * scale * scale.T).all())

    def law(
        self,
        schedule: Schedule,
        mean: Tensor | float,
        variance: Tensor | float,
        start: tuple[Tensor | float, Tensor | float] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Exact mean and variance of the result on Gaussian data N(mean, variance), no sampling.

        On such data d = mean + K_t (x - alpha_t mean) with K_t = alpha_t variance /
        (alpha_t^2 variance + sigma_t^2), so every state is affine in x_T and the noises.

        Args:
            schedule: the schedule that the plan was made for.
            mean, variance: of the data, elementwise; for a full covariance, in its eigenbasis.
            start: mean and variance of x_T; default: the exact marginal at the first time.

        Returns:
            (mean, variance) of the last state, float64, in the broadcast shape of the inputs.
        """
        mu, v = torch.broadcast_tensors(
            torch.as_tensor(mean, dtype=torch.float64),
            torch.as_tensor(variance, dtype=torch.float64),
        )
        self.check_schedule(schedule)
        if (v < 0).any():
            raise ValueError(f"variance = {v.min():.6g} is negative")
        if start is None:
            alpha_T, sigma_T = schedule(self.rows[0].t)
            start = (alpha_T * mu, alpha_T**2 * v + sigma_T**2)
        # Backwards: the share of each symbol in the result. A d_j hands its own on to its state.
        scales = [schedule(row.t) for row in self.rows if row.asks]
        alpha, sigma = (
            _stack([pair[k] for pair in scales]).reshape(-1, *[1] * mu.ndim) for k in (0, 1)
        )
        gain = alpha * v / (alpha**2 * v + sigma**2)
        left = 1 - gain * alpha
        constant, outputs = torch.zeros_like(mu), self.nfe
        shares: dict[Symbol, Tensor] = {("x", len(self.rows) - 1): torch.ones_like(mu)}
        for i, row in zip(range(len(self.rows) - 1, -1, -1), reversed(self.rows), strict=True):
            outputs -= row.asks
            if row.asks and ("d", outputs) in shares:
                of_d = shares.pop(("d", outputs))
                constant = constant + of_d * left[outputs]
                shares["x", i] = of_d * gain[outputs] + shares.get(("x", i), 0.0)
            if i and ("x", i) in shares:
                share = shares.pop(("x", i))
                for symbol, c in row.terms():
                    part = c * share
                    shares[symbol] = shares[symbol] + part if symbol in shares else part
        slope = shares.pop(("x", 0), torch.zeros_like(mu))
        start_mean, start_variance = (torch.as_tensor(v, dtype=torch.float64) for v in start)
        noise = sum((share**2 for share in shares.values()), torch.zeros_like(mu))
        return slope * start_mean + constant * mu, slope**2 * start_variance + noise

    def __str__(self) -> str:
        kind = "stochastic" if self.stochastic else "deterministic"
        lines = [
            f"{self.name} on {self.schedule}" if self.schedule else self.name,
            f"{len(self.times) - 1} steps, {self.nfe} network calls, "
            f"history {self.history}, {kind}",
            *([str(self.origin["about"])] if "about" in self.origin else []),
            f"{'t':>10}  {'kind':<8}{'asks':<6}state",
        ]
        outputs = 0
        for i, row in enumerate(self.rows):
            asks, outputs = (f"d{outputs}", outputs + 1) if row.asks else ("", outputs)
            state = write_terms(row.terms()) if i else "the start"
            lines.append(f"{number_of(row.t):>10.6g}  {row.kind:<8}{asks:<6}x{i} = {state}")
        if len(lines) > 40:
            lines[20:-17] = [f"{'...':>10}  ({len(lines) - 37} rows)"]
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table and its origin as JSON, atomically; floats are kept to the last bit.

        Raises:
            TypeError, ValueError: an origin that is not of plain, finite values.
        """
        rows = [
            {
                "kind": row.kind,
                "t": number_of(row.t),
                **{n: {str(k): number_of(c) for k, c in getattr(row, n).items()} for n in "xdz"},
            }
            for row in self.rows
        ]
        about = {n: getattr(self, n) for n in ("name", "schedule", "scales", "noises", "origin")}
        write_table(path, {**about, "rows": rows})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a table written by `save`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: if the file is damaged, was altered, or is of a newer version.
        """
        table = read_table(path)
        try:
            rows = tuple(
                Row(
                    str(row["kind"]),
                    float(row["t"]),
                    *({int(k): float(c) for k, c in row[n].items()} for n in "xdz"),
                )
                for row in table["rows"]
            )
            noises = tuple((float(t), float(s)) for t, s in table["noises"])
            scales = tuple((float(t), float(a), float(s)) for t, a, s in table["scales"])
            name, schedule, origin = str(table["name"]), str(table["schedule"]), table["origin"]
            return cls(rows, noises, name, schedule, scales, dict(origin))
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path} is a damaged plan: {error!r}") from error


def _close(x: float, y: float) -> bool:
    return math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-9)


def _stack(coefficients: list[Scalar]) -> Tensor:
    if not any(isinstance(c, Tensor) for c in coefficients):
        return torch.tensor(coefficients, dtype=torch.float64)
    return torch.stack([torch.as_tensor(c, dtype=torch.float64) for c in coefficients])


def check_plan(plan: object) -> None:
    """Raise TypeError unless it is a Plan."""
    if not isinstance(plan, Plan):
        raise TypeError(
            f"a Plan is needed, not {type(plan).__name__}: make it by a solver, as "
            "sd.solvers.ddim(schedule, times), or by plan_for(schedule, 'ddim', steps)"
        )
