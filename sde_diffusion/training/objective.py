r"""What is minimised: a module, whose forward answers a batch with one loss a sample.

An objective holds all that is trained (the network; where asked for, a learned schedule or a
learned uncertainty) as submodules, and all that it remembers between steps as buffers, so that
its `state_dict` is its whole state. It draws nothing but from the generator it is given: a step is
a function of the weights, the batch and the generator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from .batch import Batch, Losses


class Objective(nn.Module, ABC):
    """A loss with everything that it trains.

    Attributes:
        network: the submodule that is wanted in the end, whose averaged weights are kept.
    """

    network: nn.Module

    @abstractmethod
    def forward(self, batch: Batch, generator: torch.Generator) -> Losses:
        """The losses of a batch.

        Args:
            batch: clean samples and their conditions, on the device of the weights.
            generator: of everything random in this step; on the CPU, so that every device trains
                on the same numbers.
        """

    def after_step(self) -> None:
        """Called once after each update of the weights: where what is remembered is updated.

        What was seen of the batch by one process is its share: an objective that remembers sums of
        it adds them up over the processes here, so that all remember the same.
        """

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained, as torch's optimisers take it: groups with options of their own."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def describe(self) -> dict[str, Any]:
        """What it minimises, as JSON can hold: a run is resumed with an equal description only."""
        return {"objective": type(self).__name__}
