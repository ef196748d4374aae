"""The devices and processes of a run, by `accelerate`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from ..extras import optional

PRECISIONS = ("no", "bf16", "fp16")
_RUN = threading.RLock()  # accelerate's state and torch's random numbers are the process's own


def is_first() -> bool:
    """Whether this process is the one that speaks for all, as launchers number them."""
    return os.environ.get("RANK", "0") == "0"


def check_device(device: torch.device | str | None) -> None:
    """ValueError unless torch can compute on it, and this process may choose it."""
    if device is None:
        return
    try:
        index = torch.device(device).index
        torch.zeros((), device=device).item()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device = {str(device)!r}: {reason}; as 'cpu' or 'cuda'") from error
    if index and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"device = {str(device)!r} is one for all processes: leave it out, and each takes its "
            "own"
        )


@contextmanager
def accelerated(mixed_precision: str, device: torch.device | str | None) -> Iterator[Any]:
    """An `Accelerator` of this run's own.

    accelerate keeps what it was first made with for all of a process; here that is set aside, and
    put back afterwards, so that a run in bfloat16 may follow one in float32. A run in another
    thread waits until then: it would share that state, and the random numbers of dropout.
    """
    wanted = None if device is None else torch.device(device)
    gpu = wanted is not None and wanted.type == "cuda"  # accelerate takes the current one
    with _RUN, torch.cuda.device(wanted) if gpu else nullcontext():
        yield from _alone(mixed_precision, wanted)


def _alone(mixed_precision: str, device: torch.device | None) -> Iterator[Any]:
    accelerate = optional("accelerate", "training runs")
    state, tools = optional("accelerate.state", "training runs"), accelerate.utils
    shared = (state.PartialState, state.AcceleratorState, state.GradientState)
    before = [kind._shared_state for kind in shared]
    for kind in shared:
        kind._shared_state = {}
    try:
        accelerator = accelerate.Accelerator(
            mixed_precision=mixed_precision,
            cpu=device is not None and device.type == "cpu",
            kwargs_handlers=[
                tools.DistributedDataParallelKwargs(
                    # A network asked without conditions leaves the weights that read them unused.
                    find_unused_parameters=True,
                    # What an objective remembers, it adds up over the processes itself.
                    broadcast_buffers=False,
                )
            ],
        )
        found = accelerator.device
        if device is not None and found.type != device.type:
            raise ValueError(
                f"device = {str(device)!r}, but accelerate is set to {found}: leave device out, or "
                "mend accelerate's settings (ACCELERATE_USE_CPU, ACCELERATE_TORCH_DEVICE)"
            )
        if mixed_precision == "fp16" and found.type == "cpu":
            raise ValueError("mixed_precision = 'fp16' needs a GPU: on a CPU write 'bf16' or 'no'")
        yield accelerator
    finally:
        for kind, kept in zip(shared, before, strict=True):
            kind._shared_state = kept
