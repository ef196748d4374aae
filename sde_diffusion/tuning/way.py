"""How to fit, as `tune` is asked: what is free, by which method, with which options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..counts import check_count
from ..names import look_up, unknown
from ..plan import Plan
from .base import Base
from .choices import COUNTS, FAMILIES, METHODS, STRATEGIES, Fitter, Strategy
from .family import Family
from .fit import Fit

_COUNTS = {"max_iterations", "tries", "turns"}
_SEAM = ("state", "watch")  # what every fit takes beside its own options


@dataclass(frozen=True)
class Way:
    """How to fit, as chosen: one fit of one family, or a strategy."""

    free: str
    method: str
    run: Callable[..., tuple[Plan, Fit]]
    family: Family | None
    numbers: int  # that are free, as far as is known beforehand


def way_of(
    free: str | Callable[[Base], Family],
    method: str | Fitter | None,
    base: Base,
    options: Mapping[str, Any],
    chunk: int,
    seed: int,
    also: Iterable[str] = (),
) -> Way:
    """What `tune` was asked, looked up and checked.

    Args:
        free, method, options, chunk, seed: as for `tune`.
        base: what tuning begins with.
        also: names of arguments that `tune` takes beside the options, for its errors.

    Raises:
        TypeError: an unknown option; a function that makes no `Family`.
        ValueError: unknown names; an option out of its range; what the way refuses of the base.
    """
    strategy: Strategy
    if isinstance(free, str) and free in STRATEGIES and method is None:
        strategy = STRATEGIES[free]
        _check_options(free, strategy, options, also)
        numbers = COUNTS[free](base, options) if free in COUNTS else 0
        options = _shared(strategy, chunk, seed, options)

        def follow(*task: Any, **seam: Any) -> tuple[Plan, Fit]:
            return strategy(base, *task, **seam, **options)

        return Way(free, getattr(strategy, "__name__", free), follow, None, numbers)
    known: Mapping[str, Any] = {**STRATEGIES, **FAMILIES}
    make = free if callable(free) else look_up("free", free, known)
    if isinstance(free, str) and free not in FAMILIES:
        raise ValueError(f"free = {free!r} is fitted in a way of its own: leave out method")
    method = "least_squares" if method is None else method
    fitter: Fitter = method if callable(method) else look_up("method", method, METHODS)
    name = method if isinstance(method, str) else getattr(method, "__name__", repr(method))
    _check_options(name, fitter, options, also)
    options = _shared(fitter, chunk, seed, options)
    family = make(base)
    if not isinstance(family, Family):
        raise TypeError(
            f"free = {getattr(free, '__name__', free)!r} made {type(family).__name__}: a function "
            "for free takes a Base and returns a Family"
        )

    def once(*task: Any, **seam: Any) -> tuple[Plan, Fit]:
        fit = fitter(family, *task, **seam, **options)
        return family.plan(fit.numbers), fit

    free = free if isinstance(free, str) else family.name
    return Way(free, name, once, family, len(family.start))


def own_options(function: Callable[..., Any]) -> set[str]:
    """Names of the options of a way of fitting, without what passes between it and `tune`."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - set(_SEAM)


def _check_options(
    name: str, function: Callable[..., Any], options: Mapping[str, Any], also: Iterable[str]
) -> None:
    own = own_options(function)
    for option in options:
        if option not in own:
            raise TypeError(unknown(f"option of tune with {name}", option, [*own, *also]))
    for count in _COUNTS & set(options):
        check_count(count, options[count])
    ftol = options.get("ftol", 0.0)
    if isinstance(ftol, bool) or not isinstance(ftol, int | float) or not 0 <= ftol < 1:
        raise ValueError(
            f"ftol = {ftol!r}: the relative decrease of the loss below which a fit has converged, "
            "from 0 to below 1"
        )


def _shared(
    function: Callable[..., Any], chunk: int, seed: int, options: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The options of a way of fitting, with what it has in common with `tune`.

    Its own chunk, if it has one, is no larger than this; its draws are of this seed.
    """
    parameters = inspect.signature(function).parameters
    shared: dict[str, Any] = {name: seed for name in ("seed", "noise") if name in parameters}
    if "chunk" in parameters:
        own = (getattr(function, "__kwdefaults__", None) or {}).get("chunk") or chunk
        shared["chunk"] = min(own, chunk)
    return {**shared, **options}
