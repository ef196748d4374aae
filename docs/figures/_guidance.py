"""Two classes of overlapping Gaussians in the plane, and what each guidance draws from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import sde_diffusion as sd
from sde_diffusion import guidance
from sde_diffusion.problems import GaussianMixture

DOUBLE = torch.float64
SCHEDULE = sd.VPLinear()
COUNT = 1000
BOTH = GaussianMixture(
    [0.3, 0.2, 0.3, 0.2],
    [[-1.0, 0.5], [0.8, 0.7], [0.9, -0.5], [-0.7, -0.9]],
    [
        [[0.16, 0.05], [0.05, 0.08]],
        [[0.06, 0.0], [0.0, 0.12]],
        [[0.10, -0.05], [-0.05, 0.16]],
        [[0.2, 0.0], [0.0, 0.06]],
    ],
)
WANTED, OTHER, RIGHT = BOTH.given([0, 1]), BOTH.given([2, 3]), BOTH.given([1, 2])


def tilted(w: float, n: int = COUNT, seed: int = 0) -> Tensor:
    """n draws from p(x|y)^w p(x)^(1-w), normalised."""
    return _drawn({WANTED: w, BOTH: 1 - w}, n, seed)


def product(n: int = COUNT, seed: int = 0) -> Tensor:
    """n draws from p(x|y_1) p(x|y_2)/p(x), normalised: of the wanted class, and on the right."""
    return _drawn({WANTED: 1, RIGHT: 1, BOTH: -1}, n, seed)


def _drawn(powers: dict[GaussianMixture, float], n: int, seed: int) -> Tensor:
    """n draws from a product of powers of densities, normalised: from cells of a fine grid."""
    axis = torch.linspace(-3.5, 3.5, 351, dtype=DOUBLE)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    log_p = sum(power * law.log_prob(points, 1.0, 0.0) for law, power in powers.items())
    generator = torch.Generator().manual_seed(seed)
    cell = torch.multinomial(log_p.softmax(0), n, replacement=True, generator=generator)
    inside = torch.rand(n, 2, generator=generator, dtype=DOUBLE) - 0.5
    return points[cell] + inside * (axis[1] - axis[0])


def quantiles(x: Tensor) -> Tensor:
    """Samples on 64 directions of the plane, sorted on each."""
    angle = math.pi * torch.arange(64, dtype=DOUBLE) / 64
    return (x @ torch.stack([angle.cos(), angle.sin()])).sort(0).values


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Sliced Wasserstein-2 of what `quantiles` gives; theirs may be a multiple in number."""
    gaps = ours.repeat_interleave(len(theirs) // len(ours), 0) - theirs
    return float(gaps.square().mean().sqrt())


def evidence(x: Tensor, t: float) -> Tensor:
    """log p(y | x_t = x) of the wanted class, up to a constant."""
    scales = SCHEDULE(t)
    return WANTED.log_prob(x, *scales) - BOTH.log_prob(x, *scales)


def smoothed(problem: GaussianMixture, h: float) -> sd.Denoiser:
    """A model with errors: that of the data plus N(0, h^2 I)."""
    spread = problem._covariances + h**2 * torch.eye(2, dtype=DOUBLE)
    return GaussianMixture(problem.weights, problem._means, spread).denoiser(SCHEDULE)


def variants(plan: sd.Plan) -> dict[str, sd.Denoiser]:
    """Every guidance of the page, by the title of its panel."""
    wanted, both, other, right = (p.denoiser(SCHEDULE) for p in (WANTED, BOTH, OTHER, RIGHT))
    free = lambda w: guidance.classifier_free(wanted, both, scale=w)
    good, bad = smoothed(WANTED, 0.25), smoothed(WANTED, 0.5)
    clean = lambda d: WANTED.log_prob(d, 1.0, 0.0) - BOTH.log_prob(d, 1.0, 0.0)
    return {
        "classifier-free, w = 2": free(2.0),
        "classifier-free, w = 4": free(4.0),
        "negative, w = 1.5": guidance.classifier_free(wanted, other, scale=1.5),
        "interval, w = 4": guidance.limited_interval(free(4.0), 0.2, 1.5),
        "CFG++, w = 0.6": guidance.cfg_plus_plus(wanted, both, scale=0.6, times=plan.times),
        "projected, w = 4": guidance.adaptive_projected(wanted, both, scale=4.0),
        "CFG-Zero*, w = 4": guidance.cfg_zero_star(
            wanted, both, scale=4.0, zero_above=plan.times[1]
        ),
        "composed, both w = 1": guidance.composed([wanted, right], both, scales=[1.0, 1.0]),
        "model with errors": good,
        "autoguided, w = 1.5": guidance.autoguidance(good, bad, scale=1.5),
        "classifier, w = 1": guidance.classifier(both, evidence),
        "classifier, w = 4": guidance.classifier(both, evidence, scale=4.0),
        "of clean data, w = 1": guidance.universal(both, clean),
    }


def plan() -> sd.Plan:
    """DDIM, 40 steps: every guidance runs on it, CFG++ too."""
    return sd.solvers.ddim(SCHEDULE, sd.times.default(SCHEDULE, 40))


def start() -> Tensor:
    """Noise that fills its law evenly, so that distances are of laws and less of draws."""
    points = torch.quasirandom.SobolEngine(2, scramble=True, seed=1).draw(COUNT, dtype=DOUBLE)
    return torch.special.ndtri(points)
