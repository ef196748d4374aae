"""Arguments that several subcommands read alike."""

from __future__ import annotations

import argparse


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1: "3,32,32" or "3x32x32"."""
    try:
        values = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give whole numbers with commas between"
        ) from error
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: every number must be at least 1")
    return values


def names(text: str) -> list[str]:
    """Names with commas between."""
    return [part.strip() for part in text.split(",") if part.strip()]
