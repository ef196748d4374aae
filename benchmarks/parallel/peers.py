"""ParaDiGMS by diffusers' parallel schedulers, on the same network: rounds and errors.

The schedulers (DDIMParallelScheduler, DDPMParallelScheduler) bring the step for many times at once;
the loop belongs to a pipeline for text and images, so it is written here, after Shih et al. 2023,
arXiv:2305.16317, algorithm 1: states in a window are the first one plus the sum of the steps'
increments and noises, and the window moves on past states whose squared change is below
tolerance^2 times their number of coordinates times the variance of DDPM's noise there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sde_diffusion.store import Cell

from ..model import SCHEDULE
from .errors import differences

TRAINED = 1000  # timesteps k = 0 .. 999, at t = (k + 1) / 1000
TOLERANCES = (1.0, 0.1, 0.01)
CASES = {
    "DDIM, 50 steps": ("DDIMParallelScheduler", 50),
    "DDIM, 100 steps": ("DDIMParallelScheduler", 100),
    "DDIM, 1000 steps": ("DDIMParallelScheduler", 1000),
    "DDPM, 1000 steps": ("DDPMParallelScheduler", 1000),
}


def scheduler(name: str, steps: int) -> Any:
    """A scheduler of diffusers for the network's schedule, at even timesteps down to 0."""
    import diffusers

    alphas = torch.tensor([float(SCHEDULE.alpha(k / TRAINED)) for k in range(TRAINED + 1)]).double()
    betas = (1 - (alphas[1:] / alphas[:-1]) ** 2).tolist()
    made = getattr(diffusers, name)(trained_betas=betas, clip_sample=False)
    made.set_timesteps(steps)
    return made


def paradigms(case: str, tolerance: float, network: nn.Module, start: Tensor) -> Cell:
    """Rounds with all rows in one window, and the difference from its own sequential run."""
    name, steps = CASES[case]
    made = scheduler(name, steps)
    draws = _noise(made, start)
    exact, *_ = _solve(made, network, start, draws, 1, 0.0)
    found, rounds, asked = _solve(made, network, start, draws, steps, tolerance)
    return {"rounds": rounds, "evaluations": float(asked), **differences(found, exact)}


def _noise(made: Any, start: Tensor) -> Tensor:
    """The noise of each step, with its standard deviation: (steps, batch, *event)."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.zeros(len(made.timesteps), *start.shape)
    if not made._is_ode_scheduler:
        for i, t in enumerate(made.timesteps[:-1]):
            normal = torch.randn(start.shape, generator=generator)
            draws[i] = made._get_variance(t).sqrt() * normal
    return draws


def _solve(
    made: Any, network: nn.Module, start: Tensor, draws: Tensor, window: int, tolerance: float
) -> tuple[Tensor, int, int]:
    """(the last states, rounds, evaluations a sample)."""
    steps, batch = len(made.timesteps), len(start)
    states = start.expand(steps + 1, *start.shape).clone()
    bounds = torch.tensor([*(float(made._get_variance(t)) for t in made.timesteps), 0.0])
    first, rounds, asked = 0, 0, 0
    while first < steps:
        last = min(first + window, steps)
        t = made.timesteps[first:last].repeat_interleave(batch)
        block = states[first:last]
        noise = network(block.flatten(0, 1), (t + 1) / TRAINED)
        moved = made.batch_step_no_noise(noise, t, block.flatten(0, 1)).reshape(block.shape)
        new = states[first] + (moved - block + draws[first:last]).cumsum(0)
        change = (new - states[first + 1 : last + 1]).flatten(2).square().mean(2)
        bound = bounds[first + 1 : last + 1]
        still = (change > tolerance**2 * bound[:, None]).any(1)
        states[first + 1 : last + 1] = new
        rounds, asked = rounds + 1, asked + last - first
        moving = still.nonzero()
        step = int(moving[0]) + 1 if len(moving) else last - first
        new_last = min(first + step + window, steps)
        states[last + 1 : new_last + 1] = states[last]
        first += step
    return states[-1], rounds, asked
