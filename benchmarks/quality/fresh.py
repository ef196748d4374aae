"""The best of the screening on starts that nothing was chosen on.

The least of a thousand errors lies below its own mean: whoever chooses on 512 points and measures
on the same ones favours what was chosen. So of the settings that the screening names, of each
library the best by RMS and by median and those that came next, starts of another seed choose one
for each metric, and starts of a third seed measure it and the default. The least of libraries, and
of ours and the default, is still taken where it is measured.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sde_diffusion.files import write_atomic

from .models import Case
from .ours import Default
from .shares import figures, share_of
from .sweep import METRICS, Kept, Setting

CHOICE, MEASURE = (1, 2048), (2, 4096)  # seed and number of the starts that choose, that measure


class Distances:
    """|x - x*|/|x*| of every start of a case, on disk: what pairs of settings are compared by.

    A setting whose name does not say all of it, as that of the default, is kept by what it is made
    of besides.
    """

    def __init__(self, case: Case, path: Path) -> None:
        self.case, self.path = case, path
        self.kept: dict[str, Any] = {}
        if path.exists():
            with np.load(path, allow_pickle=False) as file:
                self.kept = dict(file)

    def of(self, setting: Setting, nfe: int) -> Tensor:
        """(points,), from disk if they are there."""
        key = f"{setting.peer}|{setting.name}|{nfe}"
        if isinstance(setting, Default):
            key += f"|{setting.made_of(self.case, nfe)}"
        if key not in self.kept:
            y = setting.run(self.case, nfe)
            if y is None:
                raise ValueError(f"{setting.name} cannot be had at {nfe} calls")
            self.kept[key] = self.case.distances(y).numpy()
        return torch.from_numpy(self.kept[key])

    def save(self) -> None:
        """Write all of them."""
        held = io.BytesIO()
        np.savez(held, **self.kept)
        write_atomic(self.path, held.getvalue())


def again(
    case: Case,
    distances: Distances,
    named: Mapping[str, Any],
    settings: Mapping[str, Setting],
    kept: Kept,
) -> dict[str, dict[str, Any]]:
    """NFE -> metric -> the figures of that one of the settings named which is best on a case.

    Args:
        case: the starts that choose, in float32.
        distances: of those that measure.
        named: NFE -> metric -> "setting" and, perhaps, the names that come "next".
        settings: the settings by name.
        kept: figures of the choice on disk.
    """
    found: dict[str, dict[str, Any]] = {}
    for nfe, by_metric in named.items():
        names = {n for of in by_metric.values() for n in (of["setting"], *of.get("next", ()))}
        choice = {
            n: kept.figures(case, settings[n], int(nfe), len(case.start), quick=True)
            for n in sorted(names)
        }
        found[nfe] = {}
        for i, metric in enumerate(METRICS):
            best = min(choice, key=lambda n: choice[n][i])
            measured = figures(distances.of(settings[best], int(nfe)))
            found[nfe][metric] = {"setting": best, **measured, "of": len(names)}
        kept.save()
        distances.save()
    return found


def plain(distances: Distances, setting: Setting, nfes: Iterable[int]) -> dict[str, dict[str, Any]]:
    """NFE -> the figures of one setting."""
    return {str(n): figures(distances.of(setting, n)) for n in nfes}


def shares(
    found: Mapping[str, Any],
    distances: Distances,
    settings: Mapping[tuple[str, str], Setting],
    own: str,
    peers: Iterable[str],
) -> dict[str, dict[str, Any]]:
    """NFE -> metric -> the error of ours over that of the best peer, with its standard error.

    Args:
        found: library -> NFE -> metric -> "setting" and figures.
        distances: of the starts that those figures are of.
        settings: by library and name.
        own: our name.
        peers: the libraries.
    """
    told: dict[str, dict[str, Any]] = {}
    for nfe, by_metric in found[own].items():
        told[nfe] = {}
        for metric, ours in by_metric.items():
            peer = min(peers, key=lambda p: found[p][nfe][metric][metric])
            pair = ((own, ours["setting"]), (peer, found[peer][nfe][metric]["setting"]))
            share, error = share_of[metric](*(distances.of(settings[k], int(nfe)) for k in pair))
            told[nfe][metric] = {"peer": peer, "share": share, "error": error}
    return told
