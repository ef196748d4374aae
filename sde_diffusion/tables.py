"""Tables of text: made once, shown on a terminal, as plain text and on a page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .extras import optional


@dataclass(frozen=True)
class Table:
    """A title, a note, and rows of text; the first column names the row."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> Any:
        """For the terminal (needs the extra "bench")."""
        rich = optional("rich.table", "coloured tables")
        table = rich.Table(title=self.title, caption=self.note, title_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i else "left", no_wrap=bool(i))
        for row in self.rows:
            table.add_row(*row)
        return table

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in lines
        ]
        texts.insert(1, "-" * max(map(len, texts)))
        head = [self.title, *([self.note] if self.note else [])]
        return "\n".join([*head, "", *texts])


def number(value: float, figures: int = 3) -> str:
    """Three figures, or as many as asked; two where an exponent is shown, 1e-05 as 1e-5."""
    if not math.isfinite(value):
        return str(value)
    far = abs(value) < 1e-3 or abs(value) >= 1e4
    text = f"{value:.{min(figures, 2) if far else figures}g}"
    return text.replace("e-0", "e-").replace("e+0", "e")
