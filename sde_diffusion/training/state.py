"""The whole state of a training run, and its tensors by name."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..learned_schedule import FrozenSchedule, LearnedSchedule
from ..weights import under
from .ema import Average, Averages
from .objective import Objective
from .record import Record

Module = TypeVar("Module", bound=nn.Module)


class State:
    """What a run changes: the objective, the optimiser's moments, the averages and the losses.

    Args:
        objective: copied; the copy is trained.
        device: where.
        profiles: of the averages.
        adam: options of AdamW.
    """

    def __init__(
        self,
        objective: Objective,
        device: torch.device,
        profiles: Sequence[Average],
        adam: dict[str, Any],
    ) -> None:
        self.objective = copy.deepcopy(objective).to(device).train()
        self.trained = {n: p for n, p in self.objective.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.objective.parameter_groups(), **adam, fused=True)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.averages = Averages(self.trained.values(), profiles)
        self.record, self.step = Record(), 0

    @property
    def parts(self) -> dict[str, str]:
        """Where the objective has the network, and the schedule if that is learned."""
        schedule = getattr(getattr(self.objective, "denoiser", None), "schedule", None)
        wanted = {"network": self.objective.network, "schedule": schedule}
        modules = dict(self.objective.named_modules())
        return {
            what: next(name for name, module in modules.items() if module is part)
            for what, part in wanted.items()
            if isinstance(part, nn.Module)
        }

    def averaged(self, which: int) -> nn.Module:
        """A copy of the network, in evaluation mode, with weights of one of the averages."""
        return self._averaged(self.objective.network, which)

    def schedule(self, which: int) -> FrozenSchedule | None:
        """What the schedule has become, with weights of one of the averages, if it is learned."""
        schedule = getattr(getattr(self.objective, "denoiser", None), "schedule", None)
        if not isinstance(schedule, LearnedSchedule):
            return None
        return self._averaged(schedule, which).frozen()

    @torch.no_grad()
    def _averaged(self, module: Module, which: int) -> Module:
        copied = copy.deepcopy(module).eval().requires_grad_(False)
        for value, source in zip(copied.parameters(), module.parameters(), strict=True):
            value.copy_(self.averages.of(source, which))
        return copied

    def check_finite(self) -> None:
        """Raise FloatingPointError unless all that was trained is finite; waits for the device."""
        values = [*self.trained.values(), *(v for means in self.averages.means for v in means)]
        if values and not bool(torch.stack([v.isfinite().all() for v in values]).all()):
            broken = (name for name, p in self.trained.items() if not p.isfinite().all())
            name = next(broken, "an average")
            raise FloatingPointError(f"weights ({name}) are not finite after step {self.step}")

    def tensors(self) -> dict[str, Tensor]:
        """The state, named; tied weights under each of their names."""
        names = dict(self.objective.named_parameters(remove_duplicate=False))
        state = {f"objective.{name}": v for name, v in self.objective.state_dict().items()}
        for which in range(len(self.averages.profiles)):
            state |= {
                f"average.{which}.{name}": self.averages.of(parameter, which)
                for name, parameter in names.items()
                if parameter.requires_grad
            }
        for name, parameter in self.trained.items():
            for moment, value in self.optimizer.state[parameter].items():
                state[f"adam.{moment}.{name}"] = value
        return state | self.record.tensors()

    def restore(self, state: dict[str, Tensor], step: int) -> None:
        """Take what `tensors` gave."""
        self.objective.load_state_dict(under("objective.", state))
        with torch.no_grad():
            for which, means in enumerate(self.averages.means):
                kept = under(f"average.{which}.", state)
                for name, mean in zip(self.trained, means, strict=True):
                    mean.copy_(kept[name])
        for name, value in under("adam.", state).items():
            moment, name = name.split(".", 1)
            parameter = self.trained[name]
            self.optimizer.state[parameter][moment] = value.to(parameter.device)
        self.record.restore(state)
        self.step = step
