r"""A denoiser asked at many noise levels of the same data, in calls of bounded size.

What bounds and measured moments are made of: averages over noise of some number for each sample
and each time, x_t = alpha_t x_0 + sigma_t eps. The noise of a sample is settled by its own seed,
the draw and the place of the time in its list: it depends neither on the size of the calls nor on
the other samples, so that a part of the data has the numbers that it has in the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .counts import check_count
from .denoise import Denoiser, FunctionDenoiser, NetworkDenoiser, check_denoiser
from .progress import Progress
from .run import check_device, check_state
from .scalar import Scalar
from .states import along


class Noised(NamedTuple):
    """Rows of one call: sample i at time k, in any order and mixture.

    Attributes:
        denoiser: with the conditions of these rows.
        k, i: number of the time and of the sample of each row, int64, on the CPU, (rows,).
        t: their times: a float where they are all the same, else float64, (rows,).
        x_0, eps, x: data, noise and state, (rows, *event).
    """

    denoiser: Any
    k: Tensor
    i: Tensor
    t: Scalar
    x_0: Tensor
    eps: Tensor
    x: Tensor


@torch.no_grad()
def averages(
    denoiser: Denoiser,
    x_0: Tensor,
    times: Tensor,
    measure: Callable[[Noised], Tensor],
    *,
    draws: int,
    seeds: Sequence[int],
    batch: int,
    context: Tensor | None = None,
    progress: bool = False,
) -> Iterator[tuple[range, Tensor]]:
    """The average of a measure over draws of the noise, for each time and sample.

    Args:
        denoiser: E[x_0 | x_t].
        x_0: data, shape (n, *event).
        times: float64, shape (m,), or (m, n) for times of each sample's own.
        measure: rows -> numbers of each, shape (rows, q).
        draws: noises for each sample and time.
        seeds: of the noise, one a sample.
        batch: the most rows in one call.
        context: conditions of the samples, (n, ...), for networks that take them.
        progress: whether to tell how far it is.

    Yields:
        some times, as a range of their numbers, and their averages, float64 on the CPU, shape
        (times, n, q).
    """
    n, device = len(x_0), x_0.device
    together = max(1, batch // n)  # whole times in one call, or parts of one
    if isinstance(denoiser, FunctionDenoiser) and not denoiser.per_sample:
        together = 1  # it would be asked row by row
    noise = _Draws(seeds, draws, x_0)
    with Progress(len(times) * draws * n, progress) as bar:
        for first in range(0, len(times), together):
            block = range(first, min(first + together, len(times)))
            k = torch.arange(block.start, block.stop).repeat_interleave(n)
            i = torch.arange(n).repeat(len(block))
            t = (times if times.ndim == 2 else times[:, None].expand(-1, n))[block].reshape(-1)
            parts = []
            for rows in torch.arange(len(k)).split(batch):
                bound = denoiser
                if context is not None and isinstance(denoiser, NetworkDenoiser):
                    bound = denoiser.given(context[i[rows].to(context.device)])
                clean, u = x_0[i[rows].to(device)], t[rows]
                same = bool((u == u[0]).all())
                level = float(u[0]) if same else u
                alpha_t, sigma_t = (along(c, clean) for c in denoiser.schedule(level))
                level = level if same else u.to(device)
                total: Tensor | float = 0.0
                for z in noise(i[rows]):
                    x = alpha_t * clean + sigma_t * z
                    found = measure(Noised(bound, k[rows], i[rows], level, clean, z, x))
                    total = total + found.double()
                    bar.advance(len(rows), f"time {block.stop} of {len(times)}")
                assert isinstance(total, Tensor)  # there is at least one draw
                parts.append(total.cpu())
            yield block, torch.cat(parts).reshape(len(block), n, -1) / draws


class _Draws:
    """Standard normal numbers for samples that are met again and again, one stream a sample.

    Drawn on the CPU in float64, so that every device and dtype sees the same.

    Args:
        seeds: one a sample.
        draws: taken at each meeting.
        like: the samples.
    """

    def __init__(self, seeds: Sequence[int], draws: int, like: Tensor) -> None:
        self.streams = [np.random.default_rng([seed, _NOISE]) for seed in seeds]
        self.draws, self.like = draws, like

    def __call__(self, who: Tensor) -> Iterator[Tensor]:
        """The draws of the next meeting with some samples, each of shape (rows, *event)."""
        event = tuple(self.like.shape[1:])
        found = np.empty((len(who), self.draws, *event))
        for row, i in zip(found, who.tolist(), strict=True):
            self.streams[i].standard_normal(out=row)
        for draw in torch.from_numpy(found).to(self.like.dtype).unbind(1):
            yield draw.to(self.like.device)


def places(seeds: Sequence[int]) -> np.ndarray:
    """A place in [0, 1) for each sample, independent of its noise."""
    return np.array([np.random.default_rng([seed, _PLACE]).random() for seed in seeds])


_NOISE, _PLACE = 2, 3  # streams of a sample's seed; `noise` has 0 and 1


def checked_data(
    denoiser: Denoiser,
    x_0: Tensor,
    context: Tensor | None,
    draws: int,
    batch: int,
) -> Tensor:
    """The data, float32 or wider, if everything fits.

    Raises:
        TypeError, ValueError: no denoiser; data that are no finite floating tensor, or lie on
            another device than the network; conditions that do not fit or are bound already; a
            count below 1.
    """
    check_denoiser(denoiser)
    check_state(x_0)
    check_device(denoiser, x_0)
    if not bool(torch.isfinite(x_0).all()):
        raise ValueError("the data have entries that are not finite; remove or replace them")
    if getattr(denoiser, "conditioned", False):
        raise ValueError(
            "the denoiser has conditions bound, and its samples are asked here in other batches: "
            "give the denoiser without them, and context=..."
        )
    if context is not None:
        if not isinstance(denoiser, NetworkDenoiser):
            raise TypeError(
                f"context for {type(denoiser).__name__}, which takes none: leave it out, or give "
                "a NetworkDenoiser"
            )
        if len(context) != len(x_0):
            raise ValueError(f"{len(context)} contexts for {len(x_0)} samples: give one for each")
    check_count("draws", draws)
    check_count("batch", batch)
    return x_0.detach().to(torch.promote_types(x_0.dtype, torch.float32))
