"""The best of the screening on starts that nothing was chosen on.

The least of a thousand errors lies below its own mean: whoever chooses on 512 points and measures
on the same ones favours what was chosen. So the settings that the screening names, of each library
the best by RMS and by median and, where it tells them, those that came next, and the default are
measured once more on starts of another seed. Of these few the best counts, which still favours
them, a little, against the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .models import Case
from .sweep import METRICS, Kept, Setting, measure

SEED, POINTS = 1, 2048


def again(
    case: Case, named: Mapping[str, Any], settings: Mapping[str, Setting], kept: Kept
) -> dict[str, dict[str, Any]]:
    """NFE -> metric -> the best on this case of the settings named by a screening.

    Args:
        case: fresh starts and their ends.
        named: NFE -> metric -> "setting" and, perhaps, the names that come "next".
        settings: the settings by name.
        kept: figures on disk.
    """
    found: dict[str, dict[str, Any]] = {}
    for nfe, figures in named.items():
        names = {n for of in figures.values() for n in (of["setting"], *of.get("next", ()))}
        measured = {
            n: kept.figures(case, settings[n], int(nfe), len(case.start)) for n in sorted(names)
        }
        found[nfe] = {}
        for i, metric in enumerate(METRICS):
            best = min(measured, key=lambda n: measured[n][i])
            pair = dict(zip(METRICS, measured[best], strict=True))
            found[nfe][metric] = {"setting": best, **pair, "of": len(names)}
    kept.save()
    return found


def plain(case: Case, setting: Setting, nfes: Iterable[int]) -> dict[str, dict[str, float]]:
    """NFE -> metric -> the error of one setting."""
    return {str(n): dict(zip(METRICS, measure(case, setting, n), strict=True)) for n in nfes}
