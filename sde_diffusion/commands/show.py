"""Tables on the terminal: coloured where rich is at hand and somebody looks, else plain text."""

from __future__ import annotations

import importlib.util
import sys

from ..extras import optional
from ..tables import Table


def show(*tables: Table) -> None:
    """Print tables, an empty line after each."""
    if sys.stdout.isatty() and importlib.util.find_spec("rich"):
        console = optional("rich.console", "tables").Console()
        for table in tables:
            console.print(table.rich(), "")
    else:
        for table in tables:
            print(f"{table}\n")
