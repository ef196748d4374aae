"""azula's methods for inverse problems, run by its own code on the same denoiser and grids.

azula is given what its users write: a denoiser (the exact one of the prior), a schedule (with our
alpha and sigma at the points of the grid), y and A. Its options are swept as ours are.

- DPS divides by the norm of the residual of the whole batch, not of each sample: of B samples every
  step is about sqrt(B) times smaller than of one. Its sweep therefore has zeta times sqrt(B) too.
- PGDM takes an inverse of A: the pseudo-inverse, or A^T (A A^T + k I)^{-1}, k = sigma_y^2 or 0.3.
- TDS takes a twisting function: log N(y; A x, sigma_y^2 + r^2), r^2 the variance of x_0 given x_t
  under data of variance 1, or rho^2 = (sigma/alpha)^2.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from .asks import Ask, Setting

LIBRARY = "azula"


def settings() -> list[Setting]:
    """All settings; none where azula is not installed."""
    return list(_settings()) if importlib.util.find_spec("azula") else []


def _settings() -> Iterator[Setting]:
    grids = ("time", "default")
    both = list(product((0.0, 1.0), grids))
    for zeta, batch, grid in product((0.3, 1.0, 3.0), (False, True), grids):
        if batch or zeta == 1.0:
            name = f"zeta={zeta:g}" + (" sqrt(B)" if batch else "")
            usual = grid == "time" and not batch
            yield _setting("DPS", name, partial(dps, zeta=zeta, batch=batch), usual, grid)
    kinds = {"pseudo-inverse": 0.0, "sigma_y^2": -1.0, "0.3": 0.3}
    for (kind, added), (eta, grid) in product(kinds.items(), both):
        name = f"{kind if not added else f'inverse, k = {kind}'}, eta={eta:g}"
        usual = not added and not eta and grid == "time"
        yield _setting("PiGDM", name, partial(pgdm, added=added, eta=eta), usual, grid)
    for lmbda, (eta, grid) in product((1.0, 10.0), both):
        for solver, iterations in (("gmres", 1), ("cg", 5))[: 2 if lmbda == 1.0 else 1]:
            name = f"lambda={lmbda:g}, {solver} {iterations}, eta={eta:g}"
            usual = lmbda == 10.0 and solver == "gmres" and not eta and grid == "time"
            options: dict[str, Any] = {"lmbda": lmbda, "solver": solver, "iterations": iterations}
            yield _setting("DiffPIR", name, partial(diffpir, eta=eta, **options), usual, grid)
    for eta, grid in both:
        usual = not eta and grid == "time"
        yield _setting("TMPD", f"eta={eta:g}", partial(tmpd, eta=eta), usual, grid)
    for (solver, iterations), (eta, grid) in product((("gmres", 1), ("cg", 5)), both):
        name = f"{solver} {iterations}, eta={eta:g}"
        usual = solver == "gmres" and not eta and grid == "time"
        solve = partial(mmps, eta=eta, solver=solver, iterations=iterations)
        yield _setting("MMPS", name, solve, usual, grid)
    for wide, grid in product((False, True), grids):
        name = f"twist of variance {'rho^2' if wide else 'r^2'}"
        yield _setting("TDS", name, partial(tds, wide=wide), not wide and grid == "time", grid)
    for n, (eta, grid) in product((1, 3, 5, 10), both):
        name = f"{n} iteration{'s' * (n > 1)}, eta={eta:g}"
        usual = n == 3 and not eta and grid == "time"
        solve = partial(repaint, iterations=n, eta=eta)
        yield _setting("RePaint", name, solve, usual, grid, share=n, masks=True)


def _setting(
    method: str,
    name: str,
    solve: Callable[[Ask], Tensor],
    usual: bool,
    grid: str,
    share: int = 1,
    masks: bool = False,
) -> Setting:
    return Setting(LIBRARY, method, name, solve, usual, grid, share, masks)


def same(ask: Ask) -> Any:
    """The denoiser as azula's, on a schedule with our alpha and sigma at the grid's points."""
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import Schedule

    scales = torch.tensor(
        [[float(c) for c in ask.task.schedule(float(t))] for t in ask.times], dtype=torch.float64
    )

    class OnGrid(Schedule):
        """azula's time t = 1 - i/n is the grid's i-th point."""

        def index(self, t: Tensor) -> int:
            return round((1 - float(t)) * (len(scales) - 1))

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            alpha, sigma = scales[self.index(t)].unbind()
            return alpha, sigma

    class Asked(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = OnGrid()

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            return DiracPosterior(ask.denoiser(x_t, float(ask.times[self.schedule.index(t)])))

    return Asked()


def _run(ask: Ask, make: Callable[..., Any], start: Tensor | None = None) -> Tensor:
    """azula's sampler from our start."""
    sampler = make(steps=len(ask.times) - 1, silent=True, dtype=torch.float64)
    x: Tensor = sampler(ask.start if start is None else start)
    return x


