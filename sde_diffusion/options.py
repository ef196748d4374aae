"""Functions called with what a file says: keys and types checked before, errors that name them."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .names import look_up, unknown

T = TypeVar("T")
_WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text in quotes", "texts in quotes"),
    bool: ("true or false", "true or false"),
    Mapping: ("a table", "tables"),
    Path: ("a path in quotes", "paths in quotes"),
}
_LISTS = (list, tuple, Sequence)


def made(
    where: str, table: Any, known: Mapping[str, Callable[..., T]], beside: Collection[str] = ()
) -> T:
    """What {"kind": name, **arguments} stands for: known[name](**arguments), checked by `called`.

    Args:
        where: the table, as it stands in errors.
        table: the kind and its arguments.
        known: what makes a thing of each kind.
        beside: keys that were taken out of the table before; for errors.
    """
    place, function, arguments = named(where, table, known)
    return called(place, function, arguments, ("kind", *beside))


def named(where: str, table: Any, known: Mapping[str, T]) -> tuple[str, T, dict[str, Any]]:
    """Where, which and with what, of a table {"kind": name, **arguments}.

    Raises:
        ValueError: no table; no or an unknown kind, the nearest right one named.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f'{where} = {table!r}: give a table with its kind, {{ kind = "..." }}')
    if "kind" not in table:
        raise ValueError(f"{where} lacks kind: one of {', '.join(known)}")
    arguments = {key: value for key, value in table.items() if key != "kind"}
    try:
        found = look_up("kind", table["kind"], known)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return f"{where} {table['kind']!r}", found, arguments


def called(
    where: str,
    function: Callable[..., T],
    given: Mapping[str, Any],
    beside: Collection[str] = (),
    /,
    **fixed: Any,
) -> T:
    """function(**given, **fixed), after the keys and the types of plain values are checked.

    Args:
        where: what the keys belong to, as it stands in the error.
        function: its parameters are the keys; those without a default must be given.
        given: values that JSON and TOML know.
        beside: keys that stand beside them and are read elsewhere; for errors.
        fixed: arguments that are not for the user to give.

    Raises:
        ValueError: an unknown key (with the nearest right one), a missing key, a value of another
            type; what the function itself raises, with `where` before it.
    """
    values = checked(where, function, given, fixed, beside)
    try:
        return function(**values, **fixed)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def checked(
    where: str,
    function: Callable[..., Any],
    given: Mapping[str, Any],
    taken: Collection[str] = (),
    beside: Collection[str] = (),
) -> dict[str, Any]:
    """The values as the function takes them, after the checks of `called`, none of `taken`."""
    known = {name: p for name, p in parameters_of(function).items() if name not in taken}
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: {unknown('key', key, [*known, *beside])}")
    missing = [n for n, p in known.items() if p.default is p.empty and n not in given]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}; it knows {', '.join(known)}")
    hints = _hints(function)
    return {key: _fitted(f"{where}: {key}", v, hints.get(key, Any)) for key, v in given.items()}


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function that can be given by name."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(function).parameters
    return {name: p for name, p in found.items() if p.kind in named}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    while isinstance(function, partial):
        function = function.func
    target = function.__init__ if inspect.isclass(function) else function
    return typing.get_type_hints(target)


def _fitted(where: str, value: Any, hint: Any) -> Any:
    """The value, a float or a tuple where one is meant; ValueError if it is of another type."""
    kinds = _kinds(hint)
    if kinds is None:
        return value
    if not any(_fits(value, kind) for kind in kinds):
        raise ValueError(f"{where} = {value!r}: give {_words(kinds, 0)}")
    if float in kinds and int not in kinds and type(value) is int:
        return float(value)
    tuples = any(typing.get_origin(kind) is tuple for kind in kinds)
    return tuple(value) if tuples and isinstance(value, list) else value


def _kinds(hint: Any) -> list[Any] | None:
    """The types of a union; None where anything may be given."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = list(typing.get_args(hint)) if union else [hint]
    return None if Any in kinds else kinds


def _fits(value: Any, kind: Any) -> bool:
    origin = typing.get_origin(kind) or kind
    if origin in _LISTS:
        inner = [part for part in typing.get_args(kind) if part is not Ellipsis]
        if not isinstance(value, list | tuple):
            return False
        return not inner or all(_fits_any(item, inner) for item in value)
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin in (Path, Mapping):
        return isinstance(value, str if origin is Path else Mapping)
    return isinstance(value, origin) if inspect.isclass(origin) else False


def _fits_any(value: Any, hints: Sequence[Any]) -> bool:
    return any(k is None or any(_fits(value, kind) for kind in k) for k in map(_kinds, hints))


def _words(hints: Sequence[Any], which: int) -> str:
    """What of these types a file can hold, one of it or (which = 1) several."""
    kinds = [kind for hint in hints for kind in _kinds(hint) or ()]
    return " or ".join(dict.fromkeys(word for kind in kinds if (word := _word(kind, which))))


def _word(kind: Any, which: int) -> str:
    """What a type is called; "" for one that no file holds."""
    origin = typing.get_origin(kind) or kind
    if origin in _LISTS:
        inner = _words([part for part in typing.get_args(kind) if part is not Ellipsis], 1)
        return " of ".join(filter(None, (("a list", "lists")[which], inner)))
    return _WORDS.get(origin, ("", ""))[which]
