"""Our methods for inverse problems, each under a few options and plans; and what is known exactly.

A method's default is what it does when nothing is said: its own default options, by the plan that
`sample` or `inpaint` takes for itself; on the default grid where the method must be given a grid,
and by DDPM where it must be given a plan that draws noise. The sweep is of the method's options
times five plans: azula's four, of two etas and two grids, and that of `sample`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from sde_diffusion import Denoiser, editing, inverse, particles, run, sample
from sde_diffusion.solvers import SOLVERS

from .asks import Ask, Setting
from .problems import Task

LIBRARY = "ours"
Method = Callable[..., Denoiser]

PLANS: list[tuple[str, float | None, str]] = [
    ("DDIM eta=1", 1.0, "default"),
    ("DDIM eta=1", 1.0, "time"),
    ("DDIM eta=0", 0.0, "time"),
    ("DDIM eta=0", 0.0, "default"),
    ("plan of sample", None, "default"),
]
"""Name, eta of DDIM (None: the default of `sample`), and grid; the last is the default."""

METHODS: dict[str, tuple[Method, list[dict[str, float]]]] = {
    "DPS": (inverse.dps, [{}]),
    "PiGDM": (inverse.pigdm, [{}, {"variance": 0.3}, {"variance": 1.0}]),
    "DiffPIR": (inverse.diffpir, [{}, {"variance": 0.3}, {"variance": math.inf}]),
    "TMPD": (inverse.tmpd, [{}]),
    "MMPS": (inverse.mmps, [{}, {"iterations": 5}]),
    "DDNM": (inverse.ddnm, [{}]),
    "MPGD": (inverse.mpgd, [{}, {"variance": 0.25}]),
}
"""The first options of each are its default."""

NOISY: dict[str, Callable[..., Any]] = {
    "DDPM": SOLVERS["ddpm"],
    "DDIM eta=1": partial(SOLVERS["ddim"], eta=1.0),
}
"""Plans that draw noise. DDIM with eta = 1 is DDPM with the posterior variance, the smaller."""
BASES = {**NOISY, "DDIM eta=0": SOLVERS["ddim"]}
"""RePaint's solvers."""
JUMPS = ((0, False), (2, False), (4, True), (9, True))
"""RePaint's number of jumps, and whether the clean end is jumped from."""


def settings() -> list[Setting]:
    """All of them, the exact ones first."""
    return [*_exact(), *_conditional_means(), *_others()]


def measurement(task: Task, y: Tensor) -> inverse.Measurement:
    """One y for all samples or one a sample, of y's dtype."""
    operator: inverse.Operator
    if task.kept is None:
        operator = inverse.Matrix(task.matrix.to(y))
    else:
        operator = inverse.Mask(task.kept)
    return inverse.Measurement(operator, y, task.noise)


def _conditional_means() -> Iterator[Setting]:
    for method, (make, choices) in METHODS.items():
        for options, (plan, eta, grid) in product(choices, PLANS):
            name = ", ".join([*(f"{k}={v:g}" for k, v in options.items()), plan])
            solve = partial(by_plan, make=partial(make, **options), eta=eta)
            usual = not options and eta is None
            yield Setting(LIBRARY, method, name, solve, usual, grid)
    for zeta, grid in product((0.3, 1.0, 3.0), ("default", "time")):
        name, solve = f"zeta={zeta:g}, DDIM eta=1", partial(dps_of_paper, zeta=zeta, eta=1.0)
        yield Setting(LIBRARY, "DPS", name, solve, grid=grid)


def by_plan(ask: Ask, make: Method, eta: float | None) -> Tensor:
    """A method that is a denoiser, run by a plan."""
    return _solve(ask, make(ask.denoiser, measurement(ask.task, ask.y)), eta)


def dps_of_paper(ask: Ask, zeta: float, eta: float) -> Tensor:
    """The push of the paper's algorithm, which is given in units of its steps."""
    given = measurement(ask.task, ask.y)
    return _solve(ask, inverse.dps(ask.denoiser, given, zeta=zeta, times=ask.times), eta)


def _solve(ask: Ask, denoiser: Denoiser, eta: float | None) -> Tensor:
    start = ask.start
    if eta is None:
        steps = len(ask.times) - 1
        return sample(denoiser, start.shape, steps=steps, start=start, seed=ask.seed)
    plan = SOLVERS["ddim"](denoiser.schedule, ask.times, eta=eta)
    return run(plan, denoiser, start, noise=ask.seed)


