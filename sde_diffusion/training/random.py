"""Random numbers by count, not by history: step n of a run draws the same whenever it is run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_at(seed: int, *counts: int) -> int:
    """A seed for one place in a run, as (purpose, step, part), in [0, 2^32)."""
    text = ",".join(str(int(count)) for count in (seed, *counts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def generator_at(seed: int, *counts: int) -> torch.Generator:
    """A CPU generator for one place in a run, as (step, process): independent of all others."""
    return torch.Generator().manual_seed(seed_at(seed, *counts))


def seed_global(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of a device, from which dropout draws."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def global_state_kept(device: torch.device) -> Iterator[None]:
    """What `seed_global` changes is afterwards as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
