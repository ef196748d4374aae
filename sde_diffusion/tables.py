"""Tables of text: made once, shown on a terminal, as plain text and on a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
            left = i == 0 or _in_words([row[i] for row in self.rows])
            table.add_column(column, justify="left" if left else "right", no_wrap=bool(i))
        for row in self.rows:
            table.add_row(*row)
        return table

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        columns = list(zip(*lines, strict=True))
        widths = [max(map(len, column)) for column in columns]
        sides = [str.ljust if _in_words(column[1:]) else str.rjust for column in columns]
        sides[0] = str.ljust
        texts = [
            "  ".join(
                side(text, width) for side, text, width in zip(sides, row, widths, strict=True)
            )
            for row in lines
        ]
        texts = [text.rstrip() for text in texts]
        texts.insert(1, "-" * max(map(len, texts)))
        head = [self.title, *([self.note] if self.note else [])]
        return "\n".join([*head, "", *texts])


def _in_words(texts: Sequence[str]) -> bool:
    """Whether a column holds names rather than numbers."""
    return any(text[:1].isalpha() and text not in ("nan", "inf") for text in texts)


def number(value: float, figures: int = 3) -> str:
    """Three figures, or as many as asked; two where an exponent is shown, 1e-05 as 1e-5."""
    if not math.isfinite(value):
        return str(value)
    far = abs(value) < 1e-3 or abs(value) >= 1e4
    if not far and abs(value) >= 10**figures:
        return f"{value:.0f}"
    text = f"{value:.{min(figures, 2) if far else figures}g}"
    return text.replace("e-0", "e-").replace("e+0", "e")
