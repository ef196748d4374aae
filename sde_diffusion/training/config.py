"""A training run as a file: tables of plain data, in TOML or JSON.

| table | holds |
|---|---|
| [data] | kind ("digits", "numpy", "folder", "datasets"), its arguments, flip; condition, a table \
with kind ("smaller", "erased", "outline") and arguments: an image made from each |
| [held_out] | the same, to evaluate on; may be left out |
| [network] | kind ("unet", "dit", "mlp") and its arguments; what the data settle may be left out |
| [schedule] | kind ("vp_cosine", "edm", ...) and its arguments |
| [model] | prediction, label, sigma_data; may be left out |
| [objective] | weighting, times, drop, ...; see `objectives`; may be left out |
| | with [network] outputs = 2, a learned variance: times, weight, bins, drop |
| [training] | arguments of `Trainer` |
| [samples] | n, steps, solver, seed of the pictures drawn as it goes; may be left out |
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..names import unknown

Table = dict[str, Any]


@dataclass(frozen=True)
class Configuration:
    """The tables of a run; `training.build` makes what they say and checks what is in them.

    Attributes:
        data, network, schedule, training: must be there; the others have defaults.
        where: the file, for errors.
    """

    data: Table
    network: Table
    schedule: Table
    training: Table
    model: Table = field(default_factory=dict)
    objective: Table = field(default_factory=dict)
    samples: Table = field(default_factory=dict)
    held_out: Table | None = None
    where: str = field(default="configuration", compare=False)

    @classmethod
    def of(cls, tables: Mapping[str, Any], where: str = "configuration") -> Configuration:
        """From plain data.

        Raises:
            ValueError: an unknown table (with the nearest right one), a missing one, or something
                else where a table should be.
        """
        for name, table in tables.items():
            if name not in TABLES:
                raise ValueError(f"{where}: {unknown('table', name, TABLES)}")
            if not isinstance(table, Mapping):
                raise ValueError(f"{where}: {name} = {table!r} must be a table, [{name}]")
        missing = [name for name in NEEDED if name not in tables]
        if missing:
            lacks = ", ".join(f"[{name}]" for name in missing)
            raise ValueError(
                f"{where} lacks {lacks}; `sde-diffusion train --example digits` prints a whole one"
            )
        return cls(**{name: dict(table) for name, table in tables.items()}, where=where)

    def tables(self) -> dict[str, Any]:
        """As plain data: `Configuration.of(c.tables())` is c again."""
        found = {name: getattr(self, name) for name in TABLES}
        return {name: table for name, table in found.items() if table or name in NEEDED}

    def changed(self, settings: Sequence[str]) -> Configuration:
        """With "table.key=value" for some keys; values as TOML writes them, or a bare word.

        Raises:
            ValueError: a setting of another form, or of an unknown table.
        """
        tables = self.tables()
        for setting in settings:
            place, equals, text = setting.partition("=")
            keys = place.strip().split(".")
            if not equals or len(keys) < 2 or not all(keys):
                raise ValueError(f"{setting!r}: write table.key=value, as training.steps=1000")
            try:
                tables = _with(tables, keys, _value(text.strip()))
            except ValueError as error:
                raise ValueError(f"{setting!r}: {error}") from error
        return Configuration.of(tables, self.where)

    def place(self, name: str) -> str:
        """What a table is called in errors."""
        return f"{self.where}: [{name}]"


TABLES = tuple(f.name for f in fields(Configuration) if f.name != "where")
NEEDED = ("data", "network", "schedule", "training")


def read_configuration(path: str | os.PathLike[str]) -> Configuration:
    """The configuration in a .toml or .json file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no TOML or JSON, or its tables are not those of a run.
    """
    path = Path(path)
    if path.suffix not in (".toml", ".json"):
        raise ValueError(f"{path}: give a .toml or .json file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is no {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(tables, dict):
        raise ValueError(f"{path} holds no tables")
    return Configuration.of(tables, str(path))


def _value(text: str) -> Any:
    """A value as TOML writes it; what is none is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _with(table: Mapping[str, Any], keys: list[str], value: Any) -> Table:
    """A copy of a table with a value at keys within keys."""
    first, *rest = keys
    if not rest:
        return {**table, first: value}
    inner = table.get(first, {})
    if not isinstance(inner, Mapping):
        raise ValueError(f"{first} = {inner!r} is no table with keys; give {first} as a whole")
    return {**table, first: _with(inner, rest, value)}
