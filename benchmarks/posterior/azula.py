"""azula's methods for inverse problems, run by its own code on the same denoiser and grids.

azula is given what its users write: a denoiser (the exact one of the prior), a schedule (with our
alpha and sigma at the points of the grid), y and A. Its options are swept as ours are, about as
many of every method, and its methods that are denoisers go by five plans as ours do: DDIM of two
etas on two grids, and its Adams-Bashforth of order 2 in the velocity.

- DPS divides by the norm of the residual of the whole batch, not of each sample: of B samples every
  step is about sqrt(B) times smaller than of one. Its sweep therefore has zeta times sqrt(B) too.
- PGDM takes an inverse of A: the pseudo-inverse, or A^T (A A^T + k I)^{-1}, k = sigma_y^2 or 0.3.
- TDS takes a twisting function of E[x_0 | x_t] and rho = sigma/alpha: log N(y; A x, r^2 A A^T +
  sigma_y^2 I), or with I for A A^T; r^2 = v rho^2/(v + rho^2), the variance of x_0 given x_t under
  data of variance v = 0.3, 1 or infinity. Its steps are those of DDPM alone.
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
MULTISTEP = None
"""In the place of an eta of DDIM: Adams-Bashforth of order 2."""


def settings() -> list[Setting]:
    """All settings; none where azula is not installed."""
    return list(_settings()) if importlib.util.find_spec("azula") else []


def _settings() -> Iterator[Setting]:
    grids = ("time", "default")
    both = list(product((0.0, 1.0), grids))
    plans = [*both, (MULTISTEP, "default")]
    for zeta, batch, grid in product((0.1, 0.3, 1.0, 3.0, 10.0), (False, True), grids):
        if batch or zeta == 1.0:
            name = f"zeta={zeta:g}" + (" sqrt(B)" if batch else "")
            usual = grid == "time" and not batch
            yield _setting("DPS", name, partial(dps, zeta=zeta, batch=batch), usual, grid)
    kinds = {"pseudo-inverse": 0.0, "sigma_y^2": -1.0, "0.3": 0.3, "1": 1.0}
    for (kind, added), (eta, grid) in product(kinds.items(), both):
        name = f"{kind if not added else f'inverse, k = {kind}'}, eta={eta:g}"
        usual = not added and not eta and grid == "time"
        yield _setting("PiGDM", name, partial(pgdm, added=added, eta=eta), usual, grid)
    for lmbda, (plan, grid) in product((1.0, 10.0), plans):
        for solver, iterations in (("gmres", 1), ("cg", 5))[: 2 if lmbda == 1.0 else 1]:
            name = f"lambda={lmbda:g}, {solver} {iterations}, {_plan(plan)}"
            usual = lmbda == 10.0 and solver == "gmres" and plan == 0 and grid == "time"
            options: dict[str, Any] = {"lmbda": lmbda, "solver": solver, "iterations": iterations}
            yield _setting("DiffPIR", name, partial(diffpir, eta=plan, **options), usual, grid)
    for plan, grid in plans:
        usual = plan == 0 and grid == "time"
        yield _setting("TMPD", _plan(plan), partial(tmpd, eta=plan), usual, grid)
    for (solver, iterations), (plan, grid) in product((("gmres", 1), ("cg", 5)), plans):
        name = f"{solver} {iterations}, {_plan(plan)}"
        usual = solver == "gmres" and plan == 0 and grid == "time"
        solve = partial(mmps, eta=plan, solver=solver, iterations=iterations)
        yield _setting("MMPS", name, solve, usual, grid)
    for matched, variance, grid in product((False, True), (0.3, 1.0, math.inf), grids):
        name = f"twist {'r^2 A A^T + sigma^2' if matched else 'r^2 + sigma^2'}, v={variance:g}"
        usual = not matched and variance == 1.0 and grid == "time"
        solve = partial(tds, matched=matched, variance=variance)
        yield _setting("TDS", name, solve, usual, grid)
    for n, (eta, grid) in product((1, 2, 3, 5, 7, 10), both):
        name = f"{n} iteration{'s' * (n > 1)}, eta={eta:g}"
        usual = n == 3 and not eta and grid == "time"
        solve = partial(repaint, iterations=n, eta=eta)
        yield _setting("RePaint", name, solve, usual, grid, share=n, masks=True)


def _plan(eta: float | None) -> str:
    return "Adams-Bashforth" if eta is MULTISTEP else f"eta={eta:g}"


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

        def index(self, t: Tensor) -> Tensor:
            return ((1 - t.double()) * (len(scales) - 1)).round().long()

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            alpha, sigma = scales[self.index(t)].unbind(-1)
            return alpha, sigma

    class Asked(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = OnGrid()

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            return DiracPosterior(ask.denoiser(x_t, float(ask.times[int(self.schedule.index(t))])))

    return Asked()


def _run(ask: Ask, make: Callable[..., Any], start: Tensor | None = None) -> Tensor:
    """azula's sampler from our start."""
    sampler = make(steps=len(ask.times) - 1, silent=True, dtype=torch.float64)
    x: Tensor = sampler(ask.start if start is None else start)
    return x


