r"""What is minimised: a module, whose forward answers a batch with one loss a sample.

An objective holds all that is trained (the network; where asked for, a learned schedule or a
learned uncertainty) as submodules, and all that it remembers between steps as buffers, so that
its `state_dict` is its whole state. It draws nothing but from the generator it is given: a step is
a function of the weights, the batch and the generator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from .batch import Batch, Losses


class Objective(nn.Module, ABC):
    """A loss with everything that it trains."""

    @abstractmethod
    def forward(self, batch: Batch, generator: torch.Generator) -> Losses:
        """The losses of a batch.

        Args:
            batch: clean samples and their conditions, on the device of the weights.
            generator: of everything random in this step; on the CPU, so that every device trains
                on the same numbers.
        """

    def after_step(self) -> None:
        """Called once after each update of the weights: where what is remembered is updated."""
