"""What makes a function a solver: the decorator that checks its door and enters it in the list.

A solver is a pure function (schedule, times, **options) -> Plan. Its text handles a checked list
of times and traces one algorithm; `@solver` adds what is the same for all: the grid is checked,
unknown options are named with the nearest right one, the plan gets its name and schedule, and
the function joins `SOLVERS`, from which tests and benchmarks enumerate.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor

from ..names import unknown
from ..plan import Plan, SingularError
from ..scalar import Scalar
from ..schedule import Schedule
from ..times import check_grid


@dataclass(frozen=True)
class Claim:
    """What a solver says of itself under one set of options, for certificates to hold it to.

    Attributes:
        order: global order of convergence from exact starting values, on smooth problems and a
            grid that stays clear of sigma = 0 (weak order if stochastic).
        options: the options under which the claim holds; () claims it for the defaults.
        warm_up: the order from the solver's own first steps; None where it is the same.
        point_exact: whether, for data concentrated in one point, every grid state has exactly the
            mean alpha_t x_0 and the variance sigma_t^2 of the forward process.
        exact: (prediction, variable, q): the row of every grid point, given exact inputs (states,
            outputs), is exact when this output
            ("data", "noise" or "velocity") is a polynomial of degree below q in this variable
            ("lambda", "rho" or "t"), lower orders of the first steps apart; None: no such claim.
        strong: strong order on one Brownian path; None if deterministic.
    """

    order: int
    options: Mapping[str, Any] = field(default_factory=dict)
    warm_up: int | None = None
    point_exact: bool = False
    exact: tuple[str, str, int] | None = None
    strong: float | None = None

    @property
    def usual_order(self) -> int:
        """Order of convergence from the solver's own first steps."""
        return self.order if self.warm_up is None else self.warm_up


SOLVERS: dict[str, Callable[..., Plan]] = {}
CLAIMS: dict[str, tuple[Claim, ...]] = {}
PAPERS: dict[str, str] = {}
_METHODS: dict[str, Callable[..., Plan]] = {}


def solver(paper: str, *claims: Claim) -> Callable[[Callable[..., Plan]], Callable[..., Plan]]:
    """Enter a function (schedule, times, **options) -> Plan in the list of solvers.

    Args:
        paper: where the method comes from, as "Lu et al. 2022, arXiv:2206.00927".
        claims: what it says of itself: first under its default options, then under others that
            are worth measuring. At least one.

    Raises:
        TypeError: if no claim is given, or something else than a claim.
        ValueError: if the first claim is not of the defaults, a claim has options that the
            function does not take, or there is a solver of this name already.
    """

    def enter(method: Callable[..., Plan]) -> Callable[..., Plan]:
        name = method.__name__
        defaults = _options(method)
        _check_claims(name, claims, defaults)

        @functools.wraps(method)
        def checked(
            schedule: Schedule, times: Sequence[float] | Tensor, *positional: Any, **options: Any
        ) -> Plan:
            if not isinstance(schedule, Schedule):
                raise TypeError(
                    f"{name} needs a Schedule first, not {type(schedule).__name__}; "
                    f"write {name}(schedule, times)"
                )
            given = _by_name(name, list(defaults), positional, options)
            return traced(name, schedule, check_grid(schedule, times), given)

        if name in SOLVERS:
            raise ValueError(f"there is a solver {name!r} already; give this one another name")
        SOLVERS[name], CLAIMS[name], PAPERS[name] = checked, claims, paper
        _METHODS[name] = method
        return checked

    return enter


def traced(
    name: str, schedule: Schedule, grid: list[Scalar], options: Mapping[str, Any], prefix: str = ""
) -> Plan:
    """A solver's plan on a grid that is checked: noisier to cleaner, or for `invert` the other way.

    Raises:
        TypeError: for an unknown option, or a value of another kind than the option's.
        SingularError: a grid on which it divides by zero.
        ValueError: a number that is not finite; what the method refuses.
    """
    method = _METHODS[name]
    parameters, defaults = inspect.signature(method).parameters, _options(method)
    for option in options:
        if option not in defaults:
            raise TypeError(unknown(f"option of {name}", option, defaults))
    try:
        options = {key: _checked(value, parameters[key]) for key, value in options.items()}
        plan = method(schedule, grid, **options)
    except ZeroDivisionError as error:
        raise SingularError(
            f"{name} divides by zero on this grid ({zeros(schedule, grid)}): move that end inside, "
            "e.g. with t_start or t_end of the grid, or take a solver that reaches it (ddim)"
        ) from error
    except SingularError as error:
        raise SingularError(f"{name}: {error}") from error
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    chosen = {**defaults, **options}
    text = ", ".join(f"{k}={_short(v)}" for k, v in chosen.items() if v is not None)
    return made_for(plan, schedule, f"{prefix}{name}({text})")


