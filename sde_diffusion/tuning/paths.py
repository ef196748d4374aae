"""The teacher's paths on disk, found again start by start.

A file holds the paths of one finished chunk and says from which starts they are. So starts that
were taught before are found again in any order, number and company; of a teacher whose steps are
common to a chunk ("dop853") a path is then the one of that chunk, which differs by its tolerance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..store import digest
from .kept import check_same, fingerprint, keep, kept


class Paths:
    """Paths of one network and teacher, with the same settings.

    Args:
        folder: in which "teacher" is, or will be.
        settled: all that settles a path but the start, plain data.
        answers: of the network, as `probe` asks for them.
        label: of the network.
    """

    def __init__(self, folder: str | Path, settled: Any, answers: Tensor, label: str) -> None:
        self.folder = Path(folder) / "teacher" / digest(settled)
        self.answers, self.label = answers, label

    def find(self, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """(indices of the starts whose paths are here, (m,); the paths, (length, m, *event)).

        Raises:
            ValueError: paths of another network.
        """
        wanted: dict[str, list[int]] = {}
        for i, one in enumerate(_fingerprints(starts)):
            wanted.setdefault(one, []).append(i)
        indices: list[int] = []
        found = [starts.new_empty(length - 1, 0, *starts.shape[1:])]
        for file in sorted(self.folder.glob("*.npz")):
            about = kept(file, "starts", "answers") or {"starts": []}
            here = [(k, one) for k, one in enumerate(about["starts"]) if one in wanted]
            if not here:
                continue
            check_same(self.answers, about["answers"], file, self.label)
            states = (kept(file, "states") or {}).get("states")
            if states is None or states.shape[0] != length - 1:
                continue
            for k, one in here:
                own = wanted.pop(one, [])
                found.append(states[:, [k] * len(own)].to(starts))
                indices += own
        chosen = torch.tensor(indices, dtype=torch.int64)
        return chosen, torch.cat([starts[None, chosen], torch.cat(found, 1)])

    def put(self, starts: Tensor, states: Tensor) -> None:
        """Keep the paths of a finished chunk, (length, n, *event)."""
        values = {"starts": _fingerprints(starts), "states": states[1:], "answers": self.answers}
        keep(self.folder / f"{fingerprint(starts)}.npz", values)


def _fingerprints(starts: Tensor) -> list[str]:
    return [fingerprint(x) for x in starts.detach().cpu()]