def _others() -> Iterator[Setting]:
    for ode_steps, variance, grid in product((1, 4), (0.3, 1.0), ("default", "time")):
        name = f"ode_steps={ode_steps}, variance={variance:g}"
        usual = ode_steps == 1 and variance == 0.3 and grid == "default"
        solve = partial(daps, ode_steps=ode_steps, variance=variance)
        yield Setting(LIBRARY, "DAPS", name, solve, usual, grid, share=ode_steps)
    for twist, plan, grid in product(particles.TWISTS, NOISY, ("default", "time")):
        usual = twist == "matched" and plan == "DDPM" and grid == "default"
        most = 4 if twist == "tweedie" else None
        solve = partial(twisted, twist=twist, plan=plan)
        yield Setting(LIBRARY, "TDS", f"{twist}, {plan}", solve, usual, grid, most=most)
    for potential, grid in product(particles.POTENTIALS, ("default", "time")):
        usual = potential == "difference" and grid == "default"
        solve = partial(steered, potential=potential)
        yield Setting(LIBRARY, "steering", potential, solve, usual, grid)
    for (count, from_end), base, grid in product(JUMPS, BASES, ("default", "time")):
        usual = count == 2 and base == "DDPM" and grid == "default"
        name = f"jump_count={count}{', from the end' if from_end else ''}, base {base}"
        solve = partial(repaint, count=count, base=base, from_end=from_end)
        costs = {"share": count + 1, "spared": 0 if from_end else count}
        yield Setting(LIBRARY, "RePaint", name, solve, usual, grid, masks=True, **costs)
    for plan, eta, grid in PLANS:
        solve = partial(replaced, eta=eta)
        yield Setting(LIBRARY, "replacement", plan, solve, eta is None, grid, masks=True)


def daps(ask: Ask, **options: Any) -> Tensor:
    """Decoupled annealing."""
    given = measurement(ask.task, ask.y)
    return inverse.daps(ask.denoiser, ask.start, ask.times, given, noise=ask.seed, **options).x


def twisted(ask: Ask, twist: str, plan: str) -> Tensor:
    """Twisted particles, as many as samples, a population a measurement."""
    task, start = ask.task, ask.start.unflatten(0, (ask.task.count, -1))
    noisy = NOISY[plan](task.schedule, ask.times)
    given = measurement(task, task.y.to(ask.start))
    found = particles.twisted(
        noisy, ask.denoiser, given, start.shape, twist=twist, seed=ask.seed, start=start
    )
    return found.draw(task.samples, seed=ask.seed).flatten(0, 1)


def steered(ask: Ask, potential: str) -> Tensor:
    """Particles steered by the log-likelihood."""
    task, plan = ask.task, SOLVERS["ddim"](ask.task.schedule, ask.times, eta=1.0)

    def solve(k: int, start: Tensor) -> Tensor:
        reward = measurement(task, task.y[k].to(start)).log_likelihood
        everywhere = range(len(ask.times) - 1)
        options: dict[str, Any] = {"potential": potential, "at": everywhere}
        found = particles.steer(
            plan,
            ask.denoiser,
            reward,
            (1, *start.shape),
            start=start[None],
            seed=_seed(ask, k),
            **options,
        )
        return found.draw(task.samples, seed=ask.seed)[0]

    return ask.each(solve)


def _seed(ask: Ask, k: int) -> int:
    """Of the run for the k-th measurement by itself: no other run has it."""
    return 100 * ask.seed + k


def repaint(ask: Ask, count: int, base: str, from_end: bool) -> Tensor:
    """RePaint, which takes y for exact."""
    jumps = {"jump_count": count, "base": BASES[base], "from_end": from_end}
    steps = {"times": ask.times, **jumps}
    return _inpaint(ask, noise="independent", solver="repaint", **steps)


def replaced(ask: Ask, eta: float | None) -> Tensor:
    """Replacement of the known part, with one noise for the whole path."""
    if eta is None:
        return _inpaint(ask, steps=len(ask.times) - 1)
    return _inpaint(ask, solver="ddim", eta=eta, times=ask.times)


def _inpaint(ask: Ask, **options: Any) -> Tensor:
    assert ask.task.kept is not None
    picture = ask.y @ ask.matrix
    return editing.inpaint(ask.denoiser, picture, ask.task.kept, seed=ask.seed, **options)


# What is known exactly ---------------------------------------------------------------------------


def _exact() -> Iterator[Setting]:
    for plan, eta, grid in PLANS:
        solve = partial(posterior_denoiser, eta=eta)
        yield Setting("exact", "posterior's denoiser", plan, solve, eta is None, grid)
    yield Setting("exact", "prior", "", prior)


def posterior_denoiser(ask: Ask, eta: float | None) -> Tensor:
    """E[x_0 | x_t, y] itself: what is left is the error of the solver."""

    def solve(k: int, start: Tensor) -> Tensor:
        exact = type(ask.denoiser)(ask.task.posteriors[k].denoiser(ask.task.schedule))
        x = _solve(replace(ask, start=start, seed=_seed(ask, k)), exact, eta)
        ask.denoiser.calls += exact.calls
        return x

    return ask.each(solve)


def prior(ask: Ask) -> Tensor:
    """Samples of the prior, blind to y."""
    return ask.task.prior.sample(len(ask.start), torch.Generator().manual_seed(31 + ask.seed))
