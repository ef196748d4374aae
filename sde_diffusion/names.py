"""Names given by a user, looked up with an error that says the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """A sentence for an unknown name: what was given, the nearest right name, all of them."""
    names = sorted(set(known))
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    inside = [n for n in names if len(str(name)) > 3 and str(name).casefold() in n.casefold()]
    short = [n for n in names if len(str(name)) > 4 and _abbreviates(str(name), n)]
    best = sorted(inside, key=len)[:3] or short[:3] or close
    hint = f"; did you mean {' or '.join(map(repr, best))}?" if best else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(names) or 'none'}"


def _abbreviates(short: str, name: str) -> bool:
    """Whether a name begins and ends as its short form, and has its letters in this order."""
    left = iter(name)
    return all(letter in left for letter in short) and (name[0], name[-1]) == (short[0], short[-1])


def look_up(what: str, name: object, table: Mapping[str, T]) -> T:
    """table[name], or a ValueError with the nearest right name."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(unknown(what, name, table))
    return table[name]
