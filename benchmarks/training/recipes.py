"""The recipes: configurations that differ from one of them in one thing each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sde_diffusion.training import Configuration

BASE = "velocity, VPCosine"
TABLES: dict[str, dict[str, Any]] = {
    "data": {"kind": "digits", "labels": False},
    "network": {"kind": "unet", "width": 16, "multipliers": [1, 2], "blocks": 1},
    "schedule": {"kind": "vp_cosine"},
    "model": {"prediction": "velocity"},
    "objective": {"weighting": "own", "times": "uniform"},
    "training": {"batch_size": 32, "learning_rate": 2e-3, "ema": [0.1], "seed": 0},
}


@dataclass(frozen=True)
class Recipe:
    """How the network is trained.

    Attributes:
        name: what it is called in tables.
        group: what it differs from the first recipe in.
        change: tables, or keys in them, that are put in the place of those of the first recipe.
    """

    name: str
    group: str
    change: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def configuration(self, steps: int) -> Configuration:
        """As a run of so many steps."""
        tables = {
            name: dict(self.change[name])
            if name in ("schedule", "model", "objective") and name in self.change
            else {**table, **self.change.get(name, {})}
            for name, table in TABLES.items()
        }
        tables["training"]["steps"] = steps
        return Configuration.of(tables, self.name)

    @property
    def folder(self) -> str:
        """Its name, as one of a folder."""
        kept = "".join(c if c.isalnum() else "-" for c in self.name)
        return "-".join(part for part in kept.split("-") if part)


def _process(name: str, schedule: str, prediction: str, times: str = "uniform") -> Recipe:
    change = {
        "schedule": {"kind": schedule},
        "model": {"prediction": prediction},
        "objective": {"weighting": "own", "times": times},
    }
    return Recipe(name, PROCESS, change)


def _objective(name: str, group: str, **table: Any) -> Recipe:
    return Recipe(name, group, {"objective": table})


PROCESS, WEIGHTING, TIMES = "prediction and schedule", "weighting", "law of times"
GROUPS = (PROCESS, WEIGHTING, TIMES)
SEED = "seed of the training"
RECIPES = (
    Recipe(BASE, PROCESS),
    _process("noise, VPLinear", "vp_linear", "noise"),
    _process("flow, FlowMatching", "flow_matching", "flow"),
    _process("edm, EDM", "edm", "edm", "log_normal"),
    _objective("min_snr", WEIGHTING, weighting="min_snr", times="uniform"),
    _objective("sigmoid", WEIGHTING, weighting="sigmoid", times="uniform"),
    _objective("likelihood", WEIGHTING, weighting="likelihood", times="uniform"),
    _objective(
        "learned uncertainty", WEIGHTING, weighting="own", times="uniform", uncertainty=True
    ),
    _objective("logit_normal", TIMES, weighting="own", times="logit_normal"),
    _objective("log_normal", TIMES, weighting="own", times="log_normal"),
    _objective("importance", TIMES, weighting="own", times="uniform", importance="gradient"),
    Recipe(
        "likelihood, learned schedule",
        TIMES,
        {
            "schedule": {"kind": "learned"},
            "objective": {"weighting": "likelihood", "times": "uniform"},
        },
    ),
    Recipe(f"{BASE}, seed 1", SEED, {"training": {"seed": 1}, "network": {"seed": 1}}),
    Recipe(f"{BASE}, seed 2", SEED, {"training": {"seed": 2}, "network": {"seed": 2}}),
)
