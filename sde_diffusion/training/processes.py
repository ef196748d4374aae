"""The devices and processes of a run, by `accelerate`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..extras import optional

PRECISIONS = ("no", "bf16", "fp16")


def is_first() -> bool:
    """Whether this process is the one that speaks for all, as launchers number them."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def accelerated(mixed_precision: str, device: torch.device | str | None) -> Iterator[Any]:
    """An `Accelerator` of this run's own.

    accelerate keeps what it was first made with for all of a process; here that is set aside, and
    put back afterwards, so that a run in bfloat16 may follow one in float32.
    """
    accelerate = optional("accelerate", "training runs")
    state, tools = optional("accelerate.state", "training runs"), accelerate.utils
    shared = (state.PartialState, state.AcceleratorState, state.GradientState)
    before = [kind._shared_state for kind in shared]
    for kind in shared:
        kind._shared_state = {}
    try:
        accelerator = accelerate.Accelerator(
            mixed_precision=mixed_precision,
            cpu=device is not None and torch.device(device).type == "cpu",
            kwargs_handlers=[
                tools.DistributedDataParallelKwargs(
                    # A network asked without conditions leaves the weights that read them unused.
                    find_unused_parameters=True,
                    # What an objective remembers, it adds up over the processes itself.
                    broadcast_buffers=False,
                )
            ],
        )
        if mixed_precision == "fp16" and accelerator.device.type == "cpu":
            raise ValueError("mixed_precision = 'fp16' needs a GPU: on a CPU write 'bf16' or 'no'")
        yield accelerator
    finally:
        for kind, kept in zip(shared, before, strict=True):
            kind._shared_state = kept