def made_for(plan: Plan, schedule: Schedule, name: str) -> Plan:
    """The plan, knowing its name and the schedule that it was made for."""
    known = copy.copy(plan)  # with its rows, which were checked when they were traced
    scales = _scales(plan, schedule)
    vars(known).update(name=name, schedule=repr(schedule), scales=scales)
    vars(known).pop("course", None)  # it knows the scales
    return known


def _check_claims(name: str, claims: tuple[Claim, ...], defaults: dict[str, Any]) -> None:
    if not claims or not all(isinstance(claim, Claim) for claim in claims):
        raise TypeError(f"{name} claims nothing: write @solver('paper', Claim(order=1))")
    if claims[0].options:
        raise ValueError(f"the first claim of {name} must be of its defaults, without options")
    for claim in claims:
        for option in claim.options:
            if option not in defaults:
                raise ValueError(unknown(f"option in a claim of {name}", option, defaults))


def zeros(schedule: Schedule, grid: list[Scalar]) -> str:
    """The ends of a grid at which alpha or sigma is 0, in words."""
    found = [
        f"{scale} = 0 at t = {float(t):g}"
        for t in (grid[0], grid[-1])
        for scale, value in zip(("alpha", "sigma"), schedule(t), strict=True)
        if value == 0
    ]
    return ", ".join(found) or "inside it"


def _scales(plan: Plan, schedule: Schedule) -> tuple[tuple[float, float, float], ...]:
    """(t, alpha_t, sigma_t) at the first, middle and last network call, and what noise needs."""
    asked = plan.asked_at
    points = dict.fromkeys((asked[0], asked[len(asked) // 2], asked[-1]))
    if plan.stochastic:
        points |= dict.fromkeys((*plan.times, *chain.from_iterable(plan.noises)))
    return tuple((t, float(schedule.alpha(t)), float(schedule.sigma(t))) for t in points)


def _by_name(
    name: str, known: list[str], positional: tuple[Any, ...], options: dict[str, Any]
) -> dict[str, Any]:
    """All options by their names; TypeError for one too many or one given twice."""
    if len(positional) > len(known):
        raise TypeError(
            f"{name} takes schedule, times and {len(known)} options "
            f"({', '.join(known) or 'none'}), but {len(positional)} were given without a name"
        )
    given = dict(zip(known, positional, strict=False))
    for option in given.keys() & options.keys():
        raise TypeError(
            f"{name} was given {option} twice: {given[option]!r} by its place and "
            f"{options[option]!r} by its name"
        )
    return given | options


def _checked(value: Any, parameter: inspect.Parameter) -> Any:
    """The value of an option, if it is of a kind that its annotation names.

    A 0-d tensor is a number; it keeps its gradient if it carries one. An option whose default is
    infinite may be so. What is no plain value (a list, a function) the method judges itself.
    """
    if isinstance(value, Tensor) and value.requires_grad:
        value = value.double()
    elif isinstance(value, Tensor | np.generic | np.ndarray) and value.ndim == 0:
        value = value.item()
    option, kind = parameter.name, parameter.annotation
    if kind is parameter.empty:
        return value
    kinds = (kind if isinstance(kind, str) else inspect.formatannotation(kind)).split(" | ")
    if not any(_fits(value, name) for name in kinds):
        wanted = " or ".join(_KINDS.get(name, name) for name in kinds)
        raise TypeError(
            f"{option} = {value!r} must be {wanted}; its default is {parameter.default!r}"
        )
    if isinstance(value, float) and not math.isfinite(value) and value != parameter.default:
        raise ValueError(f"{option} = {value} must be a finite number")
    return value


_KINDS = {
    "bool": "True or False",
    "int": "an integer",
    "float": "a number",
    "Sequence[float]": "one number a step",
    "str": "a word",
    "None": "None",
}


def _fits(value: Any, kind: str) -> bool:
    if kind.startswith("Callable") or kind.endswith("Function"):
        return callable(value)
    types = {"bool": bool, "int": int, "float": int | float, "str": str, "None": None}
    if kind not in types:
        return not isinstance(value, int | float | str | None)
    if isinstance(value, bool):
        return kind == "bool"
    if isinstance(value, Tensor):
        return kind == "float" and value.ndim == 0
    return isinstance(value, types[kind] or type(None))


def _options(method: Callable[..., Plan]) -> dict[str, Any]:
    parameters = list(inspect.signature(method).parameters.values())[2:]
    return {p.name: p.default for p in parameters}


def _short(value: Any) -> str:
    return getattr(value, "name", None) or repr(value)
