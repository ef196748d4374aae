"""From a plan's rows to other rows, in forms whose coefficients carry gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ..form import Form
from ..plan import Plan, Row
from ..scalar import Scalar


def row_of(row: Row, state: Form, t: Scalar | None = None) -> Row:
    """The row with another state (and time); a coefficient that is plainly 0 leaves no term."""
    groups: dict[str, dict[int, Scalar]] = {"x": {}, "d": {}, "z": {}}
    for (name, k), c in state.terms.items():
        if isinstance(c, Tensor) or c != 0.0:
            groups[name][k] = c
    return Row(row.kind, row.t if t is None else t, **groups)


def substitute(plan: Plan, outputs: Mapping[int, Form], name: str) -> Plan:
    """The plan with some outputs d_j replaced by forms, wherever they are used."""
    rows = [plan.rows[0]]
    for row in plan.rows[1:]:
        state = Form({})
        for symbol, c in row.terms():
            kept = symbol[0] != "d" or symbol[1] not in outputs
            state = state + c * (Form({symbol: 1.0}) if kept else outputs[symbol[1]])
        rows.append(row_of(row, state))
    return replace(plan, rows=tuple(rows), name=name)
