r"""Grids in rho = sigma/alpha, the same for every schedule: (rho_max, n) -> n + 1 values, last 0.

A grid is even in some u(rho), from u(rho_max) to 0; with a smallest rho > 0, n - 1 even steps go
to that and one to 0:

    log, karras     u = log rho, rho^{1/p}       uniform in lambda; Karras et al. 2022, eq. 5
    vp              u = t^{1/p}, t the time of Song's VP, beta 0.1 .. 40
    flow            u = phi^{1/p}, phi = rho/(1 + rho)
    angle           u = arctan(rho)^{1/p}        the time of cosine schedules
    decay           u = log(1 - (1 - g) phi)     steps shrink towards noise, in phi to a share g
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from sde_diffusion import VPLinear

Grid = Callable[[float, int], np.ndarray]
_SONG = VPLinear(beta_max=40.0)  # has the noisiest levels of all three ranges


def even(to: Callable[[float], float], back: Callable[[float], float], low: float = 0.0) -> Grid:
    """Even in to(rho), whose inverse is back(u)."""

    def grid(top: float, n: int) -> np.ndarray:
        if n == 1:
            return np.array([top, 0.0])
        ends = (to(top), to(low) if low else 0.0)
        inner = np.linspace(*ends, n if low else n + 1)[1 : None if low else -1]
        return np.array([top, *(back(float(u)) for u in inner), 0.0])

    return grid


def vp(p: float, low: float = 0.0) -> Grid:
    """Even in t^{1/p}, t the time of Song's VP."""
    time = lambda rho: float(_SONG.time_of(-math.log(rho))) ** (1 / p)
    return even(time, lambda u: float(_SONG.rho(u**p)), low)


def flow(p: float, low: float = 0.0) -> Grid:
    """Even in phi^{1/p}, phi = rho/(1 + rho)."""
    return even(lambda rho: (rho / (1 + rho)) ** (1 / p), lambda u: u**p / (1 - u**p), low)


def angle(p: float, low: float = 0.0) -> Grid:
    """Even in arctan(rho)^{1/p}."""
    return even(lambda rho: math.atan(rho) ** (1 / p), lambda u: math.tan(u**p), low)


def decay(g: float, low: float = 0.0) -> Grid:
    """Even in log(1 - (1 - g) phi)."""
    to = lambda rho: math.log1p(-(1 - g) * rho / (1 + rho))

    def back(u: float) -> float:
        phi = -math.expm1(u) / (1 - g)
        return phi / (1 - phi)

    return even(to, back, low)


def karras(p: float, low: float = 0.0) -> Grid:
    """Even in rho^{1/p}."""
    return even(lambda rho: rho ** (1 / p), lambda u: u**p, low)


def grids() -> Iterator[tuple[str, Grid]]:
    """The named grids of the comparison."""
    for p in (1.0, 1.25, 1.5, 1.75, 2.0, 2.5):
        yield f"flow p={p:g}", flow(p)
    for p in (1.0, 1.5, 2.0, 2.5, 3.0):
        yield f"vp p={p:g}", vp(p)
    for p in (1.0, 1.25, 1.5, 2.0):
        yield f"angle p={p:g}", angle(p)
    for g in (0.1, 0.3):
        yield f"decay {g:g}", decay(g)
    yield "vp p=1 from 0.01", vp(1.0, 0.01)
    for low in (0.01, 0.03):
        yield f"log from {low:g}", even(math.log, math.exp, low)
        yield f"karras p=7 from {low:g}", karras(7.0, low)