def _ddim(ask: Ask, denoiser: Any, eta: float) -> Tensor:
    from azula.sample import DDIMSampler

    return _run(ask, partial(DDIMSampler, denoiser, eta=eta))


def _operator(ask: Ask) -> Callable[[Tensor], Tensor]:
    return lambda x: x @ ask.matrix.T


def plain(ask: Ask, eta: float = 0.0) -> Tensor:
    """Its DDIM without any measurement, which must be ours."""
    return _ddim(ask, same(ask), eta)


def dps(ask: Ask, zeta: float, batch: bool) -> Tensor:
    """Its DPS; zeta is multiplied by the root of the batch where asked."""
    from azula.guidance import DPSSampler

    zeta = zeta * math.sqrt(len(ask.start)) if batch else zeta
    return _run(ask, partial(DPSSampler, same(ask), y=ask.y, A=_operator(ask), zeta=zeta))


def pgdm(ask: Ask, added: float, eta: float) -> Tensor:
    """Its PGDM; `added` to A A^T before it is inverted, the variance of the noise if negative."""
    from azula.guidance import PGDMSampler

    a, noise = ask.task.matrix, ask.task.noise
    k = (noise**2 if added < 0 else added) * torch.eye(len(a), dtype=a.dtype)
    inverse = a.T @ torch.linalg.inv(a @ a.T + k) if added else torch.linalg.pinv(a)
    options = {"A": _operator(ask), "A_inv": lambda y: y @ inverse.to(y).T, "eta": eta}
    return _run(ask, partial(PGDMSampler, same(ask), y=ask.y, **options))


def diffpir(ask: Ask, eta: float, **options: Any) -> Tensor:
    """Its DiffPIR."""
    from azula.guidance import DiffPIRDenoiser

    known = {"y": ask.y, "A": _operator(ask), "var_y": ask.task.noise**2}
    return _ddim(ask, DiffPIRDenoiser(same(ask), **known, **options), eta)


def tmpd(ask: Ask, eta: float) -> Tensor:
    """Its TMPD."""
    from azula.guidance import TMPDenoiser

    known = {"y": ask.y, "A": _operator(ask), "var_y": ask.task.noise**2}
    return _ddim(ask, TMPDenoiser(same(ask), **known), eta)


def mmps(ask: Ask, eta: float, solver: str, iterations: int) -> Tensor:
    """Its MMPS."""
    from azula.guidance import MMPSDenoiser
    from azula.linalg.covariance import IsotropicCovariance

    known = {"y": ask.y, "A": _operator(ask), "cov_y": IsotropicCovariance(ask.task.noise**2)}
    options = {"solver": solver, "iterations": iterations}
    return _ddim(ask, MMPSDenoiser(same(ask), **known, **options), eta)


def tds(ask: Ask, wide: bool) -> Tensor:
    """Its TDS, with as many particles as there are samples of a measurement."""
    from azula.guidance import TDSSampler

    def solve(k: int, start: Tensor) -> Tensor:
        y = ask.task.y[k].to(start)

        def twist(x: Tensor, rho: Tensor) -> Tensor:
            r2 = rho**2 if wide else rho**2 / (1 + rho**2)
            variance = ask.task.noise**2 + r2
            return -((y - x @ ask.matrix.T) ** 2 / variance + variance.log()) / 2

        return _run(ask, partial(TDSSampler, same(ask), twist), start)

    return ask.each(solve)


def repaint(ask: Ask, iterations: int, eta: float) -> Tensor:
    """Its RePaint."""
    from azula.guidance import RePaintSampler

    assert ask.task.kept is not None
    known = {"y": ask.y @ ask.matrix, "mask": ask.task.kept}
    return _run(ask, partial(RePaintSampler, same(ask), **known, iterations=iterations, eta=eta))
