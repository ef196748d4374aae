"""How a solver writes its table: over symbols, with five verbs, whose record is the `Plan`."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from .form import Form, number_of
from .plan import Plan, Row
from .scalar import Scalar


class Trace:
    """Records the states that a solver's text builds; `end` gives the `Plan`.

    Five verbs: `denoise` (a grid point), `stage` (a trial point inside a step), `store` (keep a
    state without asking the network), `noise` (a standard normal draw that belongs to an
    interval, so that it may come from one Brownian path) and `end`.
    """

    def __init__(self, t: Scalar) -> None:
        self._rows = [Row("store", t)]
        self._noises: list[tuple[float, float]] = []
        self._outputs = 0
        self.x = Form({("x", 0): 1.0})

    def denoise(self, x: Form, t: Scalar) -> tuple[Form, Form]:
        """Ask the denoiser at grid point (x, t): (the state as one symbol, d = E[x_0 | x])."""
        return self._ask("denoise", x, t)

    def stage(self, x: Form, t: Scalar) -> tuple[Form, Form]:
        """Ask the denoiser at a trial point inside a step."""
        return self._ask("stage", x, t)

    def store(self, x: Form, t: Scalar) -> Form:
        """Keep a state without asking the denoiser there."""
        return self._state("store", x, t)

    def noise(self, t: Scalar, s: Scalar) -> Form:
        """A standard normal draw for the interval from t to s."""
        self._noises.append((number_of(t), number_of(s)))
        return Form({("z", len(self._noises) - 1): 1.0})

    def end(self, x: Form, t: Scalar, name: str = "plan", schedule: str = "") -> Plan:
        """The plan that ends with state x at time t."""
        self._state("end", x, t)
        rows, noises = self._rows, self._noises
        used = list(dict.fromkeys(k for row in rows for k in row.z))
        if used != list(range(len(noises))):  # number the draws in order of first use
            number = {k: i for i, k in enumerate(used)}
            rows = [replace(row, z={number[k]: c for k, c in row.z.items()}) for row in rows]
            noises = [noises[k] for k in used]
        return Plan(tuple(rows), tuple(noises), name, schedule)

    def _ask(self, kind: str, x: Form, t: Scalar) -> tuple[Form, Form]:
        last = len(self._rows) - 1
        row = self._rows[last]
        kept = x.terms == {("x", last): 1.0} and row.kind == "store"
        if kept and number_of(row.t) == number_of(t):  # a state that is kept already: ask there
            self._rows[last] = Row(kind, row.t, row.x, row.d, row.z)
        else:
            x = self._state(kind, x, t)
        self._outputs += 1
        return x, Form({("d", self._outputs - 1): 1.0})

    def _state(self, kind: str, x: Form, t: Scalar) -> Form:
        groups: dict[str, dict[int, Scalar]] = {"x": {}, "d": {}, "z": {}}
        for (name, k), c in x.terms.items():
            if isinstance(c, Tensor) or c != 0.0:
                groups[name][k] = c
        self._rows.append(Row(kind, t, **groups))
        return Form({("x", len(self._rows) - 1): 1.0})
