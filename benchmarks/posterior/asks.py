"""What a method is asked, by whom, under which options; network calls and gradients are counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sde_diffusion import Denoiser, times
from sde_diffusion.noise import IndependentNoise
from sde_diffusion.scalar import Scalar

from .problems import Task

GRIDS = {"time": times.uniform, "default": times.default}
"""Even steps in t, azula's only grid, and ours."""


class Counted(Denoiser):
    """A denoiser that counts how often it is asked, and how often a gradient goes through it."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.calls = self.gradients = 0

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        self.calls += 1
        d = self.denoiser(x, t)
        if d.requires_grad:
            d.register_hook(self._gradient)
        return d

    def _gradient(self, gradient: Tensor) -> None:
        self.gradients += 1


@dataclass(frozen=True)
class Ask:
    """One run of a method: all samples of all measurements of a task.

    Attributes:
        task: the problem.
        denoiser: of the prior, counted.
        times: the grid, noisy to clean; as many steps as the method may take.
        start: x_T, (count * samples, D); the samples of one measurement are neighbours.
        seed: of the run.
    """

    task: Task
    denoiser: Counted
    times: Tensor
    start: Tensor
    seed: int

    @property
    def y(self) -> Tensor:
        """One measurement a sample, (count * samples, M)."""
        return self.task.y.to(self.start).repeat_interleave(self.task.samples, 0)

    @property
    def matrix(self) -> Tensor:
        """A in the samples' dtype."""
        return self.task.matrix.to(self.start)

    def each(self, solve: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Of every measurement by itself: (its number, its part of the start) -> samples."""
        before = self.denoiser.calls, self.denoiser.gradients
        parts = self.start.split(self.task.samples)
        x = torch.cat([solve(k, part) for k, part in enumerate(parts)])
        # Costs are those of a sample: the runs stand beside one another.
        for name, start in zip(("calls", "gradients"), before, strict=True):
            spent = getattr(self.denoiser, name) - start
            setattr(self.denoiser, name, start + spent // len(parts))
        return x


@dataclass(frozen=True)
class Setting:
    """A method of a library under one choice of options.

    Attributes:
        library: "ours", "azula", or "exact" for what is known exactly.
        method: by one name in all libraries.
        options: for people, and part of a cell's name.
        solve: the run.
        default: whether this is what the library does when nothing is said.
        grid: name of a grid of GRIDS.
        share: network calls a step of the grid takes.
        masks: whether it is for masks alone.
        spared: network calls that its last step does without.
        most: numbers that may be measured, where a call costs a gradient for each of them.
    """

    library: str
    method: str
    options: str
    solve: Callable[[Ask], Tensor]
    default: bool = False
    grid: str = "time"
    share: int = 1
    masks: bool = False
    spared: int = 0
    most: int | None = None

    @property
    def name(self) -> str:
        """All that tells it from the others."""
        options = ", ".join(part for part in (self.options, f"{self.grid} grid") if part)
        return f"{self.library} {self.method}: {options}"

    def fits(self, task: Task, nfe: int) -> bool:
        """Whether it can be run there with so many network calls."""
        few = self.most is None or len(task.matrix) <= self.most
        return few and nfe >= 2 * self.share and (task.kept is not None or not self.masks)


def ask(task: Task, denoiser: Counted, setting: Setting, nfe: int, seed: int) -> Ask:
    """The run of a setting with so many network calls."""
    grid = GRIDS[setting.grid](task.schedule, (nfe + setting.spared) // setting.share)
    shape = (task.count * task.samples, task.dimension)
    z = IndependentNoise(1000 + seed).start(torch.empty(shape))
    return Ask(task, denoiser, grid, z * float(task.schedule.sigma(float(grid[0]))), seed)
