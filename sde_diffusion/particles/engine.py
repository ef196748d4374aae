r"""Sequential Monte Carlo over a plan: one engine for every target and every stochastic plan.

A plan is a model of paths: from x_T on, each row says x_i = mean(past) + sum_k c_k z_k with fresh
z_k ~ N(0, I). A particle is such a path, of which those states, outputs and draws are kept that a
later row needs; so a multistep plan is no different from a Markov one. At the grid points the law
of paths is weighed by a guide's potentials psi_i, and at the end by psi(x_0):

    gamma_i(path) = p(path) psi_i(path),    Z = int p(path) psi(x_0).

To move a row's mean by v is to draw its noise from N(m_k, I), m_k = c_k v / sum_k c_k^2. With
z' = z + m,

    log N(z'; 0, I) - log N(z'; m, I) = -m . z - |m|^2 / 2,

which is finite however small the noise is. Particles thus gain the log weight

    g_i = log psi_i - log psi_{i-1} + sum over draws since of (-m . z - |m|^2 / 2).

Whatever the moves, potentials, resampling scheme, its threshold and the number of particles,

    E[Z_hat] = Z,    Z_hat = prod_i sum_k W_k e^{g_ik}.

Del Moral, "Feynman-Kac formulae", 2004. Whiteley, Lee & Heine, "On the role of interaction in
sequential Monte Carlo algorithms", 2016, arXiv:1309.2918 (adaptive resampling keeps it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

import torch
from torch import Tensor

from ..answers import wrong_output
from ..counts import check_count
from ..denoise import Denoiser, check_denoiser
from ..form import Symbol
from ..names import look_up
from ..noise import Draw, PerSampleNoise, seeds_of
from ..plan import Plan, Row
from ..progress import Progress
from ..run import check_device, check_finite
from ..sample import starting_state
from .guide import Guide, Move, Seen
from .resampling import SCHEMES
from .result import Population
from .weights import Weights


class Options(TypedDict, total=False):
    """How particles are run, whatever they are drawn towards; all may be left out.

    Attributes:
        resampling: a name of `SCHEMES`; default "systematic".
        threshold: a population is resampled when its effective sample size is below this part of
            K; 0: never (importance sampling), 1: wherever particles are weighed; default 0.5.
        seed: one for all, or one a population; None (default) for one from the system. A
            population depends on its own seed alone, and those of one seed are the first of an
            endless list.
        start: states at the plan's first time, `shape`; default: N(0, sigma_T^2 I).
        dtype: of the states, float32 (default) or float64; weights are float64.
        device: of the states; default: the network's.
        batch: the most particles that the network is asked for at once; default: all.
        progress: show how far it is.
    """

    resampling: str
    threshold: float
    seed: int | Sequence[int] | None
    start: Tensor | None
    dtype: torch.dtype
    device: torch.device | str | None
    batch: int | None
    progress: bool


@torch.no_grad()
def run_particles(
    plan: Plan,
    guide: Guide,
    shape: Sequence[int],
    *,
    resampling: str = "systematic",
    threshold: float = 0.5,
    seed: int | Sequence[int] | None = None,
    start: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    batch: int | None = None,
    progress: bool = False,
) -> Population:
    """Run a stochastic plan with particles that are weighed and resampled at its grid points.

    Args:
        plan: any plan that draws noise; for one of few draws, few particles part ways.
        guide: the model, the target and the proposal.
        shape: (populations, K, *event): independent populations of K particles each.
        resampling, threshold, seed, start, dtype, device, batch, progress: see `Options`.

    Raises:
        TypeError: no Plan, no Denoiser.
        ValueError: a plan without noise or of another schedule; a bad shape, start, scheme,
            threshold, batch or seed; conditions that are not one a population; a grid that starts
            where data still shows.
        FloatingPointError: potentials that are not finite, or a population whose particles all
            have weight zero; says at which grid point.
    """
    populations, k, *event = _check_shape(shape)
    _check_plan(plan, guide.denoiser)
    scheme = look_up("resampling scheme", resampling, SCHEMES)
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not 0 <= threshold <= 1:
        raise ValueError(
            f"threshold = {threshold!r} must lie in [0, 1]: the part of the particles below which "
            "their effective number leads to resampling (0: never, 1: always)"
        )
    check_count("batch", batch, or_none=True)
    check_populations(guide.denoiser, populations)
    guide.check(populations, tuple(event))
    seeds = seeds_of(seed, populations)
    noise = PerSampleNoise(seeds)
    whole = (populations, k, *event)
    x = starting_state(guide.denoiser, whole, plan.times[0], noise, start, dtype, device)
    if start is not None:
        check_finite(x)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
    check_device(guide.denoiser, x)
    weights = Weights(guide, scheme, threshold, seeds, x)
    with Progress(plan.nfe, progress) as bar:
        advance = lambda: bar.advance(1, plan.name)
        draw = noise.stream(x, plan.course)
        x = _run(plan.detached(), guide, x, draw, weights, batch or populations * k, advance)
    return weights.population(plan, x)


def _run(
    plan: Plan,
    guide: Guide,
    start: Tensor,
    draw: Draw,
    weights: Weights,
    batch: int,
    advance: Callable[[], None],
) -> Tensor:
    """The loop over rows; returns the last states, (populations * K, *event)."""
    who = torch.arange(len(start), device=start.device).repeat_interleave(start.shape[1])
    last_use = {symbol: i for i, row in enumerate(plan.rows) for symbol, _ in row.terms()}
    path: dict[Symbol, Tensor] = {}  # what is kept of each particle: x_i, d_j, z_k
    pushes: dict[int, Tensor] = {}  # of the outputs d_j
    fresh = lambda k: draw(torch.empty_like(start), *plan.noises[k]).flatten(0, 1)
    outputs = index = 0
    t = 0.0  # of the last grid point
    for i, row in enumerate(plan.rows):
        if i == 0:
            x = start.flatten(0, 1)
        else:
            new = [k for k in row.z if ("z", k) not in path]
            path.update({("z", k): fresh(k) for k in new})
            variance = float(sum(row.z[k] ** 2 for k in new))
            if pushes and variance > 0:
                on_outputs = {j: float(b) for j, b in row.d.items()}
                move = Move(t, float(row.t), on_outputs, variance)
                drift = guide.drift(move, pushes)
                if drift is not None:
                    _shift(row, new, drift / variance, path, weights)
            x = _combine(row, path)
        path["x", i] = x
        if row.asks:
            seen = _see(guide, row, index, x, who, batch)
            path["d", outputs] = seen.d
            if row.kind == "denoise":
                pushes = {j: v for j, v in pushes.items() if ("d", j) in path}
                if seen.push is not None:
                    pushes[outputs] = seen.push
            outputs += 1
            if seen.value is not None:
                chosen = weights.weigh(float(row.t), seen.value)
                path = {s: v[chosen] for s, v in path.items() if last_use.get(s, 0) > i}
                pushes = {j: v[chosen] for j, v in pushes.items()}
            advance()
        elif row.kind == "end":
            parts = zip(x.split(batch), who.split(batch), strict=True)
            weights.finish(float(row.t), torch.cat([guide.end(*part) for part in parts]))
        if row.on_grid:
            index, t = index + 1, float(row.t)
        path = {s: v for s, v in path.items() if last_use.get(s, 0) > i}
    return x


def _shift(
    row: Row, new: list[int], towards: Tensor, path: dict[Symbol, Tensor], weights: Weights
) -> None:
    """Draw a row's fresh noises from N(c_k towards, I) in place of N(0, I), and weigh that."""
    for k in new:
        m, z = row.z[k] * towards, path["z", k]
        weights.correct(-(m * (z + m / 2)))
        path["z", k] = z + m