def _solve(ask: Ask, denoiser: Any, eta: float | None) -> Tensor:
    from azula.sample import DDIMSampler, vABSampler

    if eta is MULTISTEP:
        return _run(ask, partial(vABSampler, denoiser))
    return _run(ask, partial(DDIMSampler, denoiser, eta=eta))


def _operator(ask: Ask) -> Callable[[Tensor], Tensor]:
    return lambda x: x @ ask.matrix.T


def plain(ask: Ask, eta: float | None = 0.0) -> Tensor:
    """Its plan without any measurement; DDIM must be ours."""
    return _solve(ask, same(ask), eta)


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


def diffpir(ask: Ask, eta: float | None, **options: Any) -> Tensor:
    """Its DiffPIR."""
    from azula.guidance import DiffPIRDenoiser

    known = {"y": ask.y, "A": _operator(ask), "var_y": ask.task.noise**2}
    return _solve(ask, DiffPIRDenoiser(same(ask), **known, **options), eta)


def tmpd(ask: Ask, eta: float | None) -> Tensor:
    """Its TMPD."""
    from azula.guidance import TMPDenoiser

    known = {"y": ask.y, "A": _operator(ask), "var_y": ask.task.noise**2}
    return _solve(ask, TMPDenoiser(same(ask), **known), eta)


def mmps(ask: Ask, eta: float | None, solver: str, iterations: int) -> Tensor:
    """Its MMPS."""
    from azula.guidance import MMPSDenoiser
    from azula.linalg.covariance import IsotropicCovariance

    known = {"y": ask.y, "A": _operator(ask), "cov_y": IsotropicCovariance(ask.task.noise**2)}
    options = {"solver": solver, "iterations": iterations}
    return _solve(ask, MMPSDenoiser(same(ask), **known, **options), eta)


def tds(ask: Ask, matched: bool, variance: float) -> Tensor:
    """Its TDS, with as many particles as there are samples of a measurement."""
    from azula.guidance import TDSSampler

    a = ask.matrix
    # Along the axes of A A^T the numbers of y are independent.
    lengths, axes = torch.linalg.eigh(a @ a.T)
    lengths = lengths if matched else torch.ones_like(lengths)

    def solve(k: int, start: Tensor) -> Tensor:
        y = ask.task.y[k].to(start)

        def twist(x: Tensor, rho: Tensor) -> Tensor:
            total = ask.task.noise**2 + rho**2 / (1 + rho**2 / variance) * lengths
            return -(((y - x @ a.T) @ axes) ** 2 / total + total.log()) / 2

        return _run(ask, partial(TDSSampler, same(ask), twist), start)

    return ask.each(solve)


def repaint(ask: Ask, iterations: int, eta: float) -> Tensor:
    """Its RePaint."""
    from azula.guidance import RePaintSampler

    assert ask.task.kept is not None
    known = {"y": ask.y @ ask.matrix, "mask": ask.task.kept}
    return _run(ask, partial(RePaintSampler, same(ask), **known, iterations=iterations, eta=eta))
