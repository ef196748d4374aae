r"""What all guidance has in common: one denoiser made of several, asked at the same state.

    d(x, t) = rule_t(x, d_1(x, t), .., d_k(x, t)).

A guidance says which of its branches it needs at a time, and how their answers are combined there.
What depends on the time alone is worked out once, when a run binds its times.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..conditions import check_samples, one_count
from ..denoise import Call, Denoiser, check_denoiser
from ..device import same_device
from ..scalar import Scalar
from ..schedule import Schedule
from .branches import Answers, ask_all, bind_all, groups, whole


class Rule(NamedTuple):
    """Guidance at one time.

    Attributes:
        needs: which branches are asked, by number; the others cost nothing.
        combine: (x, d of each of them) -> d, all of x's shape. It does not write into them.
        both: x -> (d of the first branch, d), where nothing is needed because the first branch is
            asked inside, for its gradient too.
    """

    needs: tuple[int, ...]
    combine: Callable[..., Tensor]
    both: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


def itself(x: Tensor, d: Tensor) -> Tensor:
    """d: what combines one branch."""
    return d


def alone(branch: int) -> Rule:
    """One branch as it is; it costs what it costs without guidance."""
    return Rule((branch,), itself)


class Cost(NamedTuple):
    """What a denoiser costs over some times.

    Attributes:
        calls: calls of a network, one after another.
        evaluations: states at which a network is evaluated, for each sample.
    """

    calls: int
    evaluations: int


class Guided(Denoiser):
    """A denoiser made of others, its branches.

    Args:
        branches: denoisers of one schedule; the first is what stands alone where there is no
            guidance. Those that are one network under several conditions (made by `given`) are
            asked in one batched call.

    Raises:
        TypeError: if a branch is no Denoiser.
        ValueError: no branches, or branches of different schedules or on different devices.
    """

    branches: tuple[Denoiser, ...]
    shown: tuple[str, ...] = ()  # the parameters that `repr` tells

    def __init__(self, *branches: Denoiser) -> None:
        if not branches:
            raise ValueError("guidance needs at least one denoiser")
        check_denoisers(*branches)
        self.branches = branches
        self.schedule = branches[0].schedule
        for branch in branches[1:]:
            check_same_schedule(self.schedule, branch.schedule)
        one_count(branch.samples for branch in branches)  # refuses different numbers
        devices = [device for b in branches if (device := getattr(b, "device", None))]
        for device in devices[1:]:
            if not same_device(devices[0], device):
                raise ValueError(
                    f"the denoisers are on {devices[0]} and {device}: move them to one"
                )

    @abstractmethod
    def rule(self, t: Scalar) -> Rule:
        """What is done at time t, a float, a 0-d tensor, or one a sample, (batch,)."""

    def rules(self, times: Sequence[float]) -> list[Rule]:
        """What is done at each network call of one run; what a run remembers is made here."""
        return [self.rule(t) for t in times]

    @property
    def name(self) -> str:
        """What it is called."""
        return type(self).__name__

    def __repr__(self) -> str:
        parts = [_told(branch) for branch in self.branches]
        parts += [f"{name}={_told(getattr(self, name))}" for name in self.shown]
        return f"{self.name}({', '.join(parts)})"

    @property
    def device(self) -> torch.device | None:
        """Where the networks are; None: unknown."""
        return next((d for b in self.branches if (d := getattr(b, "device", None))), None)

    @property
    def samples(self) -> int | None:
        return one_count(branch.samples for branch in self.branches)

    @property
    def conditioned(self) -> bool:
        return super().conditioned or any(branch.conditioned for branch in self.branches)

    def unguided(self) -> Denoiser:
        """What stands alone where there is no guidance: the first branch.

        Through what is laid around a guidance and has no other branch, as thresholding.

        Raises:
            ValueError: if no branch does.
        """
        first = self.branches[0]
        around = len(self.branches) == 1 and isinstance(first, Guided)
        return first.unguided() if around else first  # type: ignore[attr-defined]

    def __call__(self, x: Tensor, t: Scalar) -> Tensor:
        if not x.is_floating_point():
            raise TypeError(f"x has dtype {x.dtype}: states are float32 or float64")
        check_samples(self.samples, x)
        (rule,) = self._checked([self.rule(t)])
        return _combined(rule, x, ask_all([self.branches[i] for i in rule.needs], x, t))

    def bind(self, times: Sequence[float], x: Tensor) -> list[Call]:
        check_samples(self.samples, x)
        rules = self._checked(self.rules(times))
        calls: dict[int, Call] = {}
        for needs in dict.fromkeys(rule.needs for rule in rules):
            where = [i for i, rule in enumerate(rules) if rule.needs == needs]
            asked, at = [self.branches[k] for k in needs], [times[i] for i in where]
            if len(asked) == 1:
                bound = zip(where, asked[0].bind(at, x), strict=True)
                calls |= {i: _of_one(rules[i], call) for i, call in bound}
            else:
                answers = zip(where, bind_all(asked, at, x), strict=True)
                calls |= {i: _of_several(rules[i], of_all) for i, of_all in answers}
        return [calls[i] for i in range(len(times))]

    def _checked(self, rules: list[Rule]) -> list[Rule]:
        """The rules, if they are rules of these branches."""
        for rule in rules:
            if not isinstance(rule, Rule):
                raise TypeError(
                    f"the rule of {type(self).__name__} is {type(rule).__name__}; it must be a "
                    "Rule(needs, combine)"
                )
            if not all(type(i) is int and 0 <= i < len(self.branches) for i in rule.needs):
                raise ValueError(
                    f"the rule of {type(self).__name__} needs branches {rule.needs}: they are "
                    f"numbered 0 to {len(self.branches) - 1}"
                )
        return rules

    def select(self, who: Tensor) -> Guided:
        return self.mapped(lambda branch: branch.select(who))

    def mapped(self, change: Callable[[Denoiser], Denoiser]) -> Guided:
        """The same guidance of changed branches."""
        chosen = copy.copy(self)
        chosen.branches = tuple(map(change, self.branches))
        return chosen

    def cost(self, times: Sequence[float]) -> Cost:
        """What it costs at these times, as those of a plan: `guided.cost(plan.asked_at)`."""
        count = self.samples or 1
        calls = evaluations = 0
        for t, rule in zip(times, self.rules(times), strict=True):
            needs = rule.needs if rule.both is None else (0,)
            asked = [self.branches[i] for i in needs]
            inner = [cost_of(branch, [t]) for branch in asked]
            calls += sum(inner[g.members[0]].calls for g in groups(asked, count))
            evaluations += sum(cost.evaluations for cost in inner)
        return Cost(calls, evaluations)


def cost_of(denoiser: Denoiser, times: Sequence[float]) -> Cost:
    """What a denoiser costs at these times: `Guided.cost` of one that is made of others."""
    if isinstance(denoiser, Guided):
        return denoiser.cost(times)
    count = len(times) * int(denoiser.asks)
    return Cost(count, count)


def _told(value: object) -> str:
    """A number, a function, a guided or another denoiser in few words."""
    if isinstance(value, Denoiser):
        return repr(value) if isinstance(value, Guided) else type(value).__name__
    if isinstance(value, list):
        return f"[{', '.join(map(_told, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return getattr(value, "__name__", type(value).__name__) if callable(value) else repr(value)


def check_denoisers(*branches: Denoiser) -> None:
    """Raise TypeError unless all are Denoisers."""
    for branch in branches:
        check_denoiser(branch, "what is guided")


def check_guided(guided: Guided, purpose: str) -> None:
    """Raise TypeError unless it is a guided denoiser."""
    if not isinstance(guided, Guided):
        raise TypeError(
            f"a {type(guided).__name__} has no guidance to {purpose}: give what classifier_free "
            "or another guidance returns"
        )


def _of_one(rule: Rule, call: Call) -> Call:
    if rule.combine is itself:
        return call
    return Call(lambda x, out: _combined(rule, x, [whole(call, x)]))


def _of_several(rule: Rule, answers: Answers) -> Call:
    return Call(lambda x, out: _combined(rule, x, answers(x)))


def _combined(rule: Rule, x: Tensor, answers: Sequence[Tensor]) -> Tensor:
    d = rule.combine(x, *answers)
    if not isinstance(d, Tensor) or d.shape != x.shape:
        found = f"shape {tuple(d.shape)}" if isinstance(d, Tensor) else type(d).__name__
        raise ValueError(
            f"a Rule combined answers for states of {tuple(x.shape)} to {found}: what its combine "
            "returns must have the state's shape"
        )
    return d


def check_same_schedule(schedule: Schedule, other: Schedule) -> None:
    """Raise ValueError unless two schedules have the same alpha and sigma over the same times."""
    if schedule is other:
        return
    first, last = schedule.t_min, schedule.t_max
    same = math.isclose(first, other.t_min, abs_tol=1e-9) and math.isclose(last, other.t_max)
    for t in (first + (last - first) * part / 4 for part in range(5)) if same else ():
        for scale in ("alpha", "sigma"):
            a, b = (float(getattr(s, scale)(t)) for s in (schedule, other))
            same = same and math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    if not same:
        raise ValueError(
            f"one denoiser is for {schedule!r}, another for {other!r}: what is combined must be "
            "asked at one state of one process, so give denoisers of the same schedule"
        )