def _combine(row: Row, path: dict[Symbol, Tensor]) -> Tensor:
    x, *rest = (c * path[symbol] for symbol, c in row.terms())
    for term in rest:
        x = x.add_(term)
    return x


def _see(guide: Guide, row: Row, index: int, x: Tensor, who: Tensor, batch: int) -> Seen:
    """Ask the model, in parts: with the guide at a grid point, alone inside a step."""
    t, parts = float(row.t), []
    for part, of in zip(x.split(batch), who.split(batch), strict=True):
        if row.kind == "denoise":
            seen = guide.see(part, t, index, of)
        else:
            seen = Seen(guide.denoiser.select(of)(part, t))
        if not isinstance(seen.d, Tensor) or seen.d.shape != part.shape:
            raise ValueError(wrong_output(seen.d, part))
        parts.append(seen)
    if len(parts) == 1:
        return parts[0]
    d, pushes, values = zip(*parts, strict=True)
    whole = lambda column: None if column[0] is None else torch.cat(column)
    return Seen(torch.cat(d), whole(pushes), whole(values))


def _check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(shape, Sequence) or isinstance(shape, str) or len(shape) < 2:
        raise ValueError(
            f"shape = {shape!r} must be (populations, particles, *event), as (1, 64, 3, 32, 32)"
        )
    names = ["the number of populations", "the number of particles"]
    for i, n in enumerate(shape):
        check_count(f"{names[i] if i < 2 else 'a size of the event'}, shape[{i}]", n)
    return tuple(int(n) for n in shape)


def _check_plan(plan: Plan, denoiser: Denoiser) -> None:
    if not isinstance(plan, Plan):
        raise TypeError(
            f"particles need a Plan, not {type(plan).__name__}: sd.solvers.ddim(schedule, times, "
            "eta=1.0)"
        )
    check_denoiser(denoiser)
    if not plan.stochastic:
        raise ValueError(
            f"{plan.name} draws no noise, so that copies of a particle would stay copies; use a "
            "stochastic plan: ddim with eta=1, sde_dpm_solver_pp_2m, euler_maruyama, .."
        )
    plan.check_schedule(denoiser.schedule)


def check_populations(denoiser: Denoiser, populations: int) -> None:
    """ValueError if conditions are bound for another number of populations."""
    if denoiser.samples not in (None, populations):
        raise ValueError(
            f"conditions of {denoiser.samples} samples are bound for {populations} populations: "
            "give one a population, which all its particles share; to repeat one, labels.expand("
            f"{populations})"
        )
