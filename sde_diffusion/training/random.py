"""Random numbers by count, not by history: step n of a run draws the same whenever it is run."""

from __future__ import annotations

import hashlib

import torch


def generator_at(seed: int, *counts: int) -> torch.Generator:
    """A CPU generator for one place in a run, as (step, process): independent of all others."""
    text = ",".join(str(int(count)) for count in (seed, *counts))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
    return torch.Generator().manual_seed(key)
