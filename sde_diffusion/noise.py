"""Where the standard normal draws of a stochastic sampler come from.

A source is a value: it holds seeds and is not changed by being used. For each run it opens a
stream; the k-th draw of a stream is the same whenever the same source meets the same shape.
The intervals of all draws are known when a stream is opened, so that a source may be a Brownian
path (`brownian`).
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

Draw = Callable[[Tensor, float, float], Tensor]
"""(out, t, s) -> out, filled with standard normal numbers for the interval from t to s."""


@dataclass(frozen=True)
class Course:
    """What a run will draw, as far as it is known beforehand.

    Attributes:
        intervals: (t, s) of each draw, in order.
        times: the grid points of the run, noisier to cleaner as a rule.
        clock: lambda at the times above, as far as it is known.
    """

    intervals: tuple[tuple[float, float], ...] = ()
    times: tuple[float, ...] = ()
    clock: Mapping[float, float] = field(default_factory=dict)


class Noise(ABC):
    """A source of standard normal tensors of shape (batch, *event)."""

    @abstractmethod
    def start(self, out: Tensor) -> Tensor:
        """Fill `out` with the draw that a sampling starts from."""

    @abstractmethod
    def stream(self, like: Tensor, course: Course) -> Draw:
        """A fresh stream of the draws of a course, for states like `like`; not `start` again."""

    def apart(self) -> Noise:
        """A source unrelated to this one and determined by it, for draws beside a plan's own.

        Raises:
            TypeError: if this source has none.
        """
        raise TypeError(
            f"{self!r} has no second source for draws beside the plan's own: give it a method "
            "`apart`, or take a seed, or one seed a sample"
        )


class IndependentNoise(Noise):
    """Plain draws on the state's own device.

    Reproducible for the same seed, shape, dtype and kind of device; a different batch size gives
    different noise (use `PerSampleNoise` where that matters).

    Args:
        seed: any non-negative integer below 2^63; None draws one from the system.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = secrets.randbits(63) if seed is None else check_seed(seed)

    def start(self, out: Tensor) -> Tensor:
        return out.normal_(generator=_generator(self.seed, 0, out.device))

    def stream(self, like: Tensor, course: Course) -> Draw:
        generator = _generator(self.seed, 1, like.device)
        return lambda out, t, s: out.normal_(generator=generator)

    def apart(self) -> IndependentNoise:
        return IndependentNoise(_other(self.seed))

    def __repr__(self) -> str:
        return f"IndependentNoise(seed={self.seed})"


class PerSampleNoise(Noise):
    """One seed a sample: a sample's noise does not depend on its batch or place in it.

    Drawn on the CPU sample by sample and copied, so that every device sees the same numbers.

    Args:
        seeds: one non-negative integer below 2^63 for each sample of the batch.

    Raises:
        TypeError: if the seeds are one number.
        ValueError: if there are no seeds, or (when used) not one for each sample.
    """

    def __init__(self, seeds: Sequence[int] | Tensor) -> None:
        if not isinstance(seeds, Iterable) or (isinstance(seeds, Tensor) and seeds.ndim == 0):
            raise TypeError(f"seeds = {seeds!r}: give one seed for each sample, as [0, 1, 2]")
        values = seeds.tolist() if isinstance(seeds, Tensor) else list(seeds)
        if not values:
            raise ValueError("seeds is empty; give one seed for each sample")
        self.seeds = tuple(check_seed(seed) for seed in values)

    def start(self, out: Tensor) -> Tensor:
        self.check_batch(out)  # by all bits of a seed: torch's CPU generator would take 32 of them
        samples = [
            np.random.default_rng([seed, 0]).standard_normal(out.shape[1:]) for seed in self.seeds
        ]
        return out.copy_(torch.from_numpy(np.stack(samples)))

    def stream(self, like: Tensor, course: Course) -> Draw:
        self.check_batch(like)
        generators = [_generator(seed, 1, torch.device("cpu")) for seed in self.seeds]
        buffer = torch.empty(like.shape, dtype=like.dtype)

        def draw(out: Tensor, t: float, s: float) -> Tensor:
            for sample, generator in zip(buffer, generators, strict=True):
                sample.normal_(generator=generator)
            return out.copy_(buffer)

        return draw

    def apart(self) -> PerSampleNoise:
        return PerSampleNoise([_other(seed) for seed in self.seeds])

    def check_batch(self, like: Tensor) -> None:
        """Raise ValueError unless there is one seed for each sample of a state."""
        if len(self.seeds) != len(like):
            raise ValueError(
                f"{len(self.seeds)} seeds for a batch of {len(like)}: give one for each sample"
            )

    def __repr__(self) -> str:
        return f"PerSampleNoise(<{len(self.seeds)} seeds>)"


def noise_from(seed: int | Sequence[int] | Tensor | Noise | None) -> Noise:
    """A source from what users write: one seed, one seed a sample, None, or a source."""
    if isinstance(seed, Noise):
        return seed
    if seed is None or isinstance(seed, int | np.integer):
        return IndependentNoise(seed)
    if isinstance(seed, Tensor | np.ndarray):
        seed = seed.tolist()
        return PerSampleNoise(seed) if isinstance(seed, list) else IndependentNoise(seed)
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        return PerSampleNoise(seed)
    raise TypeError(
        f"seed = {seed!r}: give an integer, one integer for each sample, None or a Noise"
    )


def plain_draws(noise: Noise, like: Tensor) -> Draw:
    """A stream for a sampler whose draws belong to no intervals of one common grid.

    Raises:
        TypeError: if the source makes its draws from their intervals.
    """
    if not isinstance(noise, IndependentNoise | PerSampleNoise):
        raise TypeError(
            f"seed = {noise!r}: this sampler chooses its own times, or draws more than once at "
            "one, and takes plain draws only; give a seed, or one seed a sample"
        )
    return noise.stream(like, Course())


def seeds_of(seed: int | Sequence[int] | Tensor | None, n: int) -> list[int]:
    """One seed a sample: of one for all, the first n of an endless list; or one each as given.

    Raises:
        TypeError, ValueError: a seed that is none; another number of them than samples.
    """
    if seed is None or isinstance(seed, int | np.integer):
        root = secrets.randbits(63) if seed is None else check_seed(seed)
        state = np.random.SeedSequence(root).generate_state(n, np.uint64)
        return [int(s) >> 1 for s in state]
    if isinstance(seed, str) or not isinstance(seed, Tensor | Sequence | np.ndarray):
        raise TypeError(f"seed {seed!r} must be an integer, one for each sample, or None")
    seeds = [check_seed(s) for s in (seed.tolist() if isinstance(seed, Tensor) else seed)]
    if len(seeds) != n:
        raise ValueError(f"{len(seeds)} seeds for {n} samples: give one, or one for each sample")
    return seeds


def check_seed(seed: int) -> int:
    """The seed as an int; TypeError or ValueError unless it is an integer in [0, 2^63)."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed {seed!r} must be an integer")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed {seed} must lie in [0, 2^63)")
    return int(seed)


def _other(seed: int) -> int:
    """Another seed, unrelated to this one and determined by it."""
    return int(np.random.SeedSequence([seed, 2]).generate_state(1, np.uint64)[0]) >> 1


def _generator(seed: int, stream: int, device: torch.device) -> torch.Generator:
    """A generator for (seed, stream); streams of one seed are unrelated."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) >> 1)
