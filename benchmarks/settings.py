"""What is run: all choices in one value, whose digest says whether an old result still holds."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import sde_diffusion

NFES = (5, 10, 20, 50, 100, 200, 500, 1000)
ROOT = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """Choices of the main job.

    Attributes:
        quick: a short training and small sets, to try the benchmark out.
        nfe: numbers of network evaluations, increasing.
        seed: of starting points, samples and everything drawn.
        grid: name of the time grid of the endpoint errors (to t_clean).
        sampling_grid: name of that of the samples (to t_min); even in t, as DDPM's steps are.
        points: starting points for the endpoint errors, per model.
        samples: samples a set for the quality.
        repeats: sets of samples, each of another seed.
        others_up_to: largest NFE at which the quality is measured of solvers that are not in the
            comparison of DDIM and DDPM.
        tolerances: rtol = atol of the adaptive solvers.
        solvers: names, with all their claimed options, or "all"; None is those of the main job.
    """

    quick: bool = False
    nfe: tuple[int, ...] = NFES
    seed: int = 0
    grid: str = "quadratic"
    sampling_grid: str = "uniform"
    points: tuple[tuple[str, int], ...] = (("ring", 128), ("digits", 32), ("network", 32))
    samples: int = 150
    repeats: int = 8
    others_up_to: int = 100
    tolerances: tuple[float, ...] = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    solvers: tuple[str, ...] | None = None


def quick_settings(**changes: Any) -> Settings:
    """Settings of a run under one minute, training included."""
    small: dict[str, Any] = {
        "quick": True,
        "nfe": (5, 10, 20, 50, 100),
        "points": (("ring", 64), ("digits", 16), ("network", 16)),
        "samples": 100,
        "repeats": 4,
        "others_up_to": 20,
        "tolerances": (1e-2, 1e-3, 1e-4),
    }
    return Settings(**{**small, **changes})


def code_digest() -> str:
    """A fingerprint of the code that the numbers come from, and of the torch they ran on."""
    own = [ROOT / name for name in ("cases.py", "entries.py", "jobs.py", "metrics.py")]
    package = sorted(Path(sde_diffusion.__file__).parent.rglob("*.py"))
    total = hashlib.blake2b(torch.__version__.encode(), digest_size=12)
    for path in (*own, *package):
        total.update(path.read_bytes())
    return total.hexdigest()


def describe(settings: Settings) -> dict[str, str]:
    """The settings in words, for the report."""
    names = {name: _write(value) for name, value in asdict(settings).items()}
    names["solvers"] = "those of the main job" if settings.solvers is None else names["solvers"]
    return names


def _write(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{v[0]} {v[1]}" if isinstance(v, tuple) else f"{v}" for v in value)
    return str(value)
