"""A solver with its options, as something to be compared: named, found, planned for an NFE.

Solvers are found by enumeration of `SOLVERS` and of the variants in `CLAIMS`, so a new one takes
part without a line written here. Two entries whose plans are the same map (DPM-Solver-1 and
DDIM with eta = 0, say) are twins.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor

from ..names import unknown
from ..plan import Plan
from ..plan_names import plan_named
from ..schedule import Schedule
from ..schedules import VPLinear
from ..solvers import CLAIMS, SOLVERS
from ..times import uniform

Times = Sequence[float] | Tensor
_TWIN_STEPS = (6, 12, 24)  # some solvers choose their order by the number of steps


@dataclass(frozen=True)
class Entry:
    """A solver with its options.

    Attributes:
        solver: name, in `SOLVERS` unless `method` is given.
        options: of the solver, all of them, defaults too.
        method: a solver of one's own, (schedule, times, **options) -> Plan.
    """

    solver: str
    options: tuple[tuple[str, Any], ...] = ()
    method: Callable[..., Plan] | None = None

    @property
    def label(self) -> str:
        """With all options: "ddim eta=0.5"."""
        return " ".join([self.solver, *(_write(k, v) for k, v in self.options)])

    @property
    def short(self) -> str:
        """With the options that are not the defaults: "ddim" for "ddim eta=0"."""
        defaults = _defaults(self.function)
        other = ((k, v) for k, v in self.options if k not in defaults or v != defaults[k])
        return " ".join([self.solver, *(_write(k, v) for k, v in other)])

    @property
    def function(self) -> Callable[..., Plan]:
        """(schedule, times, **options) -> Plan."""
        return self.method or plan_named(self.solver, SOLVERS)

    def plan(self, schedule: Schedule, times: Times) -> Plan:
        """Its table."""
        return self.function(schedule, times, **dict(self.options))

    def plan_within(
        self, schedule: Schedule, nfe: int, times: Callable[[int], Times]
    ) -> Plan | None:
        """The plan of most steps that asks the network at most `nfe` times; None if there is none.

        That is nfe // k steps for k evaluations a step, one more where the last step, to
        sigma = 0, is a cheaper one, and fewer where the first steps are dearer.

        Args:
            times: the grid of a number of steps.
        """
        steps = nfe // self.evaluations + 1
        too_many: Plan | None = None
        for n in range(steps, 0, -1):
            try:
                plan = self.plan(schedule, times(n))
            except ValueError:
                if too_many is None:
                    raise
                return None  # fewer steps than the solver can take
            if plan.nfe <= nfe:
                return plan
            too_many = plan
        return None

    @cached_property
    def evaluations(self) -> int:
        """Network evaluations a step, k."""
        plans = [self._small_plan(steps) for steps in (7, 8)]
        return max(plans[1].nfe - plans[0].nfe, 1)

    @cached_property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return self._small_plan(8).stochastic

    def _small_plan(self, steps: int) -> Plan:
        schedule = VPLinear()
        return self.plan(schedule, uniform(schedule, steps, t_end=0.01).tolist())


E = TypeVar("E", bound=Entry)


def variants(names: Iterable[str] | None = None) -> list[Entry]:
    """Every solver of the package with its defaults and with each of its claimed variants.

    Args:
        names: restrict to these.

    Raises:
        ValueError: an unknown name (with the nearest right one).
    """
    chosen = list(SOLVERS) if names is None else list(names)
    for name in chosen:
        plan_named(name, SOLVERS)
    return [
        Entry(name, tuple({**_defaults(SOLVERS[name]), **claim.options}.items()))
        for name in SOLVERS
        if name in chosen
        for claim in CLAIMS[name]
    ]


def written(text: str) -> list[Entry]:
    """Entries from what a user writes: "adams order=3 variable=t", or a name for its variants.

    Raises:
        ValueError: an unknown solver or option (with the nearest right one).
    """
    name, *words = text.split() or [""]
    if not words:
        return variants([name])
    method = plan_named(name, SOLVERS)
    return [Entry(name, tuple({**_defaults(method), **options_of(name, method, words)}.items()))]


def options_of(name: str, method: Callable[..., Any], words: Iterable[str]) -> dict[str, Any]:
    """The options of a function that are written as "key=value"; numbers become numbers.

    Raises:
        ValueError: a word that is no key=value, or an unknown key (with the nearest right one).
    """
    known = _defaults(method)
    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} after {name}: write options as key=value")
        if key not in known:
            raise ValueError(unknown(f"option of {name}", key, known))
        options[key] = _value(value)
    return options


def twins(entries: Sequence[E], plan: Callable[[E, int], list[Plan]]) -> dict[E, E]:
    """Entry -> the earlier entry that is the same map.

    Args:
        plan: (entry, steps) -> plans on which both must agree; ValueError where there is none.
    """
    plans: dict[E, list[Plan]] = {}
    found: dict[E, E] = {}
    for entry in entries:
        try:
            own = [p for steps in _TWIN_STEPS for p in plan(entry, steps)]
        except ValueError:  # singular at an end: its own cells will say so
            continue
        same = (e for e, ps in plans.items() if all(p.equals(q) for p, q in zip(ps, own)))  # noqa: B905
        first = next(same, None)
        if first is None:
            plans[entry] = own
        else:
            found[entry] = first
    return found


def _defaults(method: Callable[..., Any]) -> dict[str, Any]:
    parameters = list(inspect.signature(inspect.unwrap(method)).parameters.values())[2:]
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _write(name: str, value: Any) -> str:
    if callable(value):
        value = getattr(value, "__name__", value)
    value = getattr(value, "name", value)
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
