"""Checkpoints: one file each, put in place whole or not at all, the latest of them kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..weights import TRAINING, check_same, checkpoints, read_file, write_file

NAME = "step-{:09d}.safetensors"


class Checkpoints:
    """The checkpoints of one run, in a folder.

    Args:
        folder: made if it is not there.
        keep: how many of the latest stay.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int) -> None:
        self.folder, self.keep = Path(folder), keep
        self.folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Remove what a process killed while writing has left half written."""
        for path in self.folder.glob(".step-*.safetensors.*"):
            path.unlink(missing_ok=True)

    def load(
        self, configuration: Mapping[str, Any], model: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, header) of the latest checkpoint, which must be of this run; ({}, {}) if none.

        Args:
            configuration: what settles the steps of the run.
            model: the description of its model, {} if there is none.

        Raises:
            ValueError: it is damaged, of another kind, or of another run.
        """
        found = checkpoints(self.folder)
        if not found:
            return {}, {}
        tensors, header = read_file(found[-1], TRAINING)
        saved = header["configuration"] | {"model": header["model"].get("network")}
        check_same(saved, {**configuration, "model": model.get("network")}, found[-1])
        return tensors, header

    def save(self, step: int, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> Path:
        """Write one, then remove those that are no longer kept.

        Raises:
            OSError: it cannot be written; the earlier ones are as they were.
        """
        path, earlier = self.folder / NAME.format(step), checkpoints(self.folder)
        try:
            write_file(path, TRAINING, tensors, {"step": step, **header})
        except OSError as error:
            last = f"{earlier[-1]} is as it was" if earlier else "there is no earlier one"
            raise OSError(
                error.errno,
                f"the checkpoint of step {step} cannot be written ({error.strerror or error}); "
                f"{last}. Make room and give the same call again: it goes on from there",
            ) from error
        for old in checkpoints(self.folder)[: -self.keep]:
            old.unlink(missing_ok=True)
        return path
