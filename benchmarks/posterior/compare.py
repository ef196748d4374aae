r"""Which of two settings is nearer: paired differences of distances, with their standard error.

Both start from the same x_T on the same measurements y_k, k = 1..K, and are held against the same
exact samples, under seeds r = 1..R that had no part in the choice of either. With d_rk the distance
of the first less that of the second,

    D = mean d_rk,    se^2 = sum_k v_k/(R K^2),    v_k = var_r(d_rk):

seeds are drawn, measurements belong to the problem, and each has its own variance. D is put down to
chance within t se, t the 99 % point of Student's law with the degrees of freedom of Welch (1947)
and Satterthwaite (1946), (R - 1) (sum_k v_k)^2 / sum_k v_k^2: of two that are equal, either is
called the nearer about once in a hundred times. A difference of less than 1 % is none whatever its
error: two programs of one formula differ by rounding, always to the same side.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor

from sde_diffusion.store import Cell

LEVEL, SMALL = 0.99, 0.01


def distance(row: Cell) -> float:
    """Sliced distance of a row, infinite where a run failed."""
    value = row.get("sliced")
    return math.inf if value is None else float(value)


def farther(row: Cell, other: Cell) -> bool:
    """Whether a row is farther from the exact posterior than another, by more than chance."""
    if "each" not in row or "each" not in other:
        return "each" in other
    a, b = (torch.tensor(r["each"], dtype=torch.float64) for r in (row, other))
    return _above(a - b, SMALL * float(b.mean()))


def _above(each: Tensor, small: float) -> bool:
    least = float(student.ppf(LEVEL, freedom(each))) * standard_error(each)
    return float(each.mean()) > max(least, small)


def freedom(each: Tensor) -> float:
    """Degrees of freedom of the standard error, R - 1 to K (R - 1)."""
    v = each.var(0)
    # Nothing varies: the error is 0, whatever its freedom.
    share = v / v.sum() if float(v.sum()) > 0 else torch.full_like(v, 1 / len(v))
    return (len(each) - 1) / float(share.square().sum())


def standard_error(each: Tensor) -> float:
    """Of the mean of (seeds, measurements), of which the seeds are drawn; two or more."""
    seeds, measurements = each.shape
    return float((each.var(0).sum() / seeds).sqrt()) / measurements


def together(cells: list[Cell]) -> Cell:
    """One row of the cells of one setting under several seeds; of the first that failed, if any."""
    for cell in cells:
        if "error" in cell:
            return cell
    numbers: dict[str, Any] = {}
    for name in ("sliced", "kl", "inside", "seconds"):
        values = [cell[name] for cell in cells]
        numbers[name] = None if None in values else sum(values) / len(values)
    each = [cell["each"] for cell in cells]
    error = standard_error(torch.tensor(each, dtype=torch.float64))
    costs = {name: cells[0][name] for name in ("calls", "gradients")}
    return {**numbers, "error of sliced": error, **costs, "each": each}
