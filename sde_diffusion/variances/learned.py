r"""Ancestral sampling with a variance that the network tells, coordinate by coordinate.

A network with two outputs tells beside its prediction a number v in each coordinate, read as a
place between the two variances of DDPM (Nichol & Dhariwal, "Improved denoising diffusion
probabilistic models", 2021, arXiv:2102.09672, eq. 15):

    log Sigma = (1 - u) log betatilde + u log beta,      u = (v + 1)/2,

so that v = -1 is the posterior variance and v = 1 is beta, as in their published networks (in the
paper the network's output is u itself). Sigma depends on the state, so this is no plan.

Sigma = betatilde + c_d^2 Var is as good as a variance of x_0 given x_t, Var = (Sigma - betatilde)
/c_d^2, by which the same network has a variance for every DDIM(eta) step: v = v_0 + c_d^2 Var with
that step's c_d and v_0 (see `analytic`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..adaptive.solution import Solution
from ..denoise import NetworkDenoiser
from ..noise import Noise, noise_from, plain_draws
from ..reverse import interpolated, logarithms, reverse_step, reverse_steps
from ..run import check_state_for
from ..times import check_grid


@torch.no_grad()
def learned_variance(
    denoiser: NetworkDenoiser,
    x: Tensor,
    times: Sequence[float] | Tensor,
    eta: float = 1.0,
    denoise: bool = True,
    noise: Noise | int | Sequence[int] | None = None,
) -> Solution:
    """DDPM or DDIM steps with the variance that the network has learned.

    x_s = c_x x_t + c_d d + sqrt(Sigma) z,   log Sigma = (1 - u) log betatilde + u log beta

    Nichol & Dhariwal (2021), arXiv:2102.09672, eq. 15; on a grid that leaves out steps, betatilde
    and beta are those of the longer step, as in their section 4. For eta < 1 see the module.

    Args:
        denoiser: a network with two outputs (`outputs=2`) and how to read it.
        x: state at times[0], shape (batch, *event).
        times: noisy to clean.
        eta: in [0, 1]; 1 is DDPM.
        denoise: leave out the noise of a step to sigma = 0, as published.
        noise: a seed, or one seed a sample.

    Raises:
        TypeError: if the network tells no variance.
        ValueError: eta outside [0, 1], bad times or state.
        FloatingPointError: if the result is not finite.
    """
    if not isinstance(denoiser, NetworkDenoiser) or denoiser.outputs != 2:
        raise TypeError(
            "learned_variance needs a network that tells its variance: NetworkDenoiser(network, "
            "schedule, outputs=2), trained with LearnedVarianceObjective"
        )
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta} must lie in [0, 1]: 0 is DDIM, 1 is DDPM")
    check_state_for(denoiser, x)
    schedule = denoiser.schedule
    grid = [float(t) for t in check_grid(schedule, times)]
    clean = schedule.sigma(grid[-1]) == 0
    # A grid that ends with noise has no last step to the data.
    steps = reverse_steps(schedule, grid)
    lower, upper = logarithms(steps)
    x = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
    draw, z = plain_draws(noise_from(noise), x), torch.empty_like(x)
    for i, step in enumerate(steps if clean else steps[:-1]):
        t = torch.tensor(step.t, dtype=torch.float64)
        output, v, a, b = denoiser.with_variance(x, t)
        d = a * x + b * output
        log_sigma = interpolated(v, lower[i], upper[i])
        s = grid[-1] if step.s is None else step.s
        own = step if eta == 1 else reverse_step(schedule, float(step.t), step.s, eta)
        x = own.on_x * x + own.on_d * d
        if denoise and step.s is None:
            continue
        draw(z, float(step.t), float(s))
        variance = log_sigma.exp()
        if eta != 1:
            spread = (variance - float(step.posterior)).clamp(min=0) / float(step.on_d) ** 2
            variance = float(own.posterior) + float(own.on_d) ** 2 * spread
        x = x + variance.sqrt() * z
    if not bool(torch.isfinite(x).all()):
        raise FloatingPointError(
            f"the state at t = {grid[-1]:g} is not finite; look at the network's output"
        )
    return Solution(x, len(steps) if clean else len(steps) - 1)


LEARNED: dict[str, Callable[..., Solution]] = {"learned_variance": learned_variance}
